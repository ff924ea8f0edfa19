"""Tools put together at random from verbs, nouns and parameters, many of them made-up words.

Copying is what is learnt here: names and values that no one could guess. The words are in
`composed.txt`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random

from pydantic import JsonValue

from corral.messages import ToolSpec
from training.data.banks import value
from training.data.core import (
    Talk,
    chance,
    filled,
    in_split,
    joined,
    made_up,
    sections,
    split_of,
)
from training.data.everyday import entries
from training.data.questions import Wanted, question, reply
from training.data.several import join_clauses

__all__ = ["Composed", "chain_talk", "composed_chain", "composed_talk", "composed_tool"]


@lru_cache(maxsize=1)
def _bank() -> dict[str, tuple[str, ...]]:
    return sections("composed.txt")


@lru_cache(maxsize=1)
def _parameters() -> dict[str, tuple[str, tuple[str, ...]]]:
    """A parameter's name -> its type and the kinds of value that it takes."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for section, kinds in _bank().items():
        if section.startswith("parameter "):
            name, _, type_ = section.removeprefix("parameter ").partition(": ")
            found[name] = (type_, kinds)
    return found


Parameter = tuple[str, str, str, bool]
"""A parameter's name, its type, the kind of its values, and whether it is required."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A tool put together at random, and the words it is spoken of with."""

    spec: ToolSpec
    verb: str
    noun: str
    parameters: tuple[Parameter, ...]


@cache
def _bank_names() -> frozenset[str]:
    """What the bank's own tools may be called: they have splits of their own."""
    return frozenset(name for entry in entries() for name in entry.names)


def _name(verb: str, noun: str) -> str:
    return f"{verb}_{noun.replace(' ', '_')}"


def composed_tool(rng: Random, split: str) -> Composed:
    """A tool of the split: a verb and a noun, with none to four parameters."""
    while True:
        verb = rng.choice(_bank()["verbs"])
        noun = made_up(rng, split) if chance(rng, 0.3) else rng.choice(_bank()["nouns"])
        if chance(rng, 0.1):
            verb = made_up(rng, split)
        if split_of(f"{verb} {noun}") == split and _name(verb, noun) not in _bank_names():
            break
    name = _name(verb, noun)
    if chance(rng, 0.12):
        name = f"{noun.replace(' ', '_')}_{verb}"
    if chance(rng, 0.1):
        head, *tail = name.split("_")
        name = head + "".join(part.capitalize() for part in tail)
    chosen = rng.sample(list(_parameters()), rng.choices((0, 1, 2, 3, 4), (4, 30, 35, 21, 10))[0])
    parameters: list[tuple[str, str, str, bool]] = []
    properties: dict[str, JsonValue] = {}
    for place, parameter in enumerate(chosen):
        type_, kinds = _parameters()[parameter]
        if chance(rng, 0.12) and type_ != "boolean":
            parameter = made_up(rng, split)
        required = place == 0 or chance(rng, 0.5)
        kind = rng.choice(kinds)
        parameters.append((parameter, type_, kind, required))
        properties[parameter] = _schema(rng, parameter, noun, type_, kind)
    schema: dict[str, JsonValue] = {"type": "object", "properties": properties}
    required = [p for p, _, _, needed in parameters if needed]
    if required:
        schema["required"] = list(required)
    description = _worded(rng.choice(_bank()["descriptions"]), verb, noun, name)
    return Composed(
        ToolSpec(name=name, description=description, parameters=schema),
        verb,
        noun,
        tuple(parameters),
    )


def _schema(rng: Random, name: str, noun: str, type_: str, kind: str) -> JsonValue:
    schema: dict[str, JsonValue] = {}
    match type_:
        case "strings":
            schema |= {"type": "array", "items": {"type": "string"}}
        case "enum":
            schema |= {"type": "string", "enum": list(kind.split("/"))}
        case _:
            schema["type"] = type_
    if chance(rng, 0.6):
        schema["description"] = rng.choice(
            (
                f"The {name} of the {noun}",
                f"{name.capitalize()} to use",
                f"Which {name}",
                f"{noun} {name}",
            )
        )
    return schema


def _worded(template: str, verb: str, noun: str, tool: str) -> str:
    slots = {"Verb": verb.capitalize(), "verb": verb, "noun": noun, "tool": tool}
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", filled(template, slots))


