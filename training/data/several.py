"""Several calls that one message asks for: two to four, of one tool or of different ones.

They are joined in three ways: a list in the place of a value ("in Oslo, Lima and Cork"), requests
put side by side, and two requests under one value that both need. The words are in `several.txt`.
"""

from __future__ import annotations

import re
from random import Random

from pydantic import JsonValue

from training.data.core import Talk, chance, lower_first, sections
from training.data.everyday import Entry, chosen, draw_outcome, draw_request
from training.data.missing import Cut, cut_request
from training.data.requests import Dressed, dressed_text, wordings

__all__ = ["join_clauses", "several_talk"]

Asked = tuple[str, list[tuple[Dressed, dict[str, JsonValue]]]]
"""What the user says, and the calls of it."""

_SLOT = re.compile(r"\{(\w+)(?::[^{}]+)?\}")
_PROSE = frozenset(
    {"task", "message", "note", "phrase", "review", "bug", "sql", "docquery", "free"}
)
"""Values that are clauses themselves: a list of them could be one value."""
_SHARED = frozenset(
    {"city", "date", "day", "weekday", "id", "code", "person", "fullname", "room", "clock"}
    | {"country", "product", "food", "isodate", "when", "place", "file", "email"}
)
"""What two requests may have in common."""
_NUMBERS = {2: "two", 3: "three", 4: "four"}


def several_talk(rng: Random, split: str, dressed: list[Dressed]) -> Talk | None:
    """One message that asks for two to four calls of the tools offered."""
    pick = rng.random()
    asked: Asked | None = None
    if pick < 0.2 and len(dressed) > 1:
        asked = _under_one_value(rng, split, *rng.sample(dressed, 2))
    elif pick < 0.5:
        asked = _listed(rng, split, rng.choice(dressed))
    asked = asked or _side_by_side(rng, split, dressed)
    if asked is None:
        return None
    text, calls = asked
    if any(calls.count(call) > 1 for call in calls):
        return None
    talk = Talk()
    talk.user(dressed_text(rng, text) if "\n" not in text else text)
    talk.call(*(one.call(arguments) for one, arguments in calls))
    if chance(rng, 0.5) and all(one.entry.replies for one, _ in calls):
        told = [draw_outcome(rng, split, one.entry, arguments) for one, arguments in calls]
        talk.results(*(outcome.content for outcome in told))
        talk.say(" ".join(_ended(outcome.answer) for outcome in told))
    return talk


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!", '"')) else f"{text}."


def _count(rng: Random) -> int:
    return rng.choices((2, 3, 4), (56, 29, 15))[0]


def _wording(rng: Random, split: str, entry: Entry) -> str:
    asks = wordings(entry.name, tuple(entry.asks), entry.split, split)
    return rng.choice(asks) if asks else ""


def _listed(rng: Random, split: str, one: Dressed) -> Asked | None:
    """One wording with a list where it has a value: its last value, or all that it has."""
    text, arrow, fixed = _wording(rng, split, one.entry).partition(" => ")
    text = chosen(rng, text)
    slots = list(_SLOT.finditer(text))
    if not slots or text.count("{") != len(slots) or re.search(r"[.?!:] ", text):
        return None
    first = slots[-1] if len(slots) == 1 or chance(rng, 0.5) else slots[0]
    start, end = first.start(), slots[-1].end()
    varied = text[start:end]
    arguments = [one.entry.argument(name) for name in _SLOT.findall(varied)]
    if start == 0 or "," in varied or any(_unlisted(a.type, a.kind) for a in arguments):
        return None
    if len(arguments) == 1 and arguments[0].kind in _PROSE:
        return None
    whole = draw_request(
        rng, split, one.entry, f"{text[:start]}\x01{varied}\x02{text[end:]}{arrow}{fixed}"
    )
    before, item, after = re.split("[\x01\x02]", whole.text)
    items, calls = [item], [(one, whole.calls[0])]
    for _ in range(_count(rng) - 1):
        other = draw_request(rng, split, one.entry, varied)
        items.append(other.text)
        calls.append((one, whole.calls[0] | other.calls[0]))
    if any("," in item or " and " in item for item in items):
        listed = "; ".join(items)
    elif len(items) == 2:
        listed = rng.choice(sections("several.txt")["items"]).format(a=items[0], b=items[1])
    else:
        listed = rng.choice(sections("several.txt")["more items"])
        apart = "; " if ";" in listed else ", "
        listed = listed.format(a=apart.join(items[:-2]), b=items[-2], c=items[-1])
    return f"{before}{listed}{after}", calls


def _unlisted(type_: str, kind: str) -> bool:
    return type_ in ("strings", "numbers", "integers", "boolean") or kind.startswith("some(")


