"""Follows calls while they are being written, to tell of them early.

It only counts brackets and passes over strings, so it is fast and easily deceived. Nothing depends
on it but what a front end shows before the message is whole.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from corral.model_runtime.parser.deltas import ArgumentsDelta, CallStarted, Delta
from corral.model_runtime.parser.offer import Offer

__all__ = ["Syntax", "Tracker"]

Syntax: TypeAlias = Literal["json", "pythonic", "tags"]

_ARGUMENTS = ("parameters", "arguments")
_FUNCTION = "<function="


class Tracker:
    """Follows one message.

    Args:
        syntax: How the message writes its calls.
        offer: What was offered; at a call of anything else it falls silent.

    Attributes:
        closed_at: Where, counted from the first character fed, the first bracket was closed; -1
            until then.
        started: The names of the calls told of so far.
    """

    def __init__(self, syntax: Syntax, offer: Offer) -> None:
        """See the class."""
        self.closed_at = -1
        self.started: list[str] = []
        self._syntax = syntax
        self._offer = offer
        self._silent = False
        self._fed = 0
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._level = {"json": -1, "pythonic": 1, "tags": 0}[syntax]
        """How many brackets are open around a call's own words; -1 until it can be told."""
        self._word: list[str] = []
        self._key = ""
        self._name = ""
        self._has_arguments = False
        self._inside = 0
        """How many brackets are open inside arguments that are being told; 0 outside."""
        self._from = 0
        self._out: list[Delta] = []

    def feed(self, chunk: str) -> list[Delta]:
        """Follow the next stretch of the message."""
        self._out = []
        self._from = 0
        pos, end = 0, len(chunk)
        while pos < end:
            if self._quote:
                pos = self._string(chunk, pos)
                continue
            char = chunk[pos]
            pos += 1
            if char in "\"'":
                self._quote = char
                if self._depth == self._level:
                    self._word = []
            elif char in "{[(":
                self._down(char, pos)
            elif char in ")]}":
                self._up(chunk, pos)
            elif self._depth <= self._level:
                self._outside(char)
        if self._inside:
            self._tell(chunk, end)
        self._fed += end
        return self._out

    def _string(self, chunk: str, pos: int) -> int:
        """Follow a string: where it ends, or the chunk does."""
        if self._escaped:
            self._escaped = False
            return pos + 1
        start = pos
        close = chunk.find(self._quote, pos)
        stop = close if close >= 0 else len(chunk)
        slash = chunk.find("\\", pos, stop)
        if slash >= 0:
            self._escaped = True
            stop = slash
        if self._depth == self._level and self._syntax == "json":
            self._word.append(chunk[start:stop])
        if slash < 0 and close >= 0:
            self._quote = ""
            self._end_word()
        return stop + 1

    def _end_word(self) -> None:
        """A string has ended at the level where keys and names stand."""
        if self._depth == self._level and self._syntax == "json" and self._key == "name":
            self._name = "".join(self._word)
            if self._has_arguments:
                self._start(self._name)

    def _outside(self, char: str) -> None:
        """A character of a call's own words."""
        if self._syntax != "json":
            if char == ",":
                self._word = []
            else:
                self._word.append(char)
        elif char == ":":
            self._key = "".join(self._word)
        elif char == ",":
            self._key = ""

    def _down(self, char: str, pos: int) -> None:
        if self._level < 0:
            self._level = 1 if char == "{" else 2
        at_level = self._depth == self._level
        self._depth += 1
        if not at_level:
            self._word = []
            return
        if self._syntax == "json":
            if self._key in _ARGUMENTS and char == "{":
                self._has_arguments = True
                if self._name:
                    self._start(self._name)
                    self._begin(pos - 1)
            elif self._key == "function" and char == "{":
                self._level += 1
        else:
            word = "".join(self._word).strip()
            name = word.rpartition(_FUNCTION)[2].rstrip("> ") if self._syntax == "tags" else word
            self._start(name)
            self._begin(pos - 1 if self._syntax == "tags" else pos)

    def _up(self, chunk: str, pos: int) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self.closed_at < 0:
            self.closed_at = self._fed + pos
        if self._inside and self._depth < self._inside:
            self._tell(chunk, pos - 1 if self._syntax == "pythonic" else pos)
            self._inside = 0
        if self._depth <= self._level:
            self._word = []
        if self._syntax == "json" and self._depth < self._level:
            # The call's object is closed: the next begins anew.
            self._key = self._name = ""
            self._has_arguments = False

    def _begin(self, pos: int) -> None:
        if not self._silent:
            self._inside = self._depth
            self._from = pos

    def _start(self, name: str) -> None:
        name = self._offer.resolve(name)[0]
        self._silent = self._silent or name not in self._offer.names
        if not self._silent:
            self._out.append(CallStarted(len(self.started), name))
            self.started.append(name)

    def _tell(self, chunk: str, end: int) -> None:
        if end > self._from:
            index = len(self.started) - 1
            self._out.append(ArgumentsDelta(index, chunk[self._from : end]))
        self._from = end
