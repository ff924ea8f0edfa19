"""Reads a whole message: which of the ways to write calls it uses, if any, and the calls.

A message is a call only if it begins as one, or if a `<|python_tag|>` token stands before it. What
quotes a call in prose is text. The first way of writing that is met owns the message, and markup
inside its strings is data.

Reading is a pure function of the text, and linear in it: nothing is read more than a fixed number
of times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from corral.model_runtime.parser.envelope import read_object_lists, read_objects
from corral.model_runtime.parser.functags import read_tags
from corral.model_runtime.parser.literals import BLANKS, Fault
from corral.model_runtime.parser.offer import Found
from corral.model_runtime.parser.pythonic import read_bare, read_lists
from corral.model_runtime.parser.region import PYTHON_TAG, Region, Turn

__all__ = ["CUT_CODE", "FENCE", "Opening", "Reading", "fence_opening", "is_prose", "read_message"]

FENCE = "```"
CUT_CODE = "The code was cut off before its end, so it did not run. Write less code at once."


@dataclass(slots=True)
class Reading:
    """What a message holds: calls with the prose around them, or, without calls, text."""

    calls: list[Found]
    before: str = ""
    after: str = ""


def read_message(turn: Turn, text: str, tags: Sequence[int]) -> Reading:
    """Read a message.

    Args:
        turn: What was offered, and why the model stopped; gains what had to be mended.
        text: The message, with the name of each `<|python_tag|>` token standing for the token.
        tags: Where in `text` those names stand, in order.

    Raises:
        Fault: It begins as a call, or follows a tag, and can't be read as one.
    """
    region = Region(turn, text, tags)
    calls = _read(region)
    if calls is None:
        return Reading([])
    return Reading(calls, region.before, region.after)


def is_prose(turn: Turn, text: str) -> bool:
    """Whether `text`, which ends with an object or a list, can be no call, whatever follows it."""
    region = Region(turn, text)
    try:
        return _open(region) is None and region.resume == len(text)
    except Fault:
        return False


def _read(region: Region) -> list[Found] | None:
    """The calls of a region; None if it is text."""
    calls = _open(region)
    if calls is not None:
        return calls
    if region.tagged:
        return _read_code(region)
    index = bisect_left(region.tags, region.resume)
    return _read_behind_tag(region, index) if index < len(region.tags) else None


def _open(region: Region) -> list[Found] | None:
    """Read a region that begins with a call; None if it doesn't."""
    pos, codes = region.gap(0, tags=region.tagged)
    if "comma_separator" in codes:
        return None
    char = region.text[pos : pos + 1]
    calls = _WAYS.get(char, read_bare)(region, pos)
    if calls is not None and pos > 0:
        if ";" in region.text[:pos]:
            codes.append("stray_separator")
        region.turn.warn(codes)
    return calls


def _read_any_list(region: Region, pos: int) -> list[Found] | None:
    first = pos + 1
    while region.text[first : first + 1] in _BLANK:
        first += 1
    if region.text.startswith("{", first):
        return read_object_lists(region, pos)
    return read_lists(region, pos)


def _read_behind_tag(region: Region, index: int) -> list[Found] | None:
    """Read what follows tag number `index` as calls: nothing else is due there."""
    tag = region.tags[index]
    start = tag + len(PYTHON_TAG)
    region.turn.warnings.clear()
    region.turn.tagged_at = start
    inner = Region(
        region.turn,
        region.text[start:],
        [at - start for at in region.tags[index + 1 :]],
        tagged=True,
    )
    region.before = region.text[:tag]
    if ";" in region.before and not region.before.strip(BLANKS + ";"):
        region.before = ""
        region.turn.warn(["stray_separator"])
    calls = _read(inner)
    region.after = inner.after
    return calls


