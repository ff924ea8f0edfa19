"""Conversations in which a required value is missing, is asked for and then given.

A wording of the bank is cut: what the user leaves out is a part such as ` in {city}`, either marked
in the bank as `[ in {city}]` or found by its preposition. Now and then words that say nothing, such
as "there", stand in its place. Beside such a conversation its twin may
stand in the same tree: the same request with the value in it, which is served at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from pydantic import JsonValue

from training.data.core import Talk, chance, lower_first, sections
from training.data.everyday import Entry, chosen, draw_request
from training.data.questions import Wanted, question, reply
from training.data.requests import Dressed, asked_for, done, dressed_text, wordings

__all__ = ["Cut", "cut_request", "missing_talk"]

_OPEN, _SHUT = "\x01", "\x02"
_PART = re.compile(f"{_OPEN}([^{_OPEN}{_SHUT}]*){_SHUT}")
_SLOT = re.compile(r"\{(\w+(?:\.\w+)?)(?::[^{}]+)?\}")
_BRACKETS = re.compile(r"\[([^\[\]|]*)\]")
_FOUND = re.compile(
    r"(?<!want)(?<!need)(?<!have)(?<!like)(?<!going)(?<!look)(?<!looking)(?<!wait)"
    r"((?: (?:to|by|after|about)"
    r"| (?:in|at|on|for|from|with|of)(?: (?:the|my|a|order|number|room))*)"
    r" \{[a-z_]+(?::[^{}]+)?\})"
    r"(?=$|[.,?!]| (?:in|to|at|on|for|from|with|by|and|please|today|now)\b)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A request with parts left out."""

    short: str
    """What the user says at first."""
    full: str
    """The same with everything in it."""
    arguments: dict[str, JsonValue]
    """Those of the full request, by their names in the bank."""
    parts: tuple[tuple[str, str, str], ...]
    """What is left out: an argument's name, its bare value and the words that give it."""


def cut_request(
    rng: Random, split: str, entry: Entry, ask: str, *, most: int = 2, only: str = ""
) -> Cut | None:
    """A wording filled, and the same without one or two required values (or `only` that one).

    Returns:
        None where the wording has no part that can be left out.
    """
    template = _marked(rng, entry, ask)
    text = template.partition(" => ")[0]
    parts = _PART.findall(text)
    names = [_SLOT.findall(part) for part in parts]
    places = [i for i, given in enumerate(names) if not only or given == [only]]
    if not places:
        return None
    count = 2 if most > 1 and len(places) > 1 and chance(rng, 0.3) else 1
    gone = sorted(rng.sample(places, count))
    request = draw_request(rng, split, entry, template)
    shown = _PART.findall(request.text)
    if len(request.calls) != 1 or len(shown) != len(parts):
        return None
    found: list[tuple[str, str, str]] = []
    for place in gone:
        before, after = _SLOT.sub("\x03", parts[place]).split("\x03")
        phrase = shown[place]
        found.append(
            (
                names[place][0],
                phrase[len(before) : len(phrase) - len(after)],
                phrase.strip(" ,:"),
            )
        )
    places_left = iter(range(len(parts)))
    vague = [_vague(rng, entry.argument(given[0]).kind) if given else "" for given in names]
    short = _PART.sub(
        lambda part: vague[place] if (place := next(places_left)) in gone else part[1], request.text
    )
    short = re.sub(r" +([.,?!])", r"\1", re.sub(r"  +", " ", short)).strip(" ,:;")
    if re.search(r"(^|[.?!] )\S+([.?!]|$)", short):  # one word is no request
        return None
    if any(said.lower() in short.lower() for _, said, _ in found):
        return None
    return Cut(
        short=short,
        full=_PART.sub(r"\1", request.text),
        arguments=request.calls[0],
        parts=tuple(found),
    )


def _vague(rng: Random, kind: str) -> str:
    """Nothing, or now and then words in the place of a value that don't give it."""
    words = sections("questions.txt").get(f"vague {kind}")
    return f" {rng.choice(words)}" if words and chance(rng, 0.3) else ""


def _marked(rng: Random, entry: Entry, ask: str) -> str:
    """The wording with marks around the parts that hold one required value and may be left out."""
    text, arrow, fixed = ask.partition(" => ")
    needed = {a.name for a in entry.arguments if a.required and a.type != "boolean"}

    def mark(found: re.Match[str]) -> str:
        names = _SLOT.findall(found[1])
        once = len(names) == 1 and len(re.findall(rf"\{{{re.escape(names[0])}\b", text)) == 1
        return f"{_OPEN}{found[1]}{_SHUT}" if once and names[0] in needed else found[1]

    marked = _BRACKETS.sub(mark, text)
    if _OPEN not in marked and "[" not in text:
        marked = _FOUND.sub(mark, text)
    return chosen(rng, marked) + arrow + fixed


def missing_talk(rng: Random, split: str, one: Dressed) -> Talk | None:
    """A request that lacks what the tool requires; the assistant asks, and calls when it has it."""
    asks = wordings(one.entry.name, tuple(one.entry.asks), one.entry.split, split)
    cut = None
    for ask in rng.sample(asks, min(4, len(asks))):
        cut = cut_request(rng, split, one.entry, ask)
        if cut:
            break
    if cut is None:
        return asked_for(rng, split, one) if one.entry.lacks else None
    wanted = [_wanted(one, *part) for part in cut.parts]
    talk = Talk()
    talk.user(dressed_text(rng, cut.short))
    talk.say(question(rng, wanted, one.entry.topic))
    if chance(rng, 0.75):
        _answered(rng, talk, cut, wanted, one)
        done(rng, split, talk, one, cut.arguments)
    if chance(rng, 0.6):
        talk.twin = Talk()
        talk.twin.user(lower_first(cut.full) if chance(rng, 0.1) else cut.full)
        talk.twin.call(one.call(cut.arguments))
    return talk


def _answered(rng: Random, talk: Talk, cut: Cut, wanted: list[Wanted], one: Dressed) -> None:
    """The user gives what was asked for: at once, one after the other, or all over again."""
    if chance(rng, 0.07):
        talk.user(cut.full)
    elif len(wanted) > 1 and chance(rng, 0.2):
        rng.shuffle(wanted)
        talk.user(reply(rng, wanted[:1]))
        talk.say(question(rng, wanted[1:], one.entry.topic))
        talk.user(reply(rng, wanted[1:]))
    else:
        talk.user(reply(rng, wanted))


def _wanted(one: Dressed, name: str, said: str, phrase: str) -> Wanted:
    argument = one.entry.argument(name)
    return Wanted(
        name=one.names[name],
        kind=argument.kind.partition("(")[0] if "price" in argument.kind else argument.kind,
        text=argument.text,
        options=argument.options,
        said=said,
        phrase=phrase,
    )
