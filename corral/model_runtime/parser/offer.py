"""What the model was offered: the only names that a call may bear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import JsonValue

from corral.messages import ToolSpec

__all__ = ["LONGEST_NAME", "Found", "Offer", "in_name", "is_legal_name"]

_SIGNS = frozenset("_-.:/")
LONGEST_NAME = 128
"""How many characters of a text are searched for the end of a name."""


def in_name(char: str) -> bool:
    """Whether a tool's name may hold a character, as far as names are searched for in text."""
    return char.isalnum() or char in _SIGNS


def is_legal_name(name: str) -> bool:
    """Whether a string could be a tool's name at all; `Hex bolt M6` could not."""
    if name.isascii() and name.isidentifier():
        return len(name) <= LONGEST_NAME
    first = name[:1]
    return (
        len(name) <= LONGEST_NAME
        and (first.isalpha() or first == "_")
        and all(in_name(char) for char in name)
    )


@dataclass(slots=True)
class Found:
    """A call as it was read, before it is checked."""

    name: str
    arguments: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    at: int = field(default=-1, compare=False)
    """Where it begins in its region, or where the list that holds it does."""


class Offer:
    """The tools of one turn, by name.

    Args:
        tools: The tools; of two with one name the first counts.
        builtins: Names of Llama's own tools that are offered, such as `brave_search`, besides the
            tools of kind `builtin`.
    """

    def __init__(self, tools: Iterable[ToolSpec], builtins: Iterable[str] = ()) -> None:
        """See the class."""
        self.tools: dict[str, ToolSpec] = {}
        self.interpreter: str | None = None
        native = set(builtins)
        for tool in tools:
            self.tools.setdefault(tool.name, tool)
            if tool.kind == "code_interpreter":
                self.interpreter = self.interpreter or tool.name
            elif tool.kind == "builtin":
                native.add(tool.name)
        self.builtins = frozenset(native)
        if "code_interpreter" in self.builtins and self.interpreter is None:
            self.interpreter = "code_interpreter"
        self.names = frozenset((*self.tools, *self.builtins))

    def __bool__(self) -> bool:
        """Whether anything was offered."""
        return bool(self.names)

    def resolve(self, name: str) -> tuple[str, str | None]:
        """A name as it was offered; with a warning if it was written as `name.call`."""
        if name not in self.names and name.endswith(".call") and name[:-5] in self.names:
            return name[:-5], None if name[:-5] in self.builtins else "builtin_syntax"
        return name, None

    def listed(self) -> str:
        """The names for a message to the model."""
        return ", ".join(sorted(self.names))