def _read_code(region: Region) -> list[Found]:
    """What follows a tag and is no call: code, if there is an interpreter and it isn't JSON."""
    text = region.text
    turn = region.turn
    pos, _ = region.gap(0)
    char = text[pos : pos + 1]
    if not char:
        raise Fault("empty_call", at=pos)
    interpreter = turn.offer.interpreter
    whole = region.resume > 0 and not text[region.resume :].strip(BLANKS + ";")
    if char == "{" and (whole or (region.resume > 0 and interpreter is None)):
        raise Fault("malformed_call", at=pos)
    literal = _literal(region, pos) if char in "[{\"'-0123456789" else "no"
    if interpreter is not None and not (char == "[" and literal == "whole"):
        # The beginning of a list or an object is no code; a lone bracket says too little.
        if turn.cut or (char in "[{" and literal == "cut" and text[pos + 1 :].strip(BLANKS)):
            raise Fault("truncated", CUT_CODE, at=len(text))
        opening = fence_opening(text, pos) if char == "`" else None
        if opening is not None and (opening.closed or turn.stopped):
            turn.warn(["fenced"])
            text = text[opening.start : opening.end]
        return [Found(interpreter, {"code": text}, pos)]
    if char == "{" and text[pos + 1 :].lstrip(BLANKS)[:1] in ('"', "'", ""):
        raise region.fault or Fault("invalid_json", at=pos)
    if region.resume > 0 or (char != "{" and literal == "whole"):
        raise Fault("not_a_call", at=pos)
    raise Fault("code_interpreter_disabled", at=pos)


def _literal(region: Region, pos: int) -> Literal["whole", "cut", "no"]:
    """Whether the region holds one value and nothing else, or the beginning of one."""
    scanner = region.scanner(pos, python=True)
    try:
        scanner.value()
    except Fault as fault:
        return "cut" if fault.code == "truncated" else "no"
    scanner.peek()
    return "whole" if scanner.at_end else "no"


@dataclass(slots=True)
class Opening:
    """Where a fence's inside begins and ends, and whether the fence is closed."""

    start: int
    end: int
    closed: bool


def fence_opening(text: str, pos: int) -> Opening | None:
    """The one fence that is all of `text` from `pos` on; None if there is another line of fence."""
    if not text.startswith(FENCE, pos):
        return None
    end = len(text)
    while text[end - 1] in BLANKS:
        end -= 1
    closed = end >= pos + 2 * len(FENCE) and text.endswith(FENCE, pos, end)
    if closed:
        end -= len(FENCE)
    start = pos + len(FENCE)
    word = start
    while word < end and (text[word].isalnum() or text[word] in "_+-"):
        word += 1
    if text.startswith("{", word, end):
        start = word
    elif word < end and text[word] in BLANKS:
        start = word
        while start < end and text[start] in BLANKS:
            start += 1
            if text[start - 1] == "\n":
                break
    if text.find("\n" + FENCE, start, end) >= 0 or (closed and text[end - 1] == "`"):
        return None
    return Opening(start, end, closed)


def _read_fence(region: Region, pos: int) -> list[Found] | None:
    """Read a region that is nothing but a fence around calls."""
    opening = None if region.fenced else fence_opening(region.text, pos)
    if opening is None:
        return None
    inner = Region(region.turn, region.text[opening.start : opening.end], fenced=True)
    try:
        calls = _open(inner)
    except Fault as fault:
        fault.at += opening.start if fault.at >= 0 else 0
        raise
    if calls is None or inner.after:
        region.turn.warnings.clear()
        return None
    if not opening.closed and not region.turn.stopped:
        raise Fault("truncated", at=len(region.text))
    for call in calls:
        call.at += opening.start if call.at >= 0 else 0
    region.turn.warn(["fenced"])
    return calls


_BLANK = (" ", "\t", "\r", "\n")
_WAYS: dict[str, Callable[[Region, int], list[Found] | None]] = {
    "{": read_objects,
    "[": _read_any_list,
    "<": read_tags,
    "`": _read_fence,
}
