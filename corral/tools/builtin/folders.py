"""Opening files below granted folders, so that no path and no link leads out of them.

Every step of a path is opened by itself, below the folder that the step before it opened, and never
through a symbolic link (`openat` with `O_NOFOLLOW`). There is no moment between a check and a use
in which something could be swapped: what was opened is what is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corral.errors import ConfigError, ToolError

__all__ = ["Entry", "Folders", "Place"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK the opening of a pipe would wait for somebody to write into it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LONGEST_PATH = 1024
_DEEPEST = 32
_LINKED = (errno.ELOOP, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Place:
    """Something below a granted folder: the folder, the steps down from it, and how it is shown."""

    root: Path
    parts: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something in a folder: its name, its path as it is shown, its kind and its size."""

    name: str
    shown: str
    is_folder: bool
    is_file: bool
    size: int
    folder: int
    """The descriptor of the folder that it is in, open while the entries are gone through."""


class Folders:
    """The granted folders, and how a path that a model wrote is read among them.

    With one folder, paths are relative to it; with several, they begin with the folder's name.
    Absolute paths inside one of them are taken too.
    """

    def __init__(self, roots: tuple[Path, ...]) -> None:
        """Take the folders, absolute and with links resolved."""
        self._roots = roots

    def check(self, tool: str) -> None:
        """See that they can be used.

        Raises:
            ConfigError: There are none, two have one name, or one isn't a folder.
        """
        if not self._roots:
            raise ConfigError(f"The tool {tool!r} is granted no folder. Name one.")
        names = [root.name for root in self._roots]
        for root in self._roots:
            if not root.is_dir():
                raise ConfigError(f"{str(root)!r}, granted to {tool!r}, is no folder. Make it.")
            if names.count(root.name) > 1:
                raise ConfigError(
                    f"Two folders granted to {tool!r} are called {root.name!r}. Rename one."
                )

    @property
    def names(self) -> list[str]:
        """What the paths begin with where there are several folders; else nothing."""
        return [root.name for root in self._roots] if len(self._roots) > 1 else []

    def place(self, path: str) -> Place:
        """Where a path that a model wrote leads.

        Raises:
            ToolError: Out of the folders, or nowhere.
        """
        if "\0" in path or len(path) > _LONGEST_PATH:
            raise ToolError("The path is too long, or holds a zero byte.")
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts:
            raise ToolError(f"{path!r} holds '..'. Write the path from the folder down.")
        if path.startswith("/"):
            for root in self._roots:
                above = root.parts[1:]
                if parts[: len(above)] == above:
                    return self._below(root, parts[len(above) :])
            raise ToolError(f"{path!r} is outside the folders that may be used.")
        if not self.names:
            if not self._roots:
                raise ToolError("No folder may be used.")
            return self._below(self._roots[0], parts)
        for root in self._roots:
            if parts[:1] == (root.name,):
                return self._below(root, parts[1:])
        raise ToolError(f"{path!r} is in none of the folders: {', '.join(self.names)}.")

    def _below(self, root: Path, parts: tuple[str, ...]) -> Place:
        shown = (root.name, *parts) if self.names else parts
        return Place(root, parts, "/".join(shown) or ".")

    @contextmanager
    def folder(self, place: Place, *, make: bool = False) -> Generator[int]:
        """The descriptor of a folder; with `make`, what is missing of it is made.

        Raises:
            ToolError: It can't be opened, or a link is on the way.
        """
        at = -1
        try:
            at = os.open(place.root, _FOLDER)
            for part in place.parts:
                if make:
                    try:
                        os.mkdir(part, dir_fd=at)
                    except FileExistsError:
                        pass
                below = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
            yield at
        except OSError as error:
            raise _said(error, place.shown) from error
        finally:
            if at >= 0:
                os.close(at)

    def read(self, place: Place, *, most: int) -> bytes:
        """A file's bytes.

        Raises:
            ToolError: It isn't a plain file, has more than `most` bytes, or can't be read.
        """
        if not place.parts:
            raise ToolError(f"{place.shown!r} is a folder. Use list_files.")
        with self.folder(Place(place.root, place.parts[:-1], place.shown)) as folder:
            return read_at(folder, place.parts[-1], place.shown, most=most)

    def walk(self, place: Place, *, deep: bool) -> Iterator[Entry]:
        """What is in a folder by name, and with `deep` in the folders below it. Links too."""
        with self.folder(place) as folder:
            yield from _entries(folder, "" if place.shown == "." else place.shown, deep, 0)


def read_at(folder: int, name: str, shown: str, *, most: int) -> bytes:
    """The bytes of the plain file `name` in an open folder. Raises as `Folders.read`."""
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        raise _said(error, shown) from error
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise ToolError(f"{shown!r} is a folder. Use list_files.")
        if not stat.S_ISREG(found.st_mode):
            raise ToolError(f"{shown!r} is no plain file.")
        with open(file, "rb", closefd=False) as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise _said(error, shown) from error
    finally:
        os.close(file)
    if len(data) > most:
        raise ToolError(f"{shown!r} has more than {most} bytes, which is too much.")
    return data


def _entries(folder: int, shown: str, deep: bool, depth: int) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found)
    for name in names:
        try:
            what = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:  # It has gone since.
            continue
        path = f"{shown}/{name}" if shown else name
        is_folder = stat.S_ISDIR(what.st_mode)
        yield Entry(
            name=name,
            shown=path,
            is_folder=is_folder,
            is_file=stat.S_ISREG(what.st_mode),
            size=what.st_size,
            folder=folder,
        )
        if not (deep and is_folder and depth < _DEEPEST):
            continue
        try:
            below = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:  # Not to be opened, or a link by now.
            continue
        try:
            yield from _entries(below, path, deep, depth + 1)
        finally:
            os.close(below)


def _said(error: OSError, shown: str) -> ToolError:
    if isinstance(error, FileNotFoundError):
        return ToolError(f"There is no {shown!r}. Use list_files to see what there is.")
    if error.errno in _LINKED:
        return ToolError(f"{shown!r} is a link, or leads through one or through a file.")
    return ToolError(f"{shown!r} can't be used: {error.strerror or error}.")
