"""What every file of attempts has before it: targets, raw system calls, a line for each attempt."""
# ruff: noqa: F401

import ctypes
import errno
import json
import os
import platform
import stat
import struct
import sys

T = json.loads(sys.stdin.readline())
libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = []
X86 = platform.machine() == "x86_64"


def attempt(function):
    ATTEMPTS.append(function)
    return function


def syscall(x86, arm, *arguments):
    number = x86 if X86 else arm
    if number is None:
        raise OSError(errno.ENOSYS, "not on this machine")
    words = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")
    return result


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def run_attempts():
    for function in ATTEMPTS:
        try:
            gained = function()
        except (OSError, ValueError) as error:
            verdict, detail = "contained", f"{type(error).__name__}: {error}"
        except BaseException as error:
            # The attempt itself is wrong, so it proves nothing.
            verdict, detail = "BROKEN", f"{type(error).__name__}: {error}"
        else:
            verdict = "contained" if gained is None else "GAINED"
            detail = repr(gained)
        print(json.dumps([function.__name__, verdict, detail]), flush=True)
    print(json.dumps(["all", len(ATTEMPTS), ""]))
