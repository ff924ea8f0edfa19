"""Everyday tools as they are offered to the model, and whole conversations about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from pydantic import JsonValue

from corral.messages import AssistantMessage, ToolSpec
from training.data.chat import welcome
from training.data.core import Talk, chance, in_split, lower_first, made_up, sections
from training.data.everyday import Argument, Entry, Request, draw_outcome, draw_request, typed
from training.data.programs import run

__all__ = [
    "Dressed",
    "asked_for",
    "done",
    "dress",
    "dressed_text",
    "everyday_talk",
    "plain_request",
    "retyped",
    "total_talk",
    "wordings",
]

_DEFAULTS = (
    "{text}. Default is {default}.",
    "{text} (default: {default})",
    "{text}. Defaults to {default}.",
    "{text}. Optional, default is '{default}'",
)


@dataclass(frozen=True, slots=True)
class Dressed:
    """A tool of the bank under the names it has in one prompt."""

    entry: Entry
    spec: ToolSpec
    names: dict[str, str]
    """The bank's argument names -> those in this prompt."""

    def call(self, arguments: dict[str, JsonValue]) -> tuple[str, dict[str, JsonValue]]:
        """The call as this prompt has it, its arguments in the order of the schema."""
        given: dict[str, JsonValue] = {}
        for name, shown in self.names.items():
            owner, _, part = shown.rpartition(".")
            if name in arguments and owner:
                whole = given.setdefault(owner, {})
                assert isinstance(whole, dict)
                whole[part] = arguments[name]
            elif name in arguments:
                given[shown] = arguments[name]
        return self.spec.name, given


def retyped(rng: Random, entry: Entry) -> Entry:
    """The tool, now and then with numbers of things as strings, or codes of things as integers.

    What a value's type is, only the schema says: in one prompt an order is 1047, in another "1047".
    """
    arguments = list(entry.arguments)
    for place, argument in enumerate(arguments):
        if argument.name.endswith(("id", "number")) and argument.kind in ("id", "code"):
            if argument.type == "integer" and chance(rng, 0.25):
                arguments[place] = replace(argument, type="string")
            elif argument.type == "string" and chance(rng, 0.25):
                arguments[place] = replace(argument, type="integer", kind="id")
    changed = any(a is not b for a, b in zip(arguments, entry.arguments, strict=True))
    return replace(entry, arguments=arguments) if changed else entry


def dress(rng: Random, entry: Entry) -> Dressed:
    """Offer a tool, by one of its names and descriptions, its arguments by one of their names."""
    plain = chance(rng, 0.4)
    name = entry.name if plain else rng.choice(entry.names)
    if chance(rng, 0.06):
        head, *tail = name.split("_")
        name = head + "".join(part.capitalize() for part in tail)
    top: dict[str, JsonValue] = {"type": "object", "properties": {}}
    names: dict[str, str] = {}
    told, generated = bool(entry.domain) or chance(rng, 0.65), chance(rng, 0.5)
    for argument in entry.arguments:
        shown = argument.name if plain or chance(rng, 0.4) else rng.choice(argument.names)
        owner = argument.name.rpartition(".")[0]
        if owner and not shown.startswith(f"{owner}."):
            shown = f"{owner}.{shown}"
        if shown in names.values():
            shown = argument.name
        names[argument.name] = shown
        _add(top, entry, shown, _schema(rng, argument, told, generated), argument.required)
    parameters = {key: top[key] for key in ("type", "properties")}
    if generated:
        parameters["additionalProperties"] = False
    if "required" in top or chance(rng, 0.3):
        parameters["required"] = top.get("required", [])
    return Dressed(
        entry,
        ToolSpec(name=name, description=rng.choice(entry.descriptions), parameters=parameters),
        names,
    )


def _add(
    whole: dict[str, JsonValue], entry: Entry, name: str, schema: JsonValue, needed: bool
) -> None:
    """Put an argument into an object's schema; `guest.name` into that of its object `guest`."""
    owner, _, part = name.rpartition(".")
    properties = whole.setdefault("properties", {})
    required = whole.get("required", [])
    assert isinstance(properties, dict) and isinstance(required, list)
    if owner:
        inner = properties.setdefault(
            owner, {"type": "object", "description": entry.objects[owner], "properties": {}}
        )
        assert isinstance(inner, dict)
        _add(inner, entry, part, schema, needed)
    else:
        properties[part] = schema
    if needed and (owner or part) not in required:
        whole["required"] = [*required, owner or part]


