"""`write_file`: text into a file in a granted folder, all of it or none."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from corral.errors import ToolError
from corral.messages import ToolSpec
from corral.tools.builtin.files import FileTool, parameters
from corral.tools.builtin.folders import Folders, Place, read_at
from corral.tools.options import ToolOptions

__all__ = ["WriteFile"]

_LARGEST_FILE = 8 << 20
_LARGEST_TEXT = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class WriteFile(FileTool):
    """`write_file`: makes a file, replaces it, or adds to its end.

    The text goes into a file of its own first, which takes the name once it is complete on the
    disk. So a reader sees the old file or the new one; and a name that has become a link is
    replaced, never written through.
    """

    SPEC = ToolSpec(
        name="write_file",
        description="Write text into a file.",
        parameters=parameters(
            ["path", "text"],
            path={"type": "string", "description": "The file's path."},
            text={"type": "string", "description": "The text."},
            how={
                "type": "string",
                "enum": ["new", "replace", "append"],
                "default": "new",
                "description": "new: there must be no such file yet.",
            },
        ),
    )

    def __init__(self, *folders: str | Path, options: ToolOptions | None = None) -> None:
        """Grant the folders, to be changed.

        Raises:
            ConfigError: One can't be granted; see `Permissions`.
        """
        super().__init__(*folders, write=True, options=options)
        self._lock = threading.Lock()

    @property
    def folders(self) -> Folders:
        """The folders that may be changed."""
        return Folders(self._permissions.write)

    def _work(self, values: Mapping[str, Any]) -> JsonValue:
        path: str = values["path"]
        place = self.folders.place(path)
        if not place.parts or path.endswith("/"):
            raise ToolError(f"{path!r} is a folder's path. Write the file's name after it.")
        try:
            data = values["text"].encode()
        except UnicodeEncodeError as error:
            raise ToolError("The text holds half of a surrogate pair. Write it again.") from error
        if len(data) > _LARGEST_TEXT:
            raise ToolError(f"The text has more than {_LARGEST_TEXT} bytes. Write less at a time.")
        parent = Place(place.root, place.parts[:-1], place.shown)
        # One at a time, or of two texts that are added at once one would be lost.
        with self._lock, self.folders.folder(parent, make=True) as folder:
            return _write(folder, place.parts[-1], place.shown, data, values["how"])


def _write(folder: int, name: str, shown: str, data: bytes, how: str) -> str:
    old = _existing(folder, name, shown)
    if how == "new" and old is not None:
        raise ToolError(f"{shown!r} is there already. Use how='replace' or how='append'.")
    if how == "append" and old is not None:
        data = read_at(folder, name, shown, most=_LARGEST_FILE) + data
        if len(data) > _LARGEST_FILE:
            raise ToolError(f"{shown!r} would have more than {_LARGEST_FILE} bytes.")
    # Its name says nothing of the file's, which may be as long as a name can be.
    temporary = f".corral-{secrets.token_hex(8)}"
    file = os.open(temporary, _NEW, 0o666, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
            opened.flush()
            if old is not None:
                os.fchmod(file, stat.S_IMODE(old.st_mode))
            os.fsync(file)
        if how == "new":
            _take_free_name(folder, temporary, name, shown)
        else:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
    return f"{shown} now has {len(data)} bytes."


def _existing(folder: int, name: str, shown: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"{shown!r} is a folder or a link. Choose another name.")
    return found


def _take_free_name(folder: int, temporary: str, name: str, shown: str) -> None:
    """Give the file its name unless there is one by now; a link is the call that can't replace."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        raise ToolError(f"{shown!r} is there already. Use how='replace'.") from error
    except PermissionError:  # A file system without hard links; the check before has to do.
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
