"""A stretch of a message that is read by itself, and what all ways of reading it share."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from corral.messages import StopReason
from corral.model_runtime.parser.literals import BLANKS, Fault, Scanner, decode_json
from corral.model_runtime.parser.offer import Found, Offer, in_name

__all__ = ["PYTHON_TAG", "Region", "Turn"]

PYTHON_TAG = "<|python_tag|>"


@dataclass(slots=True)
class Turn:
    """What is the same for all regions of one message."""

    offer: Offer
    stop: StopReason
    warnings: dict[str, None] = field(default_factory=dict[str, None])
    """What had to be mended so far, in order."""
    tagged_at: int = -1
    """Where in the message the part behind a tag begins, if that is where its calls are."""
    answer: dict[str, JsonValue] | None = None
    """The object with which the message begins, if it was read and is no call."""
    max_calls: int = 16
    """How many calls the message may hold."""
    patient: bool = False
    """Whether the fast way of reading JSON failed once, so that it isn't tried again.

    Its errors count the lines before them, which would add up over a long message.
    """

    @property
    def stopped(self) -> bool:
        """Whether the model ended its message itself, so that a missing bracket is a slip."""
        return self.stop in ("end_of_turn", "end_of_message")

    @property
    def cut(self) -> bool:
        """Whether the message was cut short, so that more may have been coming."""
        return self.stop in ("max_tokens", "cancelled")

    def add(self, calls: list[Found], call: Found) -> None:
        """Add a call to those that were read.

        Raises:
            Fault: It is one too many. Reading on would only take time and room.
        """
        if len(calls) >= self.max_calls:
            raise self.too_many(call)
        calls.append(call)

    def too_many(self, call: Found) -> Fault:
        """The fault of there being one call more than the message may hold."""
        words = f"Make no more than {self.max_calls} calls in one message."
        return Fault("too_many_calls", words, at=call.at)

    def warn(self, codes: Iterable[str]) -> None:
        """Note what had to be mended."""
        for code in codes:
            self.warnings[code] = None


class Region:
    """A stretch of the message.

    Args:
        turn: The message that it is of.
        text: Its text, with the name of each `<|python_tag|>` token standing for the token.
        tags: Where in `text` those names stand, in order.
        tagged: Whether a tag stands before the region, so that nothing but calls is due.
        fenced: Whether it is what a fence of backquotes holds.
    """

    def __init__(
        self,
        turn: Turn,
        text: str,
        tags: Sequence[int] = (),
        *,
        tagged: bool = False,
        fenced: bool = False,
    ) -> None:
        """See the class."""
        self.turn = turn
        self.text = text
        self.tags = tags
        self.tagged = tagged
        self.fenced = fenced
        self.before = ""
        """The prose before the calls."""
        self.after = ""
        """The prose after them."""
        self.resume = 0
        """How far the text is known to be no call, though it looked like one."""
        self.fault: Fault | None = None
        """Why what may have been a call could not be read."""
        self._scanner: Scanner | None = None
        self._quotes: bool | None = None

    @property
    def quotes_a_name(self) -> bool:
        """Whether the name of an offered tool stands in the text between double quotes."""
        if self._quotes is None:
            self._quotes = any(f'"{name}"' in self.text for name in self.turn.offer.names)
        return self._quotes

    def scanner(self, pos: int, *, python: bool) -> Scanner:
        """The region's scanner, moved to `pos`, with nothing noted."""
        scanner = self._scanner
        if scanner is None:
            scanner = self._scanner = Scanner(self.text)
        scanner.pos = pos
        scanner.python = python
        scanner.warnings = {}
        scanner.fault = None
        return scanner

    def decode(self, pos: int) -> tuple[JsonValue, int] | None:
        """Read JSON the fast way, if that has not failed yet: the value and where it ends."""
        if self.turn.patient:
            return None
        fast = decode_json(self.text, pos)
        self.turn.patient = fast is None
        return fast

    def settle(self, scanner: Scanner, name: str) -> None:
        """Take over what a scanner noted, now that it is known to have read a call of `name`."""
        if scanner.fault is not None:
            scanner.fault.words = scanner.fault.words or f"In the call of {name!r}:"
            raise scanner.fault
        self.turn.warn(scanner.warnings)

    def gap(self, pos: int, *, tags: bool = True) -> tuple[int, list[str]]:
        """Pass over what may separate calls: where it ends, and what is wrong with it."""
        text = self.text
        codes: list[str] = []
        semicolons = 0
        while True:
            char = text[pos : pos + 1]
            if char and char in BLANKS:
                pos += 1
            elif char == ";":
                semicolons += 1
                pos += 1
            elif char == ",":
                codes.append("comma_separator")
                pos += 1
            elif char == "<" and tags and self._tag_at(pos):
                codes.append("repeated_python_tag")
                pos += len(PYTHON_TAG)
            else:
                break
        if semicolons > 1:
            codes.append("stray_separator")
        return pos, codes

    def _tag_at(self, pos: int) -> bool:
        index = bisect_left(self.tags, pos)
        return index < len(self.tags) and self.tags[index] == pos

    def finish(self, end: int, opener: str = "") -> None:
        """After the last call, which ends at `end`: prose, a separator too many, or nothing.

        Raises:
            Fault: The message was cut where another call, which begins with `opener`, was due.
        """
        if end == len(self.text):
            return
        pos, codes = self.gap(end)
        if pos < len(self.text):
            if self.turn.cut and opener and self._begins(pos, opener):
                raise Fault("truncated", at=len(self.text))
            self.turn.warn(["trailing_text"])
            self.after = self.text[end:].strip()
        elif codes or ";" in self.text[end:]:
            if self.turn.cut:
                raise Fault("truncated", at=len(self.text))
            self.turn.warn(codes or ["stray_separator"])

    def _begins(self, pos: int, opener: str) -> bool:
        """Whether all that is left is the beginning of something that begins with `opener`."""
        rest = self.text[pos : pos + len(opener)]
        if rest != opener:
            return opener.startswith(self.text[pos:])
        return all(in_name(char) for char in self.text[pos + len(opener) :].strip())