def _schema(rng: Random, argument: Argument, told: bool, generated: bool) -> JsonValue:
    """An argument's schema: `generated` as pydantic writes it for a typed function."""
    schema: dict[str, JsonValue] = {}
    if argument.options:
        schema |= {"type": "string", "enum": list(argument.options)}
    elif argument.type == "strings":
        schema |= {"type": "array", "items": {"type": "string"}}
    elif argument.type in ("numbers", "integers"):
        schema |= {"type": "array", "items": {"type": argument.type[:-1]}}
    else:
        schema["type"] = argument.type
    text = argument.text
    if argument.default:
        text = rng.choice(_DEFAULTS).format(text=text, default=argument.default)
        if generated:
            schema["default"] = typed(argument, argument.default)
    elif generated and not argument.required:
        default: dict[str, JsonValue] = {
            "string": "",
            "integer": rng.choice((1, 5, 10, 0)),
            "number": 1.0,
            "boolean": False,
        }
        if argument.type in default and chance(rng, 0.5):
            schema["default"] = default[argument.type]
        elif argument.options and chance(rng, 0.7):
            schema["default"] = argument.options[0]
        else:
            schema = {"anyOf": [schema, {"type": "null"}], "default": None}
    if told and argument.text:
        schema["description"] = text
    return {key: schema[key] for key in sorted(schema)} if generated else schema


@cache
def wordings(name: str, asks: tuple[str, ...], owner: str, split: str) -> tuple[str, ...]:
    """The wordings of a tool for a split: all of them where the tool itself belongs to it."""
    if split == owner != "train":
        return asks
    pinned = frozenset(
        {
            "Where is order {order_id}?",
            "What's the weather in {city}?",
            "Remind me to {text} {when}.",
            "Convert {amount} {from_currency} to {to_currency}.",
        }
    )
    return in_split(asks, split, pinned)


def dressed_text(rng: Random, text: str) -> str:
    """What is asked, now and then with a greeting, a "please" or a small first letter."""
    if chance(rng, 0.13):
        bare = text.rstrip(".") if chance(rng, 0.5) else text
        opener = rng.choice(sections("requests.txt")["openers"])
        if opener == "{t} please":
            opener = "{t}, please" if text[-1:].isalnum() else "{t}"
        if opener.startswith("{t} ") and not text.endswith(("?", ".", "!")):
            opener = "{t}"
        if "please" in text.lower() and "lease" in opener:
            opener = "{t}"
        return opener.format(l=lower_first(bare), t=text)
    if chance(rng, 0.12):
        return lower_first(text)
    if chance(rng, 0.06):
        return text.rstrip(".?!")
    return text


def _request(rng: Random, split: str, entry: Entry, *, two: bool = False) -> Request | None:
    asks = wordings(entry.name, tuple(entry.twos if two else entry.asks), entry.split, split)
    if not asks:
        return None
    ask = rng.choice(asks)
    request = draw_request(rng, split, entry, ask)
    if ask.startswith("{"):  # a value, which keeps its capital
        return request
    return Request(text=dressed_text(rng, request.text), calls=request.calls)


def plain_request(rng: Random, split: str, entry: Entry) -> str:
    """What a user says to get at this tool; empty where the split has no wording."""
    request = _request(rng, split, entry)
    return request.text if request else ""


def everyday_talk(rng: Random, split: str, dressed: list[Dressed]) -> Talk | None:
    """A conversation with one of the offered tools, or with two of them."""
    one = rng.choice(dressed)
    pick = rng.random()
    if pick < 0.11 and one.entry.twos:
        return _twice(rng, split, one)
    if pick < 0.19 and len(dressed) > 1:
        return _both(rng, split, *rng.sample(dressed, 2))
    if pick < 0.28 and one.entry.lacks:
        return asked_for(rng, split, one)
    if pick < 0.34 and one.entry.replies:
        return _retried(rng, split, one)
    if one.entry.foreign and chance(rng, 0.11):
        return _foreign(rng, split, one)
    return _plain_talk(rng, split, one, dressed)


def _plain_talk(rng: Random, split: str, one: Dressed, dressed: list[Dressed]) -> Talk | None:
    """A request that is served at once, and perhaps what comes after it."""
    talk = Talk()
    if not _served(rng, split, talk, one):
        return None
    if not one.entry.replies:
        talk.twin = _otherwise(rng, split, one) if chance(rng, 0.4) else None
        return talk
    if chance(rng, 0.2):
        _more(rng, split, talk, one)
    if chance(rng, 0.07):
        _again(rng, split, talk)
    if chance(rng, 0.17):
        after = rng.choice(dressed)
        if _served(rng, split, talk, after) and not after.entry.replies:
            return talk
    if chance(rng, 0.06):
        talk.user(rng.choice(sections("requests.txt")["thanks"]))
        talk.say(welcome(rng))
    return talk


