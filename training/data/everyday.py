"""Tools, read from `everyday*.txt`, `brief*.txt`, `typed*.txt` and `worded*.txt`, and what people
say to them.

A tool's entry in the bank, one fact a line:

    tool NAME|OTHER NAME...     what it may be called
    topic TEXT                  what it is about, for saying that no such tool is there
    desc TEXT                   a description; one of several is used
    arg NAME|OTHER...[?] TYPE KIND TEXT [=DEFAULT]
                                an argument; `?` optional; TYPE is string, integer, number, boolean,
                                strings, numbers, integers or enum(a|b); `guest.name` is the part
                                `name` of an object `guest`; a default is told in the description
    obj NAME TEXT               describes such an object
    ask TEXT [=> NAME=VALUE]    a request; `{name}` or `{name:kind}` are arguments, `{name=value}`
                                gives one without a word; of `[this|that]` one part is used;
                                a part without a bar, `[ in {city}]`, may be what is forgotten
    more TEXT                   a follow-up that changes what it names and keeps the rest
    two TEXT                    asks for two calls: `{name2}` is the second's, the rest is shared
    lack TEXT | QUESTION...     a request without a required argument, and how to ask for it
    res KEY=KIND ...            a result that is an object
    list(low,high) KEY=KIND     a result that is a list of such objects, or of values (`_=KIND`)
    text TEXT                   a result that is plain text
    each TEXT                   how one item of a list is retold, for `{each}` in a `say`
    none TEXT                   the answer to an empty list
    say TEXT                    an answer to the result above it; `{key}` of the result or the call
    err CONTENT | ANSWER...     a result that is an error, and how it is told

A topic in the form `DOMAIN / TEXT` marks a typed tool: one with a long description, whose requests
say every value; tools of one domain are near to each other, and none can do another's work.

The requests of `worded*.txt` are put together, so that a value is said or not for itself alone:

    takes KEY[:NAME|OTHER][?]...
                                the arguments, from `slots.txt` or from the tool's own `arg` lines
    part NAME TEXT | TEXT...    how an own argument is said; a capital letter begins a sentence
    open TEXT | TEXT...         what requests begin with; the parts stand in the place of `~`

A tool without results (those of `brief*.txt` and `typed*.txt`) is learnt as far as its call, and so
are the requests in other languages, which `languages.txt` has: a tool's name and what is said, one
a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from random import Random

from pydantic import JsonValue

from training.data.banks import value
from training.data.core import FOLDER, chance, split_of
from training.data.spoken import grammatical, said

__all__ = [
    "Argument",
    "Entry",
    "Outcome",
    "Request",
    "chosen",
    "draw_outcome",
    "draw_request",
    "entries",
    "typed",
]

_SLOT = re.compile(r"\{(\w+(?:\.\w+)?)(?::([^{}]+))?\}")
_SILENT = re.compile(r"\{(\w+(?:\.\w+)?)=([^{}]*)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_OPTIONS = re.compile(r"\|(?![^{]*\})")
_INSIDE = r"\((?:[^()]|\([^()]*\))*\)"
_ARGUMENT = re.compile(rf"(\S+) (\w+(?:\([^)]*\))?) (-|\w+(?:{_INSIDE})?)(?: (.*))?")
_PAIR = re.compile(r"(\w+)=('[^']*'|@\w+|\w+\([^)]*\)|[-\w.]+)")
# The tools of Corral's own first pages: always trained on.
_PINNED = frozenset(
    {"order_status", "convert_currency", "get_weather", "add_reminder", "list_reminders"}
)


@dataclass(slots=True)
class Argument:
    """One argument of a tool as the bank has it."""

    names: tuple[str, ...]
    type: str
    kind: str
    text: str
    required: bool
    default: str = ""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def options(self) -> tuple[str, ...]:
        """The values of an enum, else nothing."""
        return tuple(self.type[5:-1].split("|")) if self.type.startswith("enum(") else ()


@dataclass(slots=True)
class Reply:
    """One shape of result with the answers that retell it."""

    shape: str
    body: str
    each: str = ""
    none: str = ""
    says: list[str] = field(default_factory=list[str])


@dataclass(slots=True, eq=False)
class Entry:
    """One everyday tool of the bank."""

    names: tuple[str, ...]
    topic: str = ""
    domain: str = ""
    objects: dict[str, str] = field(default_factory=dict[str, str])
    descriptions: list[str] = field(default_factory=list[str])
    arguments: list[Argument] = field(default_factory=list[Argument])
    asks: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])
    mores: list[str] = field(default_factory=list[str])
    twos: list[str] = field(default_factory=list[str])
    lacks: list[tuple[str, list[str]]] = field(default_factory=list[tuple[str, list[str]]])
    replies: list[Reply] = field(default_factory=list[Reply])
    errors: list[tuple[str, list[str]]] = field(default_factory=list[tuple[str, list[str]]])
    takes: list[str] = field(default_factory=list[str])
    parts: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    opens: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def split(self) -> str:
        return "train" if self.name in _PINNED else split_of(self.name)

    def argument(self, name: str) -> Argument:
        return next(argument for argument in self.arguments if argument.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user says, and the arguments of the one or two calls that it asks for."""

    text: str
    calls: tuple[dict[str, JsonValue], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A call's result and the answer that retells it."""

    content: JsonValue
    answer: str
    is_error: bool = False


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Every tool of the bank files, in their order."""
    found: list[Entry] = []
    kinds = ("everyday", "brief", "typed", "worded")
    for path in sorted(path for kind in kinds for path in FOLDER.glob(f"{kind}*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            keyword, _, rest = line.strip().partition(" ")
            try:
                _read(found, keyword, rest.strip())
            except (ValueError, IndexError, StopIteration) as error:
                raise ValueError(f"{path.name}:{number}: {line!r}: {error}") from error
    for entry in found:
        if entry.opens:
            put_together(entry)
    named = {entry.name: entry for entry in found}
    for line in (FOLDER / "languages.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, ask = line.partition(" ")
            named[name].foreign.append(_checked(named[name], ask))
    names = [entry.name for entry in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"Tools are in the bank twice: {twice}")
    return tuple(found)


def _read(found: list[Entry], keyword: str, rest: str) -> None:
    if keyword == "tool":
        found.append(Entry(tuple(rest.split("|"))))
        return
    entry = found[-1]
    plain = {"desc": entry.descriptions, "more": entry.mores, "two": entry.twos}
    if keyword in plain:
        plain[keyword].append(rest)
    elif keyword in ("res", "text") or keyword.startswith("list("):
        entry.replies.append(Reply(keyword, rest))
    elif keyword in ("each", "none"):
        setattr(entry.replies[-1], keyword, rest)
    elif keyword == "say":
        entry.replies[-1].says.append(rest)
    else:
        _read_more(entry, keyword, rest)


def _read_more(entry: Entry, keyword: str, rest: str) -> None:
    parts = [part.strip() for part in rest.split(" | ")]
    match keyword:
        case "topic":
            entry.domain, _, entry.topic = rest.rpartition(" / ")
        case "obj":
            name, _, entry.objects[name] = rest.partition(" ")
        case "arg":
            entry.arguments.append(_argument(rest))
        case "ask":
            entry.asks.append(_checked(entry, rest))
        case "takes":
            entry.takes += rest.split()
        case "part":
            name, _, texts = rest.partition(" ")
            entry.parts[name] = [text.strip() for text in texts.split(" | ")]
        case "open":
            entry.opens += parts
        case "lack":
            entry.lacks.append((parts[0], parts[1:]))
        case "err":
            entry.errors.append((parts[0], parts[1:]))
        case _:
            raise ValueError(f"unknown keyword {keyword!r}")


@cache
def _slots() -> dict[str, tuple[Argument, list[str]]]:
    """The arguments that many tools share, by their keys, and the ways to say them."""
    found: dict[str, tuple[Argument, list[str]]] = {}
    for line in (FOLDER / "slots.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, _, rest = line.partition(" ")
            argument, _, texts = rest.partition(" => ")
            found[key] = _argument(argument), [text.strip() for text in texts.split(" | ")]
    return found


def put_together(entry: Entry) -> None:
    """Give a tool of `worded*.txt` its arguments and its requests."""
    own = {argument.name: argument for argument in entry.arguments}
    entry.arguments = []
    for taken in entry.takes:
        key, _, names = taken.rstrip("?").partition(":")
        if key in own:
            entry.arguments.append(own[key])
            continue
        shared, texts = _slots()[key]
        named = tuple(names.split("|")) if names else shared.names
        argument = replace(shared, names=named, required=not taken.endswith("?"))
        entry.arguments.append(argument)
        entry.parts.setdefault(
            argument.name,
            [re.sub(r"\{v\b", "{" + argument.name, text) for text in texts],
        )
    for opening in entry.opens:
        rng = Random(f"{entry.name} {opening}")
        asks = (_worded(rng, entry, opening) for _ in range(_WORDINGS))
        entry.asks += [_checked(entry, ask) for ask in dict.fromkeys(asks)]


_WORDINGS = 5
_LEADS = re.compile(
    r"(in|on|at|for|from|to|with|without|by|under|up|below|near|within|of|over|about|and|plus|that"
    r"|who|which|as|until|through|since|around|next|going|starting|called|titled|not|no)\b"
)
"""What a part begins with that may stand behind others; the object of a sentence may not."""


def _worded(rng: Random, entry: Entry, opening: str) -> str:
    """An opening with the arguments in some order: optional ones in two of three requests."""
    objects: list[str] = []
    others: list[str] = []
    sentences: list[str] = []
    said = _named_in(opening)
    for argument in entry.arguments:
        if argument.name in said or (not argument.required and chance(rng, 0.15)):
            continue
        texts = entry.parts[argument.name]
        text = rng.choice(texts)
        alone = _capital(text)
        if argument.required:
            part = f"[{{}}{text}]"
        else:
            like = [t for t in texts if _capital(t) == alone and t != text] or [text]
            part = f"[{{}}{text}|{{}}{rng.choice(like)}|]"
        into = sentences if alone else others if _LEADS.match(text) else objects
        into.append(part)
    rng.shuffle(others)
    rng.shuffle(sentences)
    apart = ", " if chance(rng, 0.15) else " "
    head, _, tail = opening.partition("~")
    text = head
    for part in (*objects, *others):
        listed = text != head and (": " in part or part in objects)
        text += part.replace("{}", ", " if listed else " " if text == head else apart)
    if sentences and not tail:
        behind = (re.sub(r"\.(?=(\{[^{}]*\})?[|\]])", "", part) for part in sentences)
        return text + "".join(part.replace("{}", ". ") for part in behind)
    return text + tail + "".join(part.replace("{}", " ") for part in sentences)


def _capital(text: str) -> bool:
    return text[:1].isupper()


def _argument(rest: str) -> Argument:
    parts = _ARGUMENT.fullmatch(rest)
    if not parts:
        raise ValueError("not an argument")
    names, type_, kind, text = parts.groups()
    shown = tuple(names.replace("?", "").split("|"))
    text, _, default = (text or "").partition(" =")
    return Argument(shown, type_, kind, text, not names.endswith("?"), default)


def _checked(entry: Entry, ask: str) -> str:
    text, _, fixed = ask.partition(" => ")
    given = _named_in(text) | {found[0] for found in _PAIR.findall(fixed)}
    always = given - {name for part in _CHOICE.findall(text) for name in _named_in(part)}
    for part in _CHOICE.findall(text):
        always |= set.intersection(*(_named_in(option) for option in _OPTIONS.split(part)))
    known = {argument.name for argument in entry.arguments}
    needed = {argument.name for argument in entry.arguments if argument.required}
    if given - known or needed - always:
        raise ValueError(f"unknown {given - known} or missing {needed - always}")
    return ask


def _named_in(text: str) -> set[str]:
    return {found[0] for found in (*_SLOT.findall(text), *_SILENT.findall(text))}


def chosen(rng: Random, text: str) -> str:
    """A wording with one part of each `[this|that]` in it."""
    return _CHOICE.sub(lambda found: rng.choice(_OPTIONS.split(found[1])), text)


def draw_request(rng: Random, split: str, entry: Entry, ask: str) -> Request:
    """Fill a wording with values; one with a slot such as `{city2}` asks for two calls."""
    text, _, fixed = ask.partition(" => ")
    text = chosen(rng, text)
    drawn: dict[str, JsonValue] = {
        name: typed(entry.argument(name), given)
        for name, given in (*_PAIR.findall(fixed), *_SILENT.findall(text))
    }
    shown: dict[str, str] = {}
    for slot, kind in _SLOT.findall(text):
        if slot in shown:
            continue
        name = (
            slot[:-1]
            if slot.endswith("2") and slot[:-1] in {a.name for a in entry.arguments}
            else slot
        )
        argument = entry.argument(name)
        unlike = drawn.get(name, _of_the_same_kind(entry, argument, drawn))
        drawn[slot], shown[slot] = _drawn(rng, split, argument, kind, unlike)
    text = _SLOT.sub(lambda found: shown[found[1]], _SILENT.sub("", text))
    if entry.domain:
        text = grammatical(text)
    first = {a.name: drawn[a.name] for a in entry.arguments if a.name in drawn}
    if not any(slot.endswith("2") and slot[:-1] in first for slot in drawn):
        return Request(text=text, calls=(first,))
    second = {name: drawn.get(f"{name}2", given) for name, given in first.items()}
    return Request(text=text, calls=(first, second))


def _of_the_same_kind(entry: Entry, argument: Argument, drawn: dict[str, JsonValue]) -> JsonValue:
    """What another argument of the same kind of value was given, such as the other unit or day."""
    return next(
        (
            drawn[other.name]
            for other in entry.arguments
            if entry.domain
            and other is not argument
            and (other.type, other.kind) == (argument.type, argument.kind)
            and other.type not in ("integer", "number", "boolean")
            and other.name in drawn
        ),
        None,
    )


def _drawn(
    rng: Random, split: str, argument: Argument, kind: str, unlike: JsonValue
) -> tuple[JsonValue, str]:
    """A value for an argument and how the user writes it."""
    other_form = said(rng, split, kind or argument.kind, after=str(unlike or ""))
    if other_form:
        return other_form
    drawn = unlike
    for _ in range(20):
        if argument.options and not kind:
            drawn = rng.choice(argument.options)
        else:
            drawn = value(rng, split, kind or argument.kind)
        if drawn != unlike and not _of_another_length(argument, drawn, unlike):
            break
    if argument.options:
        return drawn, str(drawn).replace("_", " ")
    if isinstance(drawn, list):
        in_brackets = argument.type != "strings" and (unlike is not None or chance(rng, 0.2))
        return drawn, _list_of(rng, drawn, in_brackets)
    if argument.type in ("integer", "number") and isinstance(drawn, str):  # from a bank
        drawn = float(drawn) if "." in drawn else int(drawn)
    elif argument.type == "number" and isinstance(drawn, int | float):
        drawn = round(drawn) if chance(rng, 0.5) or drawn == round(drawn) else drawn
    if argument.type == "string":
        drawn = str(drawn)
    return drawn, str(drawn)


def _of_another_length(argument: Argument, drawn: JsonValue, unlike: JsonValue) -> bool:
    """Whether two lists of numbers don't belong together, as those of a correlation do."""
    both = isinstance(drawn, list) and isinstance(unlike, list) and argument.type != "strings"
    return both and len(drawn) != len(unlike)


def _list_of(rng: Random, drawn: list[JsonValue], in_brackets: bool) -> str:
    words = [str(item) for item in drawn]
    if in_brackets:
        return f"[{', '.join(words)}]"
    ends = (" and ", ", and ", ", ") if len(words) > 2 else (" and ",)
    return f"{', '.join(words[:-1])}{rng.choice(ends)}{words[-1]}"


def typed(argument: Argument, given: str) -> JsonValue:
    """A value of an argument that the bank has in writing."""
    text = given.strip("'")
    match argument.type:
        case "integer":
            return int(text)
        case "number":
            return float(text) if "." in text else int(text)
        case "boolean":
            return text == "true"
        case "strings":
            return list(text.split("+"))
        case _:
            return text


def draw_outcome(
    rng: Random, split: str, entry: Entry, arguments: dict[str, JsonValue], *, fails: bool = False
) -> Outcome:
    """A result of a call, its arguments by their names in the bank, and an answer that tells it."""
    known = {name: _spoken(given) for name, given in arguments.items()}
    errors = [e for e in entry.errors if all(_fits(part, known) for part in (e[0], *e[1]))]
    if fails and errors:
        content, answers = rng.choice(errors)
        return Outcome(
            content=_said(content, known), answer=_said(rng.choice(answers), known), is_error=True
        )
    replies = [r for r in entry.replies if not r.says or any(_fits(s, known, r) for s in r.says)]
    reply = rng.choice(replies)
    if reply.shape == "text":
        slots = dict(known)
        for name, kind in _SLOT.findall(reply.body):
            if kind:
                slots[name] = _spoken(value(rng, split, kind))
        return Outcome(
            content=_filled(reply.body, slots),
            answer=_said(rng.choice(_fitting(reply, known)), slots),
        )
    if reply.shape.startswith("list"):
        return _listed(rng, split, reply, arguments, known)
    result = _object(rng, split, reply.body, arguments)
    slots = known | {name: _spoken(given) for name, given in result.items()}
    return Outcome(content=result, answer=_said(rng.choice(_fitting(reply, known)), slots))


def _listed(
    rng: Random, split: str, reply: Reply, arguments: dict[str, JsonValue], known: dict[str, str]
) -> Outcome:
    low, high = (int(part) for part in reply.shape[5:-1].split(","))
    if reply.none and chance(rng, 0.12):
        return Outcome(content=[], answer=_said(reply.none, known))
    items = [_object(rng, split, reply.body, arguments) for _ in range(rng.randint(low, high))]
    told = [_filled(reply.each, {k: _spoken(v) for k, v in item.items()}) for item in items]
    joint = ", ".join(told[:-1]) + (" and " if len(told) > 1 else "") + told[-1]
    content: JsonValue = [item.get("_", item) for item in items]
    slots = known | {"each": joint, "n": str(len(items))}
    says = [s for s in _fitting(reply, known) if len(items) > 1 or "{n}" not in s]
    answer = _said(rng.choice(says), slots) if says else f"There is one: {joint}."
    return Outcome(content=content, answer=answer)


def _object(
    rng: Random, split: str, body: str, arguments: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {}
    for key, kind in _PAIR.findall(body):
        if kind.startswith("@"):
            if kind[1:] in arguments:
                made[key] = arguments[kind[1:]]
        elif kind.startswith("'"):
            made[key] = kind[1:-1]
        elif kind in ("true", "false"):
            made[key] = kind == "true"
        elif re.fullmatch(r"-?\d+", kind):
            made[key] = int(kind)
        else:
            made[key] = value(rng, split, kind)
    return made


def _spoken(given: JsonValue) -> str:
    if isinstance(given, list):
        words = [str(item) for item in given]
        return (
            ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]
            if words
            else "none"
        )
    return (
        str(given).replace("_", " ")
        if isinstance(given, str) and "@" not in given and "." not in given
        else str(given)
    )


def _fits(template: str, known: dict[str, str], reply: Reply | None = None) -> bool:
    keys = set(known) | {"each", "n"}
    if reply is not None:
        keys |= {
            key
            for key, kind in _PAIR.findall(reply.body)
            if not kind.startswith("@") or kind[1:] in known
        }
        keys |= {name for name, kind in _SLOT.findall(reply.body) if kind}
    return all(name in keys for name, _ in _SLOT.findall(template))


def _fitting(reply: Reply, known: dict[str, str]) -> list[str]:
    fitting = [say for say in reply.says if _fits(say, known, reply)]
    if not fitting:
        raise ValueError(f"No answer fits {reply.body!r} with {sorted(known)}: {reply.says}")
    return fitting


def _filled(template: str, slots: dict[str, str]) -> str:
    return _SLOT.sub(lambda found: slots.get(found[1], found[0]), template)


def _said(template: str, slots: dict[str, str]) -> str:
    text = _filled(template, slots)
    if (
        template.startswith("{")
        and "." not in text.split(" ", 1)[0]
        and not text.startswith("error")
    ):
        return text[:1].upper() + text[1:]
    return text
