"""Tool sets made up at random: every type, required and not, nested, in all three syntaxes."""

from __future__ import annotations

from random import Random

from pydantic import JsonValue

from corral.messages import ToolSpec
from corral.model_runtime.runtime import Constraint

_SYNTAXES = ("pythonic", "json", "tags")
_NAMES = (
    "city date person amount unit note query limit path tags items kind level mode owner price "
    "reason source target when"
).split()
_VERBS = "add book check count fetch find get list move open plan read send set show".split()
_FORMATS = ("date", "time", "email", "uuid", "ipv4")


def tool_set(number: int, *, tools: int | None = None, required: bool = True) -> Constraint:
    """The constraint of the set with this number, of one to ten tools."""
    random = Random(number)
    many = tools or random.randint(1, 10)
    names = random.sample([f"{verb}_{name}" for verb in _VERBS for name in _NAMES], many)
    return Constraint(
        tools=tuple(_tool(random, name) for name in names),
        required=required,
        syntax=_SYNTAXES[number % len(_SYNTAXES)],
    )


def _tool(random: Random, name: str) -> ToolSpec:
    return ToolSpec(name=name, description=f"Does what {name} says.", parameters=_object(random, 2))


def _object(random: Random, depth: int) -> dict[str, JsonValue]:
    names = random.sample(_NAMES, random.randint(0 if depth == 2 else 1, 4))
    properties: dict[str, JsonValue] = {name: _schema(random, depth) for name in names}
    needed: list[JsonValue] = [name for name in names if random.random() < 0.5]
    return {"type": "object", "properties": properties, "required": needed}


def _schema(random: Random, depth: int) -> dict[str, JsonValue]:
    kinds = ["string", "format", "integer", "number", "boolean", "enum", "nullable"]
    if depth > 0:
        kinds += ["array", "object"]
    match random.choice(kinds):
        case "string":
            return {"type": "string", "maxLength": random.choice([8, 20, 40])}
        case "format":
            return {"type": "string", "format": random.choice(_FORMATS)}
        case "integer":
            low = random.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + random.randint(0, 900)}
        case "enum":
            return {"enum": ["low", "it's high", 'a "b"', 3, None][: random.randint(1, 5)]}
        case "nullable":
            return {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "null"}]}
        case "array":
            items = _schema(random, depth - 1)
            return {"type": "array", "items": items, "maxItems": random.randint(1, 3)}
        case "object":
            return _object(random, depth - 1)
        case kind:
            return {"type": kind}
