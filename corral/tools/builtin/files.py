"""`read_file`, `list_files` and `search_files`: text files in granted folders."""

from __future__ import annotations

import fnmatch
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
from pydantic import JsonValue

from corral.errors import ToolError
from corral.messages import ToolSpec
from corral.tools.builtin.folders import Entry, Folders, Place, read_at
from corral.tools.configured import ConfiguredTool
from corral.tools.options import ToolOptions
from corral.tools.plain_text import plain, shortened
from corral.tools.sandbox import Permissions
from corral.tools.schema import with_defaults
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["FileTool", "ListFiles", "ReadFile", "SearchFiles", "parameters"]

_LARGEST_FILE = 8 << 20
_LONGEST_TEXT = 64 << 10
_MOST_ENTRIES = 500
_MOST_MATCHES = 100
_MOST_VISITED = 20_000
_LONGEST_LINE = 300
_SEARCH_SECONDS = 10.0


def parameters(required: list[str], **properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The schema of a tool of ours."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list[JsonValue](required),
        "additionalProperties": False,
    }


class FileTool(ConfiguredTool):
    """A tool on files below granted folders. Links are never followed."""

    SPEC: ToolSpec

    def __init__(
        self, *folders: str | Path, write: bool = False, options: ToolOptions | None = None
    ) -> None:
        """Grant the folders, to be read, or with `write` to be changed too.

        Raises:
            ConfigError: One can't be granted; see `Permissions`.
        """
        paths = tuple(Path(folder).expanduser().absolute() for folder in folders)
        granted = Permissions(write=paths) if write else Permissions(read=paths)
        super().__init__(self.SPEC, permissions=granted, options=options)

    @property
    def folders(self) -> Folders:
        """The folders that may be read."""
        return Folders((*self._permissions.read, *self._permissions.write))

    async def ready(self) -> None:
        """See that the folders are there.

        Raises:
            ConfigError: One isn't.
        """
        await anyio.to_thread.run_sync(self.folders.check, self._spec.name)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Do the work in a thread.

        Raises:
            ToolError: A path leads out of the folders, or what it leads to can't be used.
        """
        values = with_defaults(arguments, self._spec.parameters)
        return ToolOutput(content=await anyio.to_thread.run_sync(self._work, values))

    @abstractmethod
    def _work(self, values: Mapping[str, Any]) -> JsonValue:
        """The call itself, in a thread."""


class ReadFile(FileTool):
    """`read_file`: the lines of a text file."""

    SPEC = ToolSpec(
        name="read_file",
        description="Read a text file.",
        parameters=parameters(
            ["path"],
            path={"type": "string", "description": "The file's path."},
            first_line={"type": "integer", "minimum": 1, "default": 1},
            lines={
                "type": "integer",
                "minimum": 1,
                "default": 200,
                "description": "How many lines to read.",
            },
        ),
    )

    def _work(self, values: Mapping[str, Any]) -> JsonValue:
        place = self.folders.place(values["path"])
        lines = text_of(self.folders.read(place, most=_LARGEST_FILE), place.shown).splitlines()
        first = int(values["first_line"])
        if first > max(1, len(lines)):
            raise ToolError(f"{place.shown!r} has only {len(lines)} lines.")
        shown: list[str] = []
        room = _LONGEST_TEXT
        for line in lines[first - 1 : first - 1 + int(values["lines"])]:
            room -= len(line) + 1
            if room < 0:
                break
            shown.append(line)
        last = first - 1 + len(shown)
        if not shown and lines:
            shown.append(shortened(lines[first - 1], _LONGEST_TEXT))
            last = first
        if last < len(lines):
            shown.append(f"[lines {first} to {last} of {len(lines)}]")
        return "\n".join(shown)


class ListFiles(FileTool):
    """`list_files`: what is in a folder."""

    SPEC = ToolSpec(
        name="list_files",
        description="List the files in a folder.",
        parameters=parameters(
            [],
            path={"type": "string", "default": ".", "description": "The folder's path."},
            pattern={
                "type": "string",
                "description": "List all files below that have such a name, like *.txt.",
            },
        ),
    )

    def _work(self, values: Mapping[str, Any]) -> JsonValue:
        pattern: str | None = values.get("pattern")
        path: str = values["path"]
        if self.folders.names and pattern is None and path.strip("./") == "":
            return "\n".join(f"{name}/" for name in self.folders.names)
        lines: list[str] = []
        for entry in _visited(self.folders, path, deep=pattern is not None):
            if pattern is not None and (entry.is_folder or not _matches(entry, pattern)):
                continue
            if len(lines) == _MOST_ENTRIES:
                lines.append(f"[more than {_MOST_ENTRIES}; ask for a folder or a pattern]")
                break
            name = plain(entry.shown if pattern is not None else entry.name)
            lines.append(f"{name}{_kind(entry)}")
        return "\n".join(lines) or "(nothing)"


class SearchFiles(FileTool):
    """`search_files`: the lines of text files that hold a text."""

    SPEC = ToolSpec(
        name="search_files",
        description="Search the files for a word or phrase: which files mention it, and where.",
        parameters=parameters(
            ["text"],
            text={
                "type": "string",
                "minLength": 1,
                "description": "The word or phrase; upper and lower case are the same.",
            },
            path={"type": "string", "default": ".", "description": "The folder to search."},
            pattern={
                "type": "string",
                "default": "*",
                "description": "Search only files with such a name, like *.txt.",
            },
        ),
    )

    def _work(self, values: Mapping[str, Any]) -> JsonValue:
        wanted: str = values["text"].casefold()
        until = time.monotonic() + _SEARCH_SECONDS
        found: list[str] = []
        for entry in _visited(self.folders, values["path"], deep=True):
            if not entry.is_file or not _matches(entry, values["pattern"]):
                continue
            if time.monotonic() > until:
                return "\n".join([*found, "[not all files were searched: it took too long]"])
            for number, line in enumerate(_lines(entry), start=1):
                if wanted not in line.casefold():
                    continue
                if len(found) == _MOST_MATCHES:
                    return "\n".join([*found, f"[more than {_MOST_MATCHES} lines]"])
                found.append(f"{plain(entry.shown)}:{number}: {shortened(line, _LONGEST_LINE)}")
        return "\n".join(found) or "(not found)"


def text_of(data: bytes, shown: str) -> str:
    """A text file's text, fit for a terminal.

    Raises:
        ToolError: It is no text in UTF-8.
    """
    try:
        if b"\0" in data:
            raise ValueError("a zero byte")
        return plain(data.decode("utf-8-sig"))
    except ValueError as error:
        raise ToolError(f"{shown!r} is not a text file in UTF-8.") from error


def _visited(folders: Folders, path: str, *, deep: bool) -> Iterator[Entry]:
    """The entries at `path`, or of every folder where `path` is `.` and there are several."""
    everywhere = folders.names and path.strip("./") == ""
    places: list[Place] = [
        folders.place(each) for each in (folders.names if everywhere else [path])
    ]
    visited = 0
    for place in places:
        for entry in folders.walk(place, deep=deep):
            visited += 1
            if visited > _MOST_VISITED:
                raise ToolError(f"There are more than {_MOST_VISITED} files. Name a folder below.")
            yield entry


def _matches(entry: Entry, pattern: str) -> bool:
    return fnmatch.fnmatchcase(entry.shown if "/" in pattern else entry.name, pattern)


def _lines(entry: Entry) -> list[str]:
    """A file's lines; none of one that is no text, or too large, or can't be read."""
    try:
        data = read_at(entry.folder, entry.name, entry.shown, most=_LARGEST_FILE)
        return text_of(data, entry.shown).splitlines()
    except ToolError:
        return []


def _kind(entry: Entry) -> str:
    if entry.is_folder:
        return "/"
    return f"  {entry.size} bytes" if entry.is_file else "  (a link or no plain file)"
