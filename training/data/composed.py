"""Tools put together at random from verbs, nouns and parameters, many of them made-up words: copying is what is learnt here."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from pydantic import JsonValue

from corral.messages import ToolSpec
from training.data.banks import value
from training.data.core import Talk, chance, in_split, joined, lower_first, made_up, split_of

__all__ = ["Composed", "chain_talk", "composed_chain", "composed_talk", "composed_tool"]

_VERBS = """create|delete|archive|rename|open|close|count|find|list|update|copy|move|lock|unlock|start|stop|pause|restart|publish|approve|reject
assign|label|rate|sort|export|import|check|reset|enable|disable|register|cancel|book|order|refund|print|scan|measure|clean|fill|empty|charge
paint|calibrate|inspect|repair|replace|ship|pack|weigh|tag|merge|split|share|rotate|restore|upload|download|activate|schedule|verify|mark""".replace("\n", "|").split("|")
_NOUNS = """ledger|ticket|invoice|report|sensor|valve|pump|drone|locker|shelf|crate|folder|album|poster|badge|membership|voucher|route|train|bus|ferry|bed
ward|sample|plot|field|tractor|greenhouse|beehive|printer|server|database|branch|build|container|cluster|job|queue|user|account|team|role|device
camera|door|gate|window|blind|engine|battery|vehicle|bike|scooter|parking spot|meeting room|desk|course|exam|student|lesson|library card|recipe
menu|table|kettle|oven|fridge|robot|lamp|heater|fountain|aquarium|guitar|piano|playlist|podcast|episode|survey|vote|petition|grant|budget|loan
policy|claim|patient|appointment|prescription|vaccine|parcel|pallet|warehouse|stock item|coupon|gift card|review|comment|post|page|banner""".replace("\n", "|").split("|")
# name of a parameter -> its type and the kinds of value it takes
_PARAMETERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "name": ("string", ("made_up", "Made_up", "word")), "code": ("string", ("code",)), "owner": ("string", ("person", "fullname", "Made_up")),
    "city": ("string", ("city",)), "title": ("string", ("Made_up", "book", "song")), "color": ("string", ("color",)), "reason": ("string", ("bug", "review", "task")),
    "note": ("string", ("note", "message", "task")), "date": ("string", ("date", "day")), "time": ("string", ("clock",)), "email": ("string", ("email",)),
    "label": ("string", ("made_up", "word")), "target": ("string", ("Made_up", "made_up")), "path": ("string", ("file",)), "product": ("string", ("product",)),
    "language": ("string", ("language",)), "zone": ("string", ("Made_up", "code", "store")), "comment": ("string", ("review", "message", "note")),
    "id": ("integer", ("id",)), "number": ("integer", ("int(1,9999)", "int(1,40)")), "count": ("integer", ("int(1,60)",)), "limit": ("integer", ("int(1,50)",)),
    "level": ("integer", ("int(1,10)",)), "size": ("integer", ("int(1,500)",)), "year": ("integer", ("int(1980,2030)",)), "days": ("integer", ("int(1,60)",)),
    "priority": ("integer", ("int(1,5)",)), "port": ("integer", ("int(80,9999)",)), "floor": ("integer", ("int(1,30)",)), "minutes": ("integer", ("int(1,180)",)),
    "price": ("number", ("price(1,500)",)), "weight": ("number", ("float(0,80)",)), "ratio": ("number", ("price(0,1)",)), "speed": ("number", ("float(1,90)",)),
    "temperature": ("number", ("float(-10,40)", "int(-10,40)")), "amount": ("number", ("price(1,2000)", "int(1,500)")),
    "force": ("boolean", ("bool",)), "dry_run": ("boolean", ("bool",)), "public": ("boolean", ("bool",)), "recursive": ("boolean", ("bool",)), "notify": ("boolean", ("bool",)),
    "urgent": ("boolean", ("bool",)), "silent": ("boolean", ("bool",)), "tags": ("strings", ("some(word)", "some(made_up)")), "members": ("strings", ("some(person)",)),
    "items": ("strings", ("some(product)", "some(food)")), "colors": ("strings", ("some(color)",)), "mode": ("enum", ("fast|safe|full", "auto|manual", "eco|normal|boost", "read|write", "draft|final")),
    "unit": ("enum", ("kg|lb|g", "km|miles", "celsius|fahrenheit", "small|medium|large")), "status": ("enum", ("open|closed|pending", "active|paused", "new|used|broken")),
    "format": ("enum", ("pdf|csv|json", "a4|letter", "mp3|wav")), "order": ("enum", ("asc|desc", "newest|oldest")),
}  # fmt: skip
_NUMBERED = ("{p} {v}", "{p}: {v}", "{p} = {v}", "with {p} {v}", "with a {p} of {v}", "plus {p} {v}", "set {p} to {v}", "the {p} is {v}", "use {v} as the {p}")
_YES = ("{p} on", "with {p}", "{p}: yes", "{p} = true", "turn {p} on", "make it {p}", "{p} please")
_NO = ("without {p}", "{p}: no", "{p} = false", "no {p}", "{p} off", "not {p}")
_OPENERS = """{Verb} the {noun}|{Verb} a {noun}|Please {verb} the {noun}|Can you {verb} the {noun}|I want to {verb} a {noun}|{verb} {noun}|Could you {verb} the {noun} for me
I need you to {verb} the {noun}|We have to {verb} the {noun}|{Verb} this {noun}|Time to {verb} the {noun}|Go ahead and {verb} the {noun}|would you {verb} the {noun}
Let's {verb} the {noun}|{Verb} one {noun}|Have the {noun} {verb}ed|I'd like to {verb} the {noun}|Help me {verb} the {noun}|Someone should {verb} the {noun}
Use {tool}|Run {tool}|Call {tool}""".replace("\n", "|").replace("Have the {noun} {verb}ed|", "").split("|")
_DESCRIPTIONS = """{Verb} a {noun}.|{Verb} the {noun}.|{Verb} one {noun} of the system|Use this to {verb} a {noun}.|{Verb}s a {noun} and returns what came of it.|Tool to {verb} any {noun}
Lets the user {verb} a {noun}.|{Verb} {noun}""".replace("\n", "|").split("|")


@dataclass(frozen=True, slots=True)
class Composed:
    """A tool put together at random, and the words it is spoken of with."""

    spec: ToolSpec
    verb: str
    noun: str
    parameters: tuple[tuple[str, str, str, bool], ...]
    """Each parameter's name, type, kind of value and whether it is required."""


