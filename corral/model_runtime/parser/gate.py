"""Decides, character by character, how much of a message may leave before its end.

What can't be part of a call leaves at once; what may be one is held. The gate knows less than the
reader, who sees the whole message, and never more: it lets go only of what the reader will call
text whatever follows.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, TypeAlias, cast

from corral.model_runtime.parser.deltas import Delta, TextDelta
from corral.model_runtime.parser.functags import FUNCTION
from corral.model_runtime.parser.literals import BLANKS
from corral.model_runtime.parser.offer import Offer, in_name
from corral.model_runtime.parser.reader import FENCE, is_prose
from corral.model_runtime.parser.region import PYTHON_TAG, Turn
from corral.model_runtime.parser.tracker import Syntax, Tracker

__all__ = ["Gate"]

_Verdict: TypeAlias = Literal["text", "hold", "json", "pythonic", "tags"]
"""What a message begins with: text, perhaps a call, or a call in one of three syntaxes."""

_Decision: TypeAlias = Generator[None, str, _Verdict]
"""Is sent a message's characters one by one, and returns as soon as it can tell."""

_KEYS = ("name", "type", "function", "parameters", "arguments")


class Gate:
    """The gate of one message.

    Args:
        offer: What was offered; nothing, and all leaves at once.
    """

    def __init__(self, offer: Offer) -> None:
        """See the class."""
        self.released: list[str] = []
        """The text that has left."""
        self.started: list[str] = []
        """The names of the calls told of."""
        self._offer = offer
        self._off = not offer
        self._open = self._off
        self._held: list[str] = []
        self._tagged = False
        self._decision: _Decision | None = None
        self._tracker: Tracker | None = None
        self._may_close = False

    def text(self, text: str) -> list[Delta]:
        """Take plain text: what may leave now."""
        if not text:
            return []
        if self._open:
            return self._release(text)
        self._held.append(text)
        if self._tracker is not None:
            deltas = self._tracker.feed(text)
        else:
            deltas = self._decide(text)
        if self._may_close and self._tracker is not None and self._tracker.closed_at >= 0:
            return self._close(self._tracker.closed_at, deltas)
        return deltas

    def tag(self) -> list[Delta]:
        """Take a `<|python_tag|>` token."""
        if self._off or self._tagged or self._tracker is not None or self._holds:
            return self.text(PYTHON_TAG)
        # Prose, or what can't be told from it yet, stands before the tag: calls are due now.
        self._open = False
        self._tagged = True
        self._held = []
        self._decision = None
        return []

    @property
    def _holds(self) -> bool:
        return not self._open and self._decision is None and bool(self._held)

    def _release(self, text: str) -> list[Delta]:
        self.released.append(text)
        return [TextDelta(text)]

    def _decide(self, text: str) -> list[Delta]:
        """Follow the beginning of the message until it is plain what it is."""
        if self._decision is None:
            if len(self._held) > 1:
                return []  # Decided: this is held until the end.
            self._decision = _decide(self._offer)
            next(self._decision)
        try:
            for char in text:
                self._decision.send(char)
        except StopIteration as done:
            self._decision = None
            return self._judge(cast(_Verdict, done.value))
        return []

    def _judge(self, verdict: _Verdict) -> list[Delta]:
        held = "".join(self._held)
        self._held = [held]
        if verdict == "text":
            if self._tagged:
                return []
            self._open = True
            self._held = []
            return self._release(held)
        if verdict == "hold":
            return []
        syntax: Syntax = verdict
        self._tracker = Tracker(syntax, self._offer)
        self.started = self._tracker.started
        self._may_close = verdict == "json" and not self._tagged
        return self._tracker.feed(held)

    def _close(self, end: int, deltas: list[Delta]) -> list[Delta]:
        """The first object is closed: if it is no call, then all the rest is prose."""
        self._may_close = False
        held = "".join(self._held)
        self._held = [held]
        if not is_prose(Turn(self._offer, "unknown"), held[:end]):
            return deltas
        self._open = True
        self._tracker = None
        self._held = []
        return [*deltas, *self._release(held)]


def _decide(offer: Offer, *, fenced: bool = False) -> _Decision:
    char = yield
    while char in BLANKS or char == ";":
        char = yield
    if char == "{":
        return (yield from _decide_object(whole=True))
    if char == "[":
        return (yield from _decide_list(offer))
    if char == "<":
        for expected in FUNCTION[1:]:
            if (yield) != expected:
                return "text"
        return "tags"
    if char == "`":
        return "text" if fenced else (yield from _decide_fence(offer))
    return (yield from _decide_name(offer, char))


def _blanks() -> Generator[None, str, str]:
    char = yield
    while char in BLANKS:
        char = yield
    return char


def _decide_object(*, whole: bool) -> _Decision:
    char = yield from _blanks()
    if char in "\"'" or (char == "}" and not whole):
        return "json"
    word = ""
    while (char.isalnum() if word else char.isalpha()) or (word and char == "_"):
        word += char
        if not any(key.startswith(word) for key in _KEYS):
            return "text"
        char = yield
    return "hold" if word in _KEYS and char == ":" else "text"


def _decide_list(offer: Offer) -> _Decision:
    char = yield from _blanks()
    if char == "{":
        return (yield from _decide_object(whole=False))
    if not (char.isalnum() or char == "_"):
        return "text"
    name: list[str] = []
    while in_name(char):
        name.append(char)
        char = yield
    known = offer.resolve("".join(name))[0] in offer.names
    while known and char in BLANKS:
        char = yield
    if not name or char != "(":
        return "text"
    if known:
        return "pythonic"
    char = yield from _blanks()
    return "pythonic" if char == ")" or char.isalpha() or char == "_" else "text"


def _decide_fence(offer: Offer) -> _Decision:
    for expected in FENCE[1:]:
        if (yield) != expected:
            return "text"
    word: list[str] = []
    char = yield
    while char.isalnum() or char in "_+-":
        word.append(char)
        char = yield
    inner = _decide(offer, fenced=True)
    next(inner)
    try:
        if char not in BLANKS and char != "{":
            for each in word:
                inner.send(each)
        while True:
            inner.send(char)
            char = yield
    except StopIteration as done:
        return "text" if done.value == "text" else "hold"


def _decide_name(offer: Offer, char: str) -> _Decision:
    if not (char.isalnum() or char == "_"):
        return "text"
    word = ""
    while in_name(char):
        word += char
        if not any(
            name.startswith(word) or f"{name}.call".startswith(word) for name in offer.names
        ):
            return "text"
        char = yield
    known = offer.resolve(word)[0] in offer.names
    return "hold" if known and char == "(" else "text"
