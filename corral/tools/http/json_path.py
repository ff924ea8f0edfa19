"""Paths to a value in JSON: `current.days[0].temperature`.

Names joined by dots; `[0]` is an item of a list, `[-1]` its last; a name with other signs in it is
written `["like this"]`. Nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

from corral.errors import ConfigError, ToolError

__all__ = ["JsonPath"]

_STEP = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_-]*)|\[(-?[0-9]{1,9}|"(?:[^"\\]|\\.)*")\]""")


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed path."""

    text: str
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Read a path.

        Raises:
            ConfigError: It is none.
        """
        steps: list[str | int] = []
        rest = text if text[:1] in ("", "[", ".") else f".{text}"
        while rest and text[:1] != ".":
            found = _STEP.match(rest)
            if found is None:
                raise _no_path(text)
            name, item = found.groups()
            try:
                steps.append(name or json.loads(item))
            except ValueError as error:
                raise _no_path(text) from error
            rest = rest[found.end() :]
        if not steps:
            raise _no_path(text)
        return cls(text, tuple(steps))

    def find(self, value: JsonValue) -> JsonValue:
        """The value that the path leads to.

        Raises:
            ToolError: It leads nowhere; the message says where it ends and what is there.
        """
        for at, step in enumerate(self.steps):
            if isinstance(step, str) and isinstance(value, dict) and step in value:
                value = value[step]
            elif (
                isinstance(step, int)
                and isinstance(value, list)
                and -len(value) <= step < len(value)
            ):
                value = value[step]
            else:
                where = "".join(f"[{json.dumps(each)}]" for each in self.steps[:at]) or "the top"
                raise ToolError(
                    f"The answer has no {self.text!r}: at {where} there is {_kind(value)}."
                )
        return value


def _no_path(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is no path into JSON. Write it like current.days[0].temperature.")


def _kind(value: JsonValue) -> str:
    if isinstance(value, dict):
        names = ", ".join(repr(name) for name in list(value)[:12])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{value!r:.60}"
