"""What the model was offered: the only names that a call may bear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import JsonValue

from corral.messages import ToolSpec

__all__ = ["Found", "Offer", "is_legal_name"]

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
NAME_CHARS = _FIRST | frozenset("0123456789-.:/")
"""The characters of tool names that text is searched for."""

_LONGEST_NAME = 128


def is_legal_name(name: str) -> bool:
    """Whether a string could be a tool's name at all; `Hex bolt M6` could not."""
    return 0 < len(name) <= _LONGEST_NAME and name[0] in _FIRST and NAME_CHARS.issuperset(name)


@dataclass(slots=True)
class Found:
    """A call as it was read, before it is checked."""

    name: str
    arguments: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])


class Offer:
    """The tools of one turn, by name.

    Args:
        tools: The tools; of two with one name the first counts.
        builtins: Names of Llama's own tools that are offered, such as `brave_search`.
    """

    def __init__(self, tools: Iterable[ToolSpec], builtins: Iterable[str] = ()) -> None:
        """See the class."""
        self.tools: dict[str, ToolSpec] = {}
        self.interpreter: str | None = None
        for tool in tools:
            self.tools.setdefault(tool.name, tool)
            if tool.kind == "code_interpreter" and self.interpreter is None:
                self.interpreter = tool.name
        self.builtins = frozenset(builtins)
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
