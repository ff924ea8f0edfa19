"""Forks that ask first: the kernel holds them until the supervisor has said yes or no.

A session has to be able to copy its process, and the code that runs in it must not. So every fork
there is put to the supervisor (`seccomp_unotify(2)`), which lets through the one that it expects.
Only numbers are looked at that the kernel has copied, so there is nothing to be swapped after the
answer.
"""

from __future__ import annotations

import errno
import os
import struct

from . import _libc, _seccomp

__all__ = ["answer", "hand_over", "install", "new_gate", "question", "take_over"]

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND
_CONTINUE = 1


def install(*, processes: bool) -> int:
    """Have this process and its children ask from now on; returns the listener, or -1.

    There is none where another listener is in place already, as some container managers have it.
    """
    program = _seccomp.asking_filter(_libc.machine(), processes=processes)
    try:
        return _libc.set_listening_filter(program)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EINVAL, errno.ENOSYS, errno.EPERM):
            return -1
        raise


def new_gate() -> tuple[int, int]:
    """The two ends of what a descriptor is sent through."""
    import _socket

    __import__("fcntl")  # While the files can be read.
    receiving, sending = _socket.socketpair()
    return receiving.detach(), sending.detach()


def hand_over(gate: int, fd: int) -> None:
    """Send a descriptor, or the word that there is none (-1), and close both ends that are ours."""
    import _socket

    end = _socket.socket(fileno=gate)
    passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=i", fd))] if fd >= 0 else []
    end.sendmsg([b"x"], passed)
    end.close()
    if fd >= 0:
        os.close(fd)


def take_over(gate: int) -> int:
    """Receive what `hand_over` sent, or -1; closes `gate`. Blocks until it is there."""
    import _socket

    end = _socket.socket(fileno=gate)
    _, passed, _, _ = end.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    end.close()
    return struct.unpack("=i", passed[0][2][:4])[0] if passed else -1


def question(listener: int) -> tuple[int, int] | None:
    """The next question's number and the thread that asks; None if it has gone meanwhile."""
    import fcntl

    data = bytearray(80)  # struct seccomp_notif
    try:
        fcntl.ioctl(listener, _RECEIVE, data, True)
    except OSError:
        return None
    number, thread = struct.unpack_from("=QI", data)
    return number, thread


def answer(listener: int, number: int, *, allow: bool) -> bool:
    """Let the asking call happen, or have it fail with EPERM.

    False if nobody waits for the answer any more: the thread was killed, or a signal had its call
    begin anew, and then it asks again.
    """
    import fcntl

    # struct seccomp_notif_resp: id, val, error, flags.
    word = struct.pack("=QqiI", number, 0, 0 if allow else -errno.EPERM, _CONTINUE if allow else 0)
    try:
        fcntl.ioctl(listener, _SEND, word)
    except OSError:
        return False
    return True