def composed_tool(rng: Random, split: str) -> Composed:
    """A tool of the split: a verb and a noun, with none to four parameters."""
    while True:
        verb = rng.choice(_VERBS)
        noun = made_up(rng, split) if chance(rng, 0.3) else rng.choice(_NOUNS)
        if chance(rng, 0.1):
            verb = made_up(rng, split)
        if split_of(f"{verb} {noun}") == split:
            break
    name = f"{verb}_{noun.replace(' ', '_')}"
    if chance(rng, 0.12):
        name = f"{noun.replace(' ', '_')}_{verb}"
    if chance(rng, 0.1):
        head, *tail = name.split("_")
        name = head + "".join(part.capitalize() for part in tail)
    chosen = rng.sample(list(_PARAMETERS), rng.choices((0, 1, 2, 3, 4), (4, 30, 35, 21, 10))[0])
    parameters: list[tuple[str, str, str, bool]] = []
    properties: dict[str, JsonValue] = {}
    for place, parameter in enumerate(chosen):
        type_, kinds = _PARAMETERS[parameter]
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
    description = _worded(rng.choice(_DESCRIPTIONS), verb, noun, name)
    return Composed(ToolSpec(name=name, description=description, parameters=schema), verb, noun, tuple(parameters))


def _schema(rng: Random, name: str, noun: str, type_: str, kind: str) -> JsonValue:
    schema: dict[str, JsonValue] = {}
    match type_:
        case "strings":
            schema |= {"type": "array", "items": {"type": "string"}}
        case "enum":
            schema |= {"type": "string", "enum": list(kind.split("|"))}
        case _:
            schema["type"] = type_
    if chance(rng, 0.6):
        schema["description"] = rng.choice((f"The {name} of the {noun}", f"{name.capitalize()} to use", f"Which {name}", f"{noun} {name}"))
    return schema


def _worded(template: str, verb: str, noun: str, tool: str) -> str:
    text = template.replace("{Verb}", verb.capitalize()).replace("{verb}", verb).replace("{noun}", noun)
    return text.replace("{tool}", tool).replace(" a a", " an a").replace(" a e", " an e").replace(" a i", " an i").replace(" a o", " an o").replace(" a u", " an u")


