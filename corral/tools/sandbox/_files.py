"""Takes files out of a workspace that untrusted code has written, by a descriptor of its folder.

Nothing is followed: each step opens one name in an open folder, never a link, and what turns out
not to be a plain file is not read. How deep, how many and how much is bounded; and no error of the
file system, whatever lies there, leaves this module.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from corral.tools.sandbox.result import MadeFile

__all__ = ["Seen", "changed_files", "read_files", "seen_files"]

_MAX_DEPTH = 8
_MAX_ENTRIES = 8192
_MAX_FILES = 20
_MAX_BYTES = 16 << 20
_MAX_TOTAL_BYTES = 32 << 20
# None of these is there on Windows, where nothing is ever collected.
_NAMES = ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY")
_FLAGS = functools.reduce(lambda flags, name: flags | getattr(os, name, 0), _NAMES, os.O_RDONLY)
_FOLDER = getattr(os, "O_DIRECTORY", 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """A plain file as it was when it was looked at."""

    inode: int
    size: int
    changed_ns: int


def seen_files(folder: int) -> dict[str, Seen]:
    """The plain files in a folder and below it, by relative path; hidden ones are left out."""
    return {path: seen for path, seen in _walk(folder)}


def changed_files(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> list[str]:
    """The paths that are new in `after`, or not as they were, in order of their names."""
    return sorted(path for path, seen in after.items() if before.get(path) != seen)


def read_files(folder: int, paths: list[str]) -> tuple[MadeFile, ...]:
    """What lies under these paths; without its bytes where it is too big, or one too many."""
    files: list[MadeFile] = []
    left = _MAX_TOTAL_BYTES
    for path in paths[: _MAX_ENTRIES >> 4]:
        data = None
        if len(files) < _MAX_FILES:
            data = _read(folder, path, min(left, _MAX_BYTES))
            left -= len(data or b"")
        files.append(MadeFile(path=path, data=data))
    return tuple(files)


def _walk(folder: int) -> Iterator[tuple[str, Seen]]:
    """Every plain file that is in reach, the upper ones first."""
    entries = 0
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop(0)
        opened = _open_folder(folder, parts)
        if opened < 0:
            continue
        try:
            for name, found in _listed(opened):
                entries += 1
                if entries > _MAX_ENTRIES:
                    return
                if stat.S_ISREG(found.st_mode):
                    seen = Seen(found.st_ino, found.st_size, found.st_ctime_ns)
                    yield "/".join((*parts, name)), seen
                elif stat.S_ISDIR(found.st_mode) and len(parts) + 1 < _MAX_DEPTH:
                    waiting.append((*parts, name))
        finally:
            os.close(opened)


def _listed(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__pycache__")):
                    continue
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except OSError:
                    continue
    except OSError:
        return


def _open_folder(folder: int, parts: tuple[str, ...]) -> int:
    """The folder below `folder` along `parts`, or -1."""
    opened = -1
    try:
        opened = os.open(".", _FLAGS | _FOLDER, dir_fd=folder)
        for part in parts:
            inner = os.open(part, _FLAGS | _FOLDER, dir_fd=opened)
            os.close(opened)
            opened = inner
    except OSError:
        if opened >= 0:
            os.close(opened)
        return -1
    return opened


def _read(folder: int, path: str, limit: int) -> bytes | None:
    *parts, name = path.split("/")
    parent = _open_folder(folder, tuple(parts))
    if parent < 0:
        return None
    try:
        fd = os.open(name, _FLAGS, dir_fd=parent)
    except OSError:
        return None
    finally:
        os.close(parent)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        data = bytearray()
        while piece := os.read(fd, min(1 << 20, limit + 1 - len(data))):
            data += piece
            if len(data) > limit:
                return None
        return bytes(data)
    except OSError:
        return None
    finally:
        os.close(fd)
