"""Landlock: which files the process may touch, by the kernel's own unprivileged access control.

The bits are those of `linux/landlock.h`. Everything that the running kernel's version knows is
handled, and so refused unless a rule allows it; TCP, signals to other processes and abstract
sockets get no rule at all.
"""

from __future__ import annotations

import os
import stat

from . import _libc

__all__ = ["confine", "covers", "open_rules"]

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_BITS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_READ = _READ_FILE | _READ_DIR
_CHANGE = (
    _WRITE_FILE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SYM
    | _REFER
    | _TRUNCATE
)
_ACCESS = {
    "read": _READ,
    "data": _READ,
    "run": _READ | _EXECUTE,
    "write": _READ | _CHANGE,
    "build": _READ | _CHANGE | _EXECUTE,
    "device": _READ_FILE | _WRITE_FILE,
}


def open_rules(rules: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """Open each `(path, kind)` now, to be allowed when the process may no longer reach it.

    `kind` is `read`, `data` (the same), `run`, `write`, `build` (write and run) or `device`. A path
    that doesn't exist is left out.
    """
    opened: list[tuple[int, int]] = []
    for path, kind in rules:
        try:
            fd = _libc.open_no_links(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        access = _ACCESS[kind]
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _FILE_BITS
        opened.append((fd, access))
    return opened


def covers(abi: int) -> str:
    """What version `abi` of Landlock confines, for a person."""
    if not abi:
        return "not in this kernel"
    told = ["files"]
    told += ["renaming between folders"] if abi >= 2 else []
    told += ["truncating"] if abi >= 3 else []
    told += ["TCP"] if abi >= 4 else []
    told += ["devices"] if abi >= 5 else []
    told += ["signals and abstract sockets"] if abi >= 6 else []
    return f"version {abi}: {', '.join(told)}"


def confine(opened: list[tuple[int, int]], *, abi: int) -> None:
    """Allow what `open_rules` opened, refuse the rest, and close the descriptors. For good."""
    known = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    network = 0b11 if abi >= 4 else 0
    scoped = 0b11 if abi >= 6 else 0
    ruleset = _libc.landlock_create(known, network, scoped, abi=abi)
    for fd, access in opened:
        _libc.landlock_add_path(ruleset, fd, access & known)
        os.close(fd)
    _libc.landlock_restrict(ruleset)
    os.close(ruleset)