def _argument(rng: Random, split: str, name: str, type_: str, kind: str) -> tuple[JsonValue, str]:
    """A value and how the user says it."""
    spoken = name.replace("_", " ") if chance(rng, 0.8) else name
    if type_ == "boolean":
        given = chance(rng, 0.6)
        return given, rng.choice(_YES if given else _NO).format(p=spoken)
    if type_ == "enum":
        option = rng.choice(kind.split("|"))
        return option, rng.choice((*_NUMBERED, "{v} {p}", "in {v} {p}")).format(p=spoken, v=option)
    given = value(rng, split, kind)
    if type_ == "strings" and isinstance(given, list):
        shown = rng.choice((joined([str(item) for item in given]), ", ".join(str(item) for item in given)))
        return given, rng.choice(("{p} {v}", "with {p} {v}", "{p}: {v}")).format(p=spoken, v=shown)
    if type_ == "string":
        given = str(given)
        quoted = given if chance(rng, 0.6) and "'" not in given else f'"{given}"'
        return given, rng.choice(_NUMBERED).format(p=spoken, v=quoted)
    return given, rng.choice(_NUMBERED).format(p=spoken, v=given)


def _request(rng: Random, split: str, tool: Composed, *, without: str = "") -> tuple[str, dict[str, JsonValue]]:
    openers = in_split(_OPENERS, split) or tuple(_OPENERS)
    text = _worded(rng.choice(openers), tool.verb, tool.noun, tool.spec.name)
    arguments: dict[str, JsonValue] = {}
    phrases: list[str] = []
    for name, type_, kind, required in tool.parameters:
        if name == without or (not required and chance(rng, 0.5)):
            continue
        given, phrase = _argument(rng, split, name, type_, kind)
        arguments[name] = given
        phrases.append(phrase)
        if len(phrases) == 1 and name in ("name", "id", "code", "title", "number") and chance(rng, 0.4) and isinstance(given, str | int):
            phrases[-1] = f"{given}"
            if " " in phrases[-1]:
                phrases[-1] = f'"{given}"'
    if phrases and chance(rng, 0.3) and not phrases[0][:1].isdigit():
        rng.shuffle(phrases)
    text += (rng.choice((" ", " ", ", ", ": ")) if phrases else "") + rng.choice((", ", ", ", " and ", "; ")).join(phrases)
    return text + rng.choice((".", "", "", "?" if text.startswith(("Can", "Could", "would")) else ".")), arguments


def _result(rng: Random, split: str, tool: Composed, arguments: dict[str, JsonValue]) -> tuple[JsonValue, str, bool]:
    what = rng.choice((f"the {tool.noun}", f"The {tool.noun}", "it")).lower()
    number, word, count = value(rng, split, "id"), value(rng, split, "code"), rng.randint(0, 400)
    person, made = value(rng, split, "person"), made_up(rng, split)
    options: list[tuple[JsonValue, tuple[str, ...]]] = [
        ({"ok": True}, (f"Done: {tool.verb} {tool.noun}.", "That worked.", f"OK, {what} is taken care of.")),
        ({"id": number, "status": "done"}, (f"Done, the {tool.noun} has the id {number}.", f"That is done; the id is {number}.")),
        ({"reference": word}, (f"Done. The reference is {word}.", f"It worked, with reference {word}.")),
        ({"count": count}, (f"The count is {count}.", f"There are {count}.")),
        ({"result": made, "by": person}, (f"The result is {made}, by {person}.", f"{person} reports: {made}.")),
        (f"{tool.noun} {made}: ready", (f"The {tool.noun} {made} is ready.",)),
        (number, (f"The result is {number}.", f"It returned {number}.")),
        ([made, str(word)], (f"I got {made} and {word}.", f"The results are {made} and {word}.")),
        ({"status": "queued", "position": count, "eta_minutes": rng.randint(1, 90)}, ()),
        ("done", ("Done.", f"The {tool.noun} is done.")),
    ]  # fmt: skip
    content, answers = rng.choice(options)
    if not answers and isinstance(content, dict):
        answers = (f"It is queued at position {count}, ready in {content['eta_minutes']} minutes.",)
    answer = rng.choice(answers)
    if chance(rng, 0.1):
        reason = rng.choice((f"permission denied for {person}", f"{made} is busy", "timed out after 10 s", f"no such {tool.noun}", f"quota of {count} reached"))
        told = rng.choice(("That didn't work: {r}.", "I couldn't do it: {r}.", "The tool reported an error: {r}.", "Sorry, it failed: {r}.")).format(r=reason)
        return f"error: {reason}", told, True
    del arguments
    return content, answer, False