def _argument(rng: Random, split: str, name: str, type_: str, kind: str) -> tuple[JsonValue, str]:
    """A value and how the user says it."""
    spoken = name.replace("_", " ") if chance(rng, 0.8) else name
    if type_ == "boolean":
        given = chance(rng, 0.6)
        return given, rng.choice(_bank()["yes" if given else "no"]).format(p=spoken)
    if type_ == "enum":
        option = rng.choice(kind.split("/"))
        return option, rng.choice((*_bank()["said"], "{v} {p}", "in {v} {p}")).format(
            p=spoken, v=option
        )
    given = value(rng, split, kind)
    if type_ == "strings" and isinstance(given, list):
        shown = rng.choice(
            (joined([str(item) for item in given]), ", ".join(str(item) for item in given))
        )
        return given, rng.choice(("{p} {v}", "with {p} {v}", "{p}: {v}")).format(p=spoken, v=shown)
    if type_ == "string":
        given = str(given)
        quoted = given if chance(rng, 0.6) and "'" not in given else f'"{given}"'
        return given, rng.choice(_bank()["said"]).format(p=spoken, v=quoted)
    return given, rng.choice(_bank()["said"]).format(p=spoken, v=given)


def _request(
    rng: Random, split: str, tool: Composed, *, without: tuple[str, ...] = ()
) -> tuple[str, dict[str, JsonValue]]:
    openers = in_split(_bank()["openers"], split)
    text = _worded(rng.choice(openers), tool.verb, tool.noun, tool.spec.name)
    arguments: dict[str, JsonValue] = {}
    phrases: list[str] = []
    for name, type_, kind, required in tool.parameters:
        if name in without or (not required and chance(rng, 0.5)):
            continue
        given, phrase = _argument(rng, split, name, type_, kind)
        arguments[name] = given
        phrases.append(phrase)
        if (
            len(phrases) == 1
            and name in ("name", "id", "code", "title", "number")
            and chance(rng, 0.4)
            and isinstance(given, str | int)
        ):
            phrases[-1] = f"{given}"
            if " " in phrases[-1]:
                phrases[-1] = f'"{given}"'
    if phrases and chance(rng, 0.3) and not phrases[0][:1].isdigit():
        rng.shuffle(phrases)
    text += (rng.choice((" ", " ", ", ", ": ")) if phrases else "") + rng.choice(
        (", ", ", ", " and ", "; ")
    ).join(phrases)
    return text + rng.choice(
        (".", "", "", "?" if text.startswith(("Can", "Could", "would")) else ".")
    ), arguments


def _result(rng: Random, split: str, tool: Composed) -> tuple[JsonValue, str, bool]:
    """A result, the answer that retells it, and whether it is an error."""
    kinds = ("id", "code", "person", "clock", "city", "date", "day", "price(1,900)")
    slots = {kind.partition("(")[0]: str(value(rng, split, kind)) for kind in kinds}
    slots |= {"noun": tool.noun, "verb": tool.verb, "made": made_up(rng, split)}
    slots |= {"count": str(rng.randint(0, 400)), "eta": str(rng.randint(1, 90))}
    if chance(rng, 0.1):
        reason = filled(rng.choice(_bank()["reasons"]), slots)
        return f"error: {reason}", rng.choice(_bank()["failed"]).replace("{r}", reason), True
    content, _, answers = rng.choice(_bank()["results"]).partition(" => ")
    answer = filled(rng.choice(answers.split(" / ")), slots)
    return json.loads(filled(content, slots)), answer, False


def composed_talk(rng: Random, split: str, tools: list[Composed]) -> Talk:
    """A request for one tool or for several, or one with an argument that is asked for first."""
    talk = Talk()
    tool = rng.choice(tools)
    pick = rng.random()
    needed = [given for given in tool.parameters if given[3] and given[1] != "boolean"]
    if pick < 0.2 and tool.parameters:
        _several(rng, split, talk, tools)
        return talk
    if pick < 0.4 and needed:
        missing = rng.sample(needed, 2 if len(needed) > 1 and chance(rng, 0.3) else 1)
        arguments = _asked_for(rng, split, talk, tool, missing)
        if chance(rng, 0.25):
            del talk.messages[2:]  # it ends with the question
            return talk
    else:
        text, arguments = _request(rng, split, tool)
        talk.user(text)
    _done(rng, split, talk, tool, arguments)
    return talk


def _done(
    rng: Random, split: str, talk: Talk, tool: Composed, arguments: dict[str, JsonValue]
) -> None:
    talk.call((tool.spec.name, arguments))
    content, answer, failed = _result(rng, split, tool)
    talk.results(content, is_error=failed)
    talk.say(answer)