def _otherwise(rng: Random, split: str, one: Dressed) -> Talk | None:
    """A request for the same tool: where it is put together, with other arguments said or not."""
    request = _request(rng, split, one.entry)
    if request is None or not one.entry.opens:
        return None
    talk = Talk()
    talk.user(request.text)
    talk.call(one.call(request.calls[0]))
    return talk


def _foreign(rng: Random, split: str, one: Dressed) -> Talk | None:
    """A request in another language, as far as its call."""
    asks = wordings(one.entry.name, tuple(one.entry.foreign), one.entry.split, split)
    if not asks:
        return None
    request = draw_request(rng, split, one.entry, rng.choice(asks))
    talk = Talk()
    talk.user(request.text)
    talk.call(one.call(request.calls[0]))
    return talk


def _served(rng: Random, split: str, talk: Talk, one: Dressed) -> bool:
    """A request and its call; where the bank has results, the result and the answer."""
    request = _request(rng, split, one.entry)
    if request is None:
        return False
    talk.user(request.text)
    arguments = request.calls[0]
    done(rng, split, talk, one, arguments)
    return True


def _more(rng: Random, split: str, talk: Talk, one: Dressed) -> None:
    """A follow-up that gives one new value and keeps the rest of the call: "And in Lima?"."""
    last = talk.messages[-3]
    if not isinstance(last, AssistantMessage) or not last.calls or not one.entry.arguments:
        return
    before = {
        name: last.calls[0].arguments[shown]
        for name, shown in one.names.items()
        if shown in last.calls[0].arguments
    }
    asks = wordings(one.entry.name, tuple(one.entry.mores), one.entry.split, split)
    if asks and chance(rng, 0.75):
        request = draw_request(rng, split, one.entry, rng.choice(asks))
    elif (
        len(before) == 1
        and not isinstance(next(iter(before.values())), list | bool)
        and (frames := in_split(sections("requests.txt")["more"], split))
    ):
        (name,) = before
        request = draw_request(
            rng, split, one.entry, rng.choice(frames).replace("{v}", "{" + name + "}")
        )
    else:
        return
    talk.user(lower_first(request.text) if chance(rng, 0.15) else request.text)
    done(rng, split, talk, one, before | request.calls[0])


def _again(rng: Random, split: str, talk: Talk) -> None:
    """The user didn't catch the answer, and hears it again."""
    asks = in_split(sections("requests.txt")["again"], split)
    answer = talk.messages[-1]
    if asks and isinstance(answer, AssistantMessage):
        talk.user(rng.choice(asks))
        talk.say(answer.text)


def done(
    rng: Random, split: str, talk: Talk, one: Dressed, arguments: dict[str, JsonValue]
) -> None:
    """The call; where the bank has results, the result and the answer."""
    talk.call(one.call(arguments))
    if not one.entry.replies:
        return
    outcome = draw_outcome(rng, split, one.entry, arguments, fails=chance(rng, 0.09))
    talk.results(outcome.content, is_error=outcome.is_error)
    talk.say(outcome.answer)


def _twice(rng: Random, split: str, one: Dressed) -> Talk | None:
    request = _request(rng, split, one.entry, two=True)
    if request is None or len(request.calls) != 2:
        return None
    talk = Talk()
    talk.user(request.text)
    talk.call(*(one.call(arguments) for arguments in request.calls))
    if not one.entry.replies:
        return talk
    told = [draw_outcome(rng, split, one.entry, arguments) for arguments in request.calls]
    talk.results(*(outcome.content for outcome in told))
    talk.say(" ".join(_sentence(outcome.answer) for outcome in told))
    return talk


def _both(rng: Random, split: str, first: Dressed, second: Dressed) -> Talk | None:
    one, other = _request(rng, split, first.entry), _request(rng, split, second.entry)
    if one is None or other is None:
        return None
    talk = Talk()
    talk.user(
        rng.choice(sections("requests.txt")["joints"]).format(
            a=_sentence(one.text), b=lower_first(other.text), B=other.text
        )
    )
    talk.call(first.call(one.calls[0]), second.call(other.calls[0]))
    if not (first.entry.replies and second.entry.replies):
        return talk
    told = [
        draw_outcome(rng, split, first.entry, one.calls[0]),
        draw_outcome(rng, split, second.entry, other.calls[0]),
    ]
    talk.results(*(outcome.content for outcome in told))
    talk.say(" ".join(_sentence(outcome.answer) for outcome in told))
    return talk


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!", '"')) else f"{text}."


