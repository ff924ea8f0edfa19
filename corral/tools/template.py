"""Text with `{argument}` placeholders, for tools that are written as data.

The simplest thing that works, on purpose: a placeholder is the name of one parameter, and what it
stands for is put in as it is, once. Nothing that a model writes is ever read as a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from corral.errors import ConfigError

__all__ = ["Placeholder", "Template", "as_text", "parse_template"]

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Where an argument's value goes."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal text and placeholders in order."""

    parts: tuple[str | Placeholder, ...]

    @property
    def names(self) -> frozenset[str]:
        """The arguments that it needs."""
        return frozenset(part.name for part in self.parts if isinstance(part, Placeholder))

    @property
    def alone(self) -> str | None:
        """The name of its placeholder where it is nothing but one, else None."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return self.parts[0].name
        return None

    def lacks(self, arguments: Mapping[str, JsonValue]) -> bool:
        """Whether it needs an argument that isn't there."""
        return not self.names <= arguments.keys()

    def fill(
        self,
        arguments: Mapping[str, JsonValue],
        write: Callable[[JsonValue], str] | None = None,
    ) -> str:
        """The text, with each argument as `write` puts it (by default `as_text`).

        Every argument that it needs must be there.
        """
        write = write or as_text
        return "".join(
            write(arguments[part.name]) if isinstance(part, Placeholder) else part
            for part in self.parts
        )


def as_text(value: JsonValue) -> str:
    """A value as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse_template(text: str, *, where: str, names: frozenset[str]) -> Template:
    """Parse a template; a brace that is meant as one is written twice.

    Args:
        text: The template.
        where: What it is, for messages, such as "the command of the tool 'count'".
        names: The parameters that placeholders may name.

    Raises:
        ConfigError: A placeholder names no parameter, or a brace stands alone.
    """
    parts: list[str | Placeholder] = []
    literal, end = "", 0
    for found in _PIECE.finditer(text):
        literal += text[end : found.start()]
        end = found.end()
        name = found[1]
        if name is None:
            if len(found[0]) == 1:
                raise ConfigError(
                    f"{found[0]!r} stands alone in {text!r}, in {where}. Write a placeholder as "
                    "{name}, and a brace that is meant as one twice."
                )
            literal += found[0][0]
            continue
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise ConfigError(
                f"{found[0]!r} in {where} names no parameter. Known ones: {known}. Add it to "
                "parameters:, or mend the name."
            )
        if literal:
            parts.append(literal)
        parts.append(Placeholder(name))
        literal = ""
    literal += text[end:]
    if literal:
        parts.append(literal)
    return Template(tuple(parts))
