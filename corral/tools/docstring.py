"""What a docstring says of a function and of each of its parameters.

Three ways of writing are understood: Google's (`Args:`), NumPy's (`Parameters` underlined) and
Sphinx's (`:param name:`). A docstring is read in the one whose first mark comes first.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["describe"]

_Described: TypeAlias = dict[str, list[str]]

_GOOGLE = re.compile(
    r"^(Args|Arguments|Parameters|Keyword Args|Keyword Arguments|Other Parameters|Returns|Yields"
    r"|Raises|Warns|Attributes|Example|Examples|Note|Notes|See Also|References|Todo|Warning"
    r"|Warnings):\s*$"
)
_NUMPY = re.compile(
    r"^(Parameters|Other Parameters|Returns|Yields|Receives|Raises|Warns|Warnings|Attributes"
    r"|See Also|Notes|References|Examples?)\s*$"
)
_SPHINX = re.compile(
    r"^:(param|parameter|arg|argument|key|keyword|type|raises?|except|exception|var|ivar|cvar"
    r"|vartype|returns?|rtype|meta)\b([^:]*):\s?(.*)$"
)
_ARGUMENTS = frozenset(
    {
        *("Args", "Arguments", "Parameters", "Keyword Args", "Keyword Arguments"),
        "Other Parameters",
    }
)
_PARAMS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword"})
_GOOGLE_PARAMETER = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_NUMPY_PARAMETER = re.compile(r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")


def describe(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring: the description up to its first section, and a text per parameter."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    starts: list[tuple[int, _Reader]] = []
    for mark, read in _STYLES:
        at = next((i for i in range(len(lines)) if mark(lines, i)), None)
        if at is not None:
            starts.append((at, read))
    if not starts:
        return "\n".join(lines).strip(), {}
    at, read = min(starts, key=lambda start: start[0])
    parameters = {name: " ".join(filter(None, words)) for name, words in read(lines[at:]).items()}
    return "\n".join(lines[:at]).strip(), parameters


def _read_google(lines: Sequence[str]) -> _Described:
    found: _Described = {}
    section = ""
    margin: int | None = None
    current: list[str] | None = None
    for line in lines:
        if heading := _GOOGLE.match(line):
            section, current, margin = heading[1], None, None
        elif section in _ARGUMENTS and line.strip():
            indent = _indent(line)
            margin = indent if margin is None else margin
            named = _GOOGLE_PARAMETER.match(line.strip()) if indent <= margin else None
            if named:
                current = found.setdefault(named[1], [])
                current.append(named[2])
            elif current is not None:
                current.append(line.strip())
    return found


def _read_numpy(lines: Sequence[str]) -> _Described:
    found: _Described = {}
    section = ""
    current: list[list[str]] = []
    for i, line in enumerate(lines):
        if _is_numpy(lines, i):
            section, current = line.strip(), []
        elif section not in _ARGUMENTS or not line.strip() or set(line.strip()) == {"-"}:
            continue
        elif _indent(line):
            for words in current:
                words.append(line.strip())
        elif named := _NUMPY_PARAMETER.match(line):
            names = [name.strip().lstrip("*") for name in named[1].split(",")]
            current = [found.setdefault(name, []) for name in names]
        else:
            current = []
    return found


def _read_sphinx(lines: Sequence[str]) -> _Described:
    found: _Described = {}
    current: list[str] | None = None
    for line in lines:
        field = _SPHINX.match(line)
        if field is None:
            # A line that goes on with a field is indented; any other ends it.
            if current is not None and line.strip() and _indent(line):
                current.append(line.strip())
            elif line.strip():
                current = None
            continue
        words = field[2].split()
        if field[1] in _PARAMS and words:
            current = found.setdefault(words[-1].lstrip("*"), [])
            current.append(field[3])
        else:
            current = None
    return found


def _is_google(lines: Sequence[str], at: int) -> bool:
    return _GOOGLE.match(lines[at]) is not None


def _is_numpy(lines: Sequence[str], at: int) -> bool:
    """A heading with a line of dashes below it."""
    below = lines[at + 1].strip() if at + 1 < len(lines) else ""
    return len(below) >= 3 and set(below) == {"-"} and _NUMPY.match(lines[at]) is not None


def _is_sphinx(lines: Sequence[str], at: int) -> bool:
    return _SPHINX.match(lines[at]) is not None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


_Reader: TypeAlias = Callable[[Sequence[str]], _Described]
_STYLES: tuple[tuple[Callable[[Sequence[str], int], bool], _Reader], ...] = (
    (_is_google, _read_google),
    (_is_numpy, _read_numpy),
    (_is_sphinx, _read_sphinx),
)
