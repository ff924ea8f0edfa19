"""A grammar in Lark's notation, as llguidance reads it, built rule by rule."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import JsonValue

from corral.model_runtime.grammar import strings

__all__ = ["Rules", "quoted"]


def quoted(text: str) -> str:
    """A literal stretch of text."""
    return json.dumps(text, ensure_ascii=False)


class Rules:
    """The rules of a grammar. Each is made once and known by its name."""

    def __init__(self) -> None:
        """Begin without any."""
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def rule(self, body: str) -> str:
        """The name of the rule with this body."""
        return self._named(body, "r")

    def terminal(self, body: str) -> str:
        """The name of the terminal with this body, such as `/[a-z]+/`."""
        return self._named(body, "T")

    def reserve(self) -> str:
        """A name for a rule whose body comes later: recursive ones need it."""
        name = f"r{len(self._rules)}"
        self._rules[name] = ""
        return name

    def define(self, name: str, body: str) -> None:
        """Give a reserved rule its body."""
        self._rules[name] = body

    def sequence(self, items: Sequence[tuple[str, bool]], *, separator: str = ", ") -> str:
        """Items in their order, each with whether it is required, separated where they are there.

        Returns the name of a rule, which may match nothing where none is required.
        """
        between = quoted(separator)
        begun = self.rule('""')
        fresh = begun
        for item, required in reversed(items):
            next_fresh = f"{item} {begun}"
            next_begun = f"{between} {item} {begun}"
            if not required:
                next_fresh += f" | {fresh}"
                next_begun += f" | {begun}"
            fresh, begun = self.rule(next_fresh), self.rule(next_begun)
        return fresh

    def repeated(self, item: str, least: int, most: int, *, separator: str = ", ") -> str:
        """Between `least` and `most` of an item, separated. Returns the name of a rule."""
        if most <= 0:
            return self.rule('""')
        low, high = max(least - 1, 0), most - 1
        more = f" ({quoted(separator)} {item}){{{low},{high}}}" if high else ""
        some = self.rule(f"{item}{more}")
        return some if least > 0 else self.rule(f'{some} | ""')

    def json(self, schema: JsonValue) -> str:
        """A value in JSON that a schema admits, with no white space but behind `,` and `:`."""
        options = {
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
        }
        spelled = _spelled(schema)
        shown = {**spelled, "x-guidance": options} if isinstance(spelled, dict) else spelled
        return self.rule(f"%json {json.dumps(shown, ensure_ascii=False)}")

    def text(self, start: str) -> str:
        """The whole grammar; `start` is what an output may be."""
        rules = "\n".join(f"{name}: {body}" for name, body in self._rules.items())
        return f"start: {start}\n{rules}\n"

    def _named(self, body: str, prefix: str) -> str:
        if body not in self._names:
            name = f"{prefix}{len(self._rules)}"
            self._names[body] = name
            self._rules[name] = body
        return self._names[body]


def _spelled(schema: JsonValue) -> JsonValue:
    """A schema whose formats are patterns where we have one: llguidance's own are wider at times.

    A time may have its 60th second there, and digits without end.
    """
    if isinstance(schema, list):
        return [_spelled(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    spelled = {
        key: value if key in ("enum", "const") else _spelled(value) for key, value in schema.items()
    }
    pattern = strings.json_pattern(str(schema.get("format")))
    if pattern is not None and schema.get("type") == "string" and "pattern" not in schema:
        del spelled["format"]
        spelled["pattern"] = pattern
    return spelled