def _several(rng: Random, split: str, talk: Talk, tools: list[Composed]) -> None:
    """Two to four requests in one message, for one tool or for several."""
    count = rng.choices((2, 3, 4), (60, 27, 13))[0]
    chosen = [rng.choice(tools)] * count if chance(rng, 0.5) else rng.choices(tools, k=count)
    asked = [(tool, *_request(rng, split, tool)) for tool in chosen]
    for one in reversed(asked[1:]):  # the same call twice would be one
        if sum(one[0] is other[0] and one[2] == other[2] for other in asked) > 1:
            asked.remove(one)
    talk.user(join_clauses(rng, [text for _, text, _ in asked]))
    talk.call(*((tool.spec.name, arguments) for tool, _, arguments in asked))
    if chance(rng, 0.5):
        return
    told = [_result(rng, split, tool) for tool, _, _ in asked]
    told = [one for one in told if not one[2]]
    if len(told) == len(asked):
        talk.results(*(content for content, _, _ in told))
        talk.say(" ".join(answer for _, answer, _ in told))


def _asked_for(
    rng: Random, split: str, talk: Talk, tool: Composed, missing: list[Parameter]
) -> dict[str, JsonValue]:
    """The user leaves out one or two arguments, is asked for them and gives them."""
    text, arguments = _request(rng, split, tool, without=tuple(name for name, *_ in missing))
    wanted: list[Wanted] = []
    for name, type_, kind, _ in missing:
        given, phrase = _argument(rng, split, name, type_, kind)
        arguments[name] = given
        bare = type_ not in ("boolean", "strings")
        options = tuple(kind.split("/")) if type_ == "enum" else ()
        wanted.append(
            Wanted(
                name=name,
                kind="",
                options=options,
                said=str(given) if bare else phrase,
                phrase=phrase,
            )
        )
    talk.user(text)
    talk.say(question(rng, wanted, f"the {tool.noun}"))
    talk.user(reply(rng, wanted) if wanted[0].said != wanted[0].phrase else _spoken(wanted))
    if chance(rng, 0.5):
        talk.twin = Talk()
        talk.twin.user(f"{text.rstrip('.?')}, {_spoken(wanted)}")
        talk.twin.call((tool.spec.name, _ordered(tool, arguments)))
    return _ordered(tool, arguments)


def _spoken(wanted: list[Wanted]) -> str:
    return joined([one.phrase for one in wanted])


def _ordered(tool: Composed, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: arguments[key] for key, *_ in tool.parameters if key in arguments}


def composed_chain(rng: Random, split: str) -> tuple[Composed, Composed]:
    """Two tools of which the second needs what the first finds: by name, then by id."""
    verbs = [v for v in _bank()["verbs"] if v not in ("find", "list", "count", "create")]
    while True:
        noun = made_up(rng, split) if chance(rng, 0.4) else rng.choice(_bank()["nouns"])
        verb, find = rng.choice(verbs), rng.choice(("find", "lookup", "search", "get"))
        taken = _bank_names() & {_name(verb, noun), _name(find, noun)}
        if split_of(f"{verb} {noun}") == split and not taken:
            break
    snake = noun.replace(" ", "_")
    key = rng.choice(("id", f"{snake}_id", "code"))
    type_, kind = ("string", "code") if key == "code" else ("integer", "id")
    finder = rng.choice(_bank()["finders"]).replace("{key}", key)
    done = rng.choice(_bank()["descriptions"])
    return (
        _chained(find, noun, finder, ("name", "string", "Made_up", True)),
        _chained(verb, noun, done, (key, type_, kind, True)),
    )


def _chained(verb: str, noun: str, description: str, parameter: Parameter) -> Composed:
    name, type_, _, _ = parameter
    spec = ToolSpec(
        name=_name(verb, noun),
        description=_worded(description, verb, noun, verb),
        parameters={
            "type": "object",
            "properties": {name: {"type": type_}},
            "required": [name],
        },
    )
    return Composed(spec, verb, noun, (parameter,))


def chain_talk(rng: Random, split: str, first: Composed, second: Composed) -> Talk | None:
    """A request that names a thing which only the first tool can turn into what the second needs.

    Returns:
        None where the split has no wording for that.
    """
    asks = in_split(_bank()["chains"], split)
    if not asks:
        return None
    kind = rng.choice(("made_up", "Made_up", "fullname", "city"))
    name = str(value(rng, split, kind))
    talk = Talk()
    talk.user(_worded(rng.choice(asks), second.verb, second.noun, "").replace("{v}", name))
    talk.call((first.spec.name, {"name": name}))
    if chance(rng, 0.12):
        talk.results(f"error: no {first.noun} named {name}", is_error=True)
        told = filled(rng.choice(_bank()["not found"]), {"noun": first.noun, "v": name})
        talk.say(told)
        return talk
    key, _, kind, _ = second.parameters[0]
    given = value(rng, split, kind)
    found: dict[str, JsonValue] = {key: given, "name": name}
    if chance(rng, 0.4):
        found = {"name": name, key: given, "status": "active"}
    talk.results(found)
    _done(rng, split, talk, second, {key: given})
    return talk
