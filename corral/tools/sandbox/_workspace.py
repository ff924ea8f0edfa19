"""The reduced level's workspace: a folder on the host's disk, measured in use, removed afterwards.

What lies in it was made by untrusted code. It is walked by descriptors, never by recursion, and
nothing in it is followed or opened but folders.
"""

from __future__ import annotations

import os
import sys

__all__ = ["exceeds", "make", "remove"]

if sys.platform == "linux":  # Elsewhere nothing here is called, but it is imported.
    _FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 128


def make(parent: str, owner: int | None) -> str:
    """A new private folder in `parent`, given to `owner` where the caller is root."""
    path = os.path.join(os.path.realpath(parent), f"corral-{os.urandom(12).hex()}")
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, owner, owner)
    return path


def exceeds(path: str, *, disk_bytes: int, files: int) -> str | None:
    """`disk` or `files` if the folder has outgrown that quota, else None.

    Depth costs a descriptor a level here, so more than 128 levels count as too many files.
    """
    used = count = 0
    stack: list[tuple[int, list[str]]] = []
    try:
        top = os.open(path, _FOLDER)
        stack.append((top, ["."]))
        while stack:
            folder, names = stack[-1]
            if not names:
                os.close(folder)
                stack.pop()
                continue
            try:
                inner = os.open(names.pop(), _FOLDER, dir_fd=folder)
            except OSError:
                continue  # Removed or replaced since it was listed.
            folders: list[str] = []
            stack.append((inner, folders))
            if len(stack) > _MAX_DEPTH:
                return "files"
            for name, is_folder, size in _listed(inner):
                count += 1
                used += size
                if count > files:
                    return "files"
                if used > disk_bytes:
                    return "disk"
                if is_folder:
                    folders.append(name)
    finally:
        for folder, _ in stack:
            os.close(folder)
    return None


def _listed(folder: int) -> list[tuple[str, bool, int]]:
    found: list[tuple[str, bool, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                size = entry.stat(follow_symlinks=False).st_blocks * 512
                found.append((entry.name, entry.is_dir(follow_symlinks=False), size))
            except OSError:
                found.append((entry.name, False, 0))
    return found


def remove(path: str) -> None:
    """Delete the folder and all in it, once nobody writes there any more.

    Folders are moved up to the top before they are emptied, so that depth costs neither stack nor
    descriptors.
    """
    top = os.open(path, _FOLDER)
    serial = 0
    try:
        while listed := _listed(top):
            for name, is_folder, _ in listed:
                if not is_folder:
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                folder = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for inner, inner_is_folder, _ in _listed(folder):
                        if inner_is_folder:
                            os.chmod(inner, 0o700, dir_fd=folder)
                            serial += 1
                            moved = f".{serial}-{os.urandom(8).hex()}"
                            os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
                        else:
                            os.unlink(inner, dir_fd=folder)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)