def _side_by_side(rng: Random, split: str, dressed: list[Dressed]) -> Asked | None:
    """Whole requests, for one tool with other values or for several tools."""
    count = _count(rng)
    if len(dressed) == 1 or chance(rng, 0.4):
        tools = [rng.choice(dressed)] * count
    else:
        tools = rng.sample(dressed, min(count, len(dressed)))
        while len(tools) < count and chance(rng, 0.5):
            tools.append(rng.choice(tools))
    alike = chance(rng, 0.35)
    texts: list[str] = []
    calls: list[tuple[Dressed, dict[str, JsonValue]]] = []
    before: dict[str, str] = {}
    for one in tools:
        wording = before.get(one.spec.name, "") if alike else ""
        wording = wording or _wording(rng, split, one.entry)
        before[one.spec.name] = wording
        if not wording:
            return None
        request = draw_request(rng, split, one.entry, wording)
        texts.append(request.text if wording[0] != "{" else f"\x01{request.text}")
        calls.append((one, request.calls[0]))
    return join_clauses(rng, texts), calls


def join_clauses(rng: Random, texts: list[str]) -> str:
    """Requests in one message; one that begins with \\x01 keeps its first letter."""
    if len(texts) == 1:
        return texts[0].removeprefix("\x01")
    bank = sections("several.txt")
    bare = [text.rstrip(".?! ") for text in texts]
    small = [text[1:] if text[0] == "\x01" else lower_first(text) for text in bare]
    big = [text.removeprefix("\x01") for text in bare]
    simple = all(len(text) < 90 and not re.search(r"[.?!:;] ", text) for text in big)
    questions = [text.rstrip().endswith("?") for text in texts]
    end = "?" if questions[-1] else rng.choice((".", ".", ""))
    pick = rng.random()
    if simple and pick < 0.45 and (all(questions) or not any(questions)):
        between = rng.choice((" and ", ", and ", " and also ", ", then ", ", and then ", ", plus "))
        apart = rng.choice((", ", ", ", "; "))
        if any("," in text for text in big):
            apart, between = "; ", rng.choice(("; ", "; and ", "; then "))
        return apart.join([big[0], *small[1:-1]]) + between + small[-1] + end
    if pick < 0.7 and not any("\n" in text for text in big):
        count = _NUMBERS[len(texts)]
        head = rng.choice(bank["heads"]).format(n=count, N=count.capitalize())
        asking = [f"{text}?" if asks else text for text, asks in zip(big, questions, strict=True)]
        return head + _enumerated(rng, asking, small, inline=simple and not any(questions))
    sentences = [f"{text}{'?' if asks else '.'}" for text, asks in zip(big, questions, strict=True)]
    for place in range(1, len(texts)):
        if chance(rng, 0.6):
            final = place == len(texts) - 1 and len(texts) > 2 and chance(rng, 0.4)
            start = rng.choice(bank["last" if final else "starts"])
            sentences[place] = f"{start} {small[place]}{sentences[place][-1]}"
    return " ".join(sentences)


def _enumerated(rng: Random, texts: list[str], small: list[str], *, inline: bool) -> str:
    style = rng.choice((";", "1.", "1)", "-", "*") if inline else ("1.", "-", "a)"))
    if style == ";":
        return " " + "; ".join(small) + "."
    marks = [f"{style} "] * len(texts)
    if style[0] == "1":
        marks = [f"{place}{style[1]} " for place in range(1, len(texts) + 1)]
    elif style == "a)":
        marks = [f"{letter}) " for letter in "abcd"]
    apart = "\n" if style in "-*" or chance(rng, 0.5) else " "
    lines = [mark + text for mark, text in zip(marks, texts, strict=False)]
    return apart + apart.join(lines)


def _under_one_value(rng: Random, split: str, first: Dressed, second: Dressed) -> Asked | None:
    """Two requests that need the same value, which is said once for both."""
    pairs = [
        (one.name, other.name)
        for one in first.entry.arguments
        for other in second.entry.arguments
        if one.required and other.required and one.kind == other.kind and one.type == other.type
        if one.kind in _SHARED and (one.kind not in ("id", "code") or one.name == other.name)
    ]
    if not pairs:
        return None
    name, other_name = rng.choice(pairs)
    one = _cut_alone(rng, split, first.entry, name)
    other = _cut_alone(rng, split, second.entry, other_name)
    if one is None or other is None:
        return None
    _, _, phrase = one.parts[0]
    a, b = (cut.short.rstrip(".?! ") for cut in (one, other))
    slots = {"s": phrase, "S": phrase[:1].upper() + phrase[1:]}
    slots |= {"a": lower_first(a), "A": a, "b": lower_first(b)}
    text = rng.choice(sections("several.txt")["under"]).format(**slots)
    text += "?" if other.short.endswith("?") and not text.endswith((phrase, "cases")) else "."
    shared = one.arguments[name]
    return text, [(first, one.arguments), (second, other.arguments | {other_name: shared})]


def _cut_alone(rng: Random, split: str, entry: Entry, name: str) -> Cut | None:
    for _ in range(3):
        ask = _wording(rng, split, entry)
        if ask and (cut := cut_request(rng, split, entry, ask, most=1, only=name)):
            return cut
    return None