def composed_talk(rng: Random, split: str, tool: Composed) -> Talk:
    """A request for one tool: plain, twice in one message, or with an argument that is asked for first."""
    talk = Talk()
    pick = rng.random()
    needed = [name for name, _, _, required in tool.parameters if required]
    if pick < 0.1 and tool.parameters:
        text, first = _request(rng, split, tool)
        other, second = _request(rng, split, tool)
        talk.user(f"{text.rstrip('.?')}. {rng.choice(('And', 'Also', 'Then'))} {lower_first(other)}")
        talk.call((tool.spec.name, first), (tool.spec.name, second))
        told = [_result(rng, split, tool, arguments) for arguments in (first, second)]
        while told[0][2] != told[1][2]:
            told[1] = _result(rng, split, tool, second)
        talk.results(told[0][0], told[1][0], is_error=told[0][2])
        talk.say(f"{told[0][1]} {told[1][1]}")
        return talk
    if pick < 0.2 and needed:
        missing = rng.choice(needed)
        text, arguments = _request(rng, split, tool, without=missing)
        spoken = missing.replace("_", " ")
        talk.user(text)
        talk.say(rng.choice(("Which {p}?", "What is the {p}?", "I need the {p} for that.", "Please tell me the {p}.", "What {p} should I use?", "Sure, which {p}?")).format(p=spoken))
        type_, kind = next((t, k) for n, t, k, _ in tool.parameters if n == missing)
        given, phrase = _argument(rng, split, missing, type_, kind)
        talk.user(phrase if type_ in ("boolean", "strings") or chance(rng, 0.3) else str(given))
        arguments = {n: given if n == missing else arguments[n] for n, *_ in tool.parameters if n == missing or n in arguments}
    else:
        text, arguments = _request(rng, split, tool)
        talk.user(text)
    talk.call((tool.spec.name, arguments))
    content, answer, failed = _result(rng, split, tool, arguments)
    talk.results(content, is_error=failed)
    talk.say(answer)
    return talk


def composed_chain(rng: Random, split: str) -> tuple[Composed, Composed]:
    """Two tools of which the second needs what the first finds: a finder by name, and something done by id."""
    while True:
        noun = made_up(rng, split) if chance(rng, 0.4) else rng.choice(_NOUNS)
        verb = rng.choice([v for v in _VERBS if v not in ("find", "list", "count", "create")])
        if split_of(f"{verb} {noun}") == split:
            break
    snake = noun.replace(" ", "_")
    key = rng.choice(("id", f"{snake}_id", "code"))
    type_, kind = ("string", "code") if key == "code" else ("integer", "id")
    find = rng.choice(("find", "lookup", "search", "get"))
    first = ToolSpec(name=f"{find}_{snake}", description=_worded(rng.choice(("Find a {noun} by its name.", "Look up the " + key + " of a {noun}.")), verb, noun, ""),
                     parameters={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})  # fmt: skip
    second = ToolSpec(name=f"{verb}_{snake}", description=_worded(rng.choice(_DESCRIPTIONS), verb, noun, verb),
                      parameters={"type": "object", "properties": {key: {"type": type_}}, "required": [key]})  # fmt: skip
    return (
        Composed(first, find, noun, (("name", "string", "Made_up", True),)),
        Composed(second, verb, noun, ((key, type_, kind, True),)),
    )


def chain_talk(rng: Random, split: str, first: Composed, second: Composed) -> Talk:
    """A request that names a thing which only the first tool can turn into what the second needs."""
    name = str(value(rng, split, rng.choice(("made_up", "Made_up", "fullname", "city"))))
    asks = ("{Verb} the {noun} called {v}.", "Please {verb} the {noun} {v}", "{verb} {v}, the {noun}", "Could you {verb} the {noun} named {v}?", "I want to {verb} the {noun} {v}.",
            "Find the {noun} {v} and {verb} it.", "Look up the {noun} {v}, then {verb} it", "{Verb} {v}'s {noun}")  # fmt: skip
    talk = Talk()
    ask = rng.choice(in_split(asks, split) or asks)
    talk.user(_worded(ask, second.verb, second.noun, "").replace("{v}", name))
    talk.call((first.spec.name, {"name": name}))
    if chance(rng, 0.12):
        talk.results(f"error: no {first.noun} named {name}", is_error=True)
        talk.say(rng.choice((f"I couldn't find a {first.noun} named {name}.", f"There is no {first.noun} called {name}, so I left everything as it is.")))
        return talk
    key, _, kind, _ = second.parameters[0]
    given = value(rng, split, kind)
    talk.results({key: given, "name": name} if chance(rng, 0.6) else {"name": name, key: given, "status": "active"})
    talk.call((second.spec.name, {key: given}))
    content, answer, failed = _result(rng, split, second, {key: given})
    talk.results(content, is_error=failed)
    talk.say(answer)
    return talk
