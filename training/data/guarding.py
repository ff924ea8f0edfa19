"""What `cria-guard` learns from: mild synthetic requests and answers with verdicts.

The unsafe texts are abstract wishes put into frames; they name a hazard and never say how. Harmless
wishes stand in the same frames, so that these don't come to mean harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from random import Random
from typing import Literal

from training.data.banks import value
from training.data.core import chance, in_split, sections

__all__ = ["Conversation", "draw_guarded"]

Conversation = tuple[tuple[Literal["User", "Agent"], str], ...]
Exchange = Callable[[Random, str], tuple[str, str]]
"""Draws a harmless request with its answer, from the conversations that cria learns from."""


@lru_cache(maxsize=1)
def _unsafe() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """By codes: the wishes and the statements."""
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for codes, lines in sections("guard_unsafe.txt").items():
        wishes = tuple(line for line in lines if not line.startswith("~ "))
        found[codes] = (wishes, tuple(line[2:] for line in lines if line.startswith("~ ")))
    return found


@cache
def _wishes(codes: str, split: str) -> tuple[str, ...]:
    wishes = _unsafe()[codes][0]
    return in_split(wishes, split) or (wishes if split == "train" else ())


@cache
def _statements(codes: str, split: str) -> tuple[str, ...]:
    return in_split(_unsafe()[codes][1], split)


@cache
def _frames(split: str) -> tuple[str, ...]:
    return in_split(sections("guard_words.txt")["frames"], split)


@cache
def _harmless(who: str, split: str) -> tuple[str, ...]:
    return in_split(sections("guard_safe.txt")[who], split)


@cache
def _harmless_wishes(split: str) -> tuple[str, ...]:
    wishes = [wish for lines in sections("guard_wishes.txt").values() for wish in lines]
    return in_split(tuple(wishes), split)


@cache
def _plain(what: str, split: str) -> tuple[str, ...]:
    """The frames, or the answers that go along, that hint at nothing by themselves."""
    said = _frames(split) if what == "frames" else sections("guard_words.txt")[what]
    return tuple(one for one in said if not _SHADY.search(one))


_SHADY = re.compile(
    r"caught|unnoticed|no rules|Ignore|ever know|evil|excuses|serious|between us|tonight|dare|test,"
    r"|Just |at night|tell anyone|stop you|right moment|no objection|boss told|realistic"
    r"|For a story|pay you|what comes first",
    re.IGNORECASE,
)


def _filled(rng: Random, split: str, text: str) -> str:
    """Fill a text's slots, each with one value throughout."""
    if "{group}" in text or "{Group}" in text:
        group = rng.choice(sections("guard_words.txt")["groups"])
        text = text.replace("{group}", group).replace("{Group}", group[:1].upper() + group[1:])
    n, m = (
        rng.choice((rng.randint(2, 99), rng.randint(2, 9999))),
        rng.choice((rng.randint(2, 99), rng.randint(2, 999))),
    )
    for slot, given in (("n", n), ("m", m), ("p", n * m), ("s", n + m)):
        text = text.replace("{" + slot + "}", str(given))
    for slot in ("place", "thing"):
        text = text.replace("{" + slot + "}", rng.choice(sections("guard_words.txt")[f"{slot}s"]))
    for slot in _SLOTS:
        if "{" + slot + "}" in text:
            text = text.replace("{" + slot + "}", str(value(rng, split, slot)))
    return text


_SLOTS = tuple(
    "person surname city country address phone code email date clock id word product room file "
    "task sky status restaurant".split()
)


def _codes(rng: Random) -> str:
    codes = list(_unsafe())
    return rng.choices(codes, [0.3 if "," in code else 1.0 for code in codes])[0]


def _wish(rng: Random, split: str) -> tuple[str, str]:
    """A hazard's codes and one of its wishes."""
    while True:
        codes = _codes(rng)
        wishes = _wishes(codes, split)
        if wishes:
            return codes, _filled(rng, split, rng.choice(wishes))


def _bad_request(rng: Random, split: str) -> tuple[str, str, str]:
    """Codes, the wish, and what the user says."""
    codes, wish = _wish(rng, split)
    statements = _statements(codes, split)
    if statements and chance(rng, 0.25):
        return codes, "", _filled(rng, split, rng.choice(statements))
    text = rng.choice(_frames(split)).replace("{x}", wish)
    return codes, wish, text.lower() if chance(rng, 0.12) else text


def _bad_answer(rng: Random, split: str, codes: str, wish: str) -> str:
    statements = _statements(codes, split)
    if statements and (not wish or chance(rng, 0.5)):
        return _filled(rng, split, rng.choice(statements))
    return rng.choice(sections("guard_words.txt")["complies"]).replace("{x}", wish)


def _good_request(rng: Random, split: str) -> tuple[str, str]:
    """A request that only looks like a hazard; where it is a wish, an answer that goes along."""
    if chance(rng, 0.4):
        return _filled(rng, split, rng.choice(_harmless("user", split))), ""
    wish = _filled(rng, split, rng.choice(_harmless_wishes(split)))
    request = rng.choice(_plain("frames", split)).replace("{x}", wish)
    return request, rng.choice(_plain("complies", split)).replace("{x}", wish)


def _refusal(rng: Random, wish: str) -> str:
    options = [
        refusal
        for refusal in sections("guard_words.txt")["refuses"]
        if wish or "{x}" not in refusal
    ]
    return rng.choice(options).replace("{x}", wish)


def draw_guarded(rng: Random, split: str, harmless: Exchange) -> tuple[Conversation, str]:
    """A conversation and the verdict on its last turn.

    Args:
        rng: The source of chance.
        split: The split whose texts are used.
        harmless: Draws an ordinary request and its answer.
    """
    before: list[tuple[Literal["User", "Agent"], str]] = []
    if chance(rng, 0.3):  # earlier turns, which don't count
        if chance(rng, 0.35):
            _, wish, request = _bad_request(rng, split)
            before = [("User", request), ("Agent", _refusal(rng, wish))]
        else:
            request, answer = harmless(rng, split)
            before = [("User", request), ("Agent", answer)]
    verdict = "safe"
    match rng.choices(
        ("ask", "answer", "refusal", "lookalike", "told", "everyday", "reply"),
        (30, 15, 8, 20, 9, 10, 8),
    )[0]:
        case "ask":
            codes, _, request = _bad_request(rng, split)
            turns, verdict = [("User", request)], f"unsafe\n{codes}"
        case "answer":
            codes, wish, request = _bad_request(rng, split)
            answer = _bad_answer(rng, split, codes, wish)
            if not wish and chance(rng, 0.5):
                request, _ = harmless(rng, split)
            if not wish and answer == request:
                answer = "Yes, that's right! I agree: " + answer
            turns, verdict = [("User", request), ("Agent", answer)], f"unsafe\n{codes}"
        case "refusal":
            _, wish, request = _bad_request(rng, split)
            turns = [("User", request), ("Agent", _refusal(rng, wish))]
        case "lookalike":
            text, _ = _good_request(rng, split)
            turns = [("User", text.lower() if chance(rng, 0.12) else text)]
        case "told":
            request, answer = _good_request(rng, split)
            if not answer or chance(rng, 0.3):
                answer = _filled(rng, split, rng.choice(_harmless("agent", split)))
                request = harmless(rng, split)[0] if chance(rng, 0.5) else request
            turns = [("User", request), ("Agent", answer)]
        case "everyday":
            turns = [("User", harmless(rng, split)[0])]
        case _:
            turns = [*zip(("User", "Agent"), harmless(rng, split), strict=True)]
    return (*before, *turns), verdict  # type: ignore[return-value]
