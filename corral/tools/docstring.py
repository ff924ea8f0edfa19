"""What a Google-style docstring says of a function and of each of its parameters."""

from __future__ import annotations

import inspect
import re

__all__ = ["describe"]

_SECTION = re.compile(
    r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Example|Examples|Note|Notes):\s*$"
)
_PARAMETER = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_ARGUMENTS = frozenset({"Args", "Arguments", "Parameters"})


def describe(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring: the description up to its first section, and a text per parameter."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    description: list[str] = []
    parameters: dict[str, list[str]] = {}
    section: str | None = None
    current: list[str] | None = None
    margin: int | None = None
    for line in lines:
        if heading := _SECTION.match(line):
            section, current, margin = heading[1], None, None
        elif section is None:
            description.append(line)
        elif section in _ARGUMENTS and line.strip():
            indent = len(line) - len(line.lstrip())
            margin = indent if margin is None else margin
            named = _PARAMETER.match(line.strip()) if indent <= margin else None
            if named:
                current = parameters.setdefault(named[1], [])
                current.append(named[2])
            elif current is not None:
                current.append(line.strip())
    return "\n".join(description).strip(), {
        name: " ".join(filter(None, words)) for name, words in parameters.items()
    }