def asked_for(rng: Random, split: str, one: Dressed) -> Talk | None:
    """A request without a required argument; the assistant asks, and is answered."""
    lacks = [
        lack
        for lack in one.entry.lacks
        if lack[0]
        in wordings(
            one.entry.name, tuple(lack[0] for lack in one.entry.lacks), one.entry.split, split
        )
    ]
    if not lacks:
        return None
    text, questions = rng.choice(lacks)
    talk = Talk()
    talk.user(text if chance(rng, 0.7) else lower_first(text))
    talk.say(rng.choice(questions))
    if chance(rng, 0.25):
        return talk
    request = _request(rng, split, one.entry)
    missing = [a for a in one.entry.arguments if a.required]
    if request is None:
        return None
    if (
        len(missing) == 1
        and not one.entry.argument(missing[0].name).options
        and one.entry.argument(missing[0].name).type not in ("strings", "numbers")
    ):
        # The answer is the bare value: "Lima", "1047".
        name = missing[0].name
        arguments = {name: request.calls[0][name]}
        bare = str(arguments[name])
        talk.user(rng.choice(sections("requests.txt")["bare"]).format(v=bare))
    else:
        arguments = request.calls[0]
        talk.user(request.text)
    done(rng, split, talk, one, arguments)
    return talk


def _retried(rng: Random, split: str, one: Dressed) -> Talk | None:
    """A call that fails and is mended: tried again, or with a value that the error names."""
    request = _request(rng, split, one.entry)
    if request is None:
        return None
    talk = Talk()
    talk.user(request.text)
    arguments = request.calls[0]
    named = [
        a
        for a in one.entry.arguments
        if a.type == "string"
        and isinstance(arguments.get(a.name), str)
        and " " in str(arguments[a.name])
    ]
    talk.call(one.call(arguments))
    if (
        named
        and chance(rng, 0.6)
        and named[0].kind in ("room", "product", "restaurant", "city", "store", "category")
    ):
        argument = named[0]
        given = str(arguments[argument.name])
        proper = given.lower().replace(" ", "_").replace("'", "")
        options: list[str] = [proper, made_up(rng, split)]
        if argument.kind == "room":
            options = [proper, "kitchen", "hallway"]
        rng.shuffle(options)
        talk.results(
            f"error: {one.names[argument.name]}: {given!r} is not one of {options!r}", is_error=True
        )
        arguments = {**arguments, argument.name: proper}
    else:
        error = rng.choice(sections("requests.txt")["retry"])
        talk.results(error, is_error=True)
    outcome = draw_outcome(rng, split, one.entry, arguments)
    talk.call(one.call(arguments))
    talk.results(outcome.content)
    talk.say(outcome.answer)
    return talk


def total_talk(rng: Random, split: str, dressed: list[Dressed]) -> Talk | None:
    """A function's number taken further by the code interpreter."""
    one = rng.choice(dressed)
    talk = Talk()
    if not one.entry.replies or not _served(rng, split, talk, one):
        return None
    content = next((m.content for m in reversed(talk.messages) if m.role == "tool"), None)
    if not isinstance(content, dict):
        return None
    numbers = [
        (key, number)
        for key, number in content.items()
        if isinstance(number, int | float)
        and not isinstance(number, bool)
        and key not in ("id", "order_id")
        and number > 0
    ]
    if not numbers:
        return None
    key, number = rng.choice(numbers)
    said = key.replace("_", " ")
    n = rng.randint(2, 60)
    bank = sections("requests.txt")
    section = rng.choice([name for name in bank if name.startswith("total ")])
    asks = in_split(bank[section], split)
    if not asks:
        return None
    expression = section.removeprefix("total ").format(v=number, n=n)
    rounded = 2 if "100" in expression else 6
    whole = isinstance(number, int) and "/" not in expression
    program = f"print({expression})" if whole else f"print(round({expression}, {rounded}))"
    printed, _ = run(program)
    talk.user(rng.choice(asks).format(n=n, k=said))
    talk.code(program)
    talk.results(printed)
    answers = bank[section.replace("total", "totalled")]
    talk.say(rng.choice(answers).format(n=n, v=number, x=printed))
    return talk
