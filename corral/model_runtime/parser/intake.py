"""Takes output in whatever stretches it comes, and makes whole characters of it.

A server may cut its stream inside a character: as bytes in the middle of one, or as the two halves
(surrogates) that JSON writes for a character outside the basic plane. Half of a character waits
for the other; what stays half is replaced, since it could be neither stored nor sent.
"""

from __future__ import annotations

import codecs

__all__ = ["Intake"]

_HALVES = ("\ud800", "\udbff")
"""The first and the last of the first halves."""


class Intake:
    """The intake of one message.

    Attributes:
        broken: Whether a character stayed half, or bytes were no UTF-8.
    """

    def __init__(self) -> None:
        """See the class."""
        self.broken = False
        self.holds = False
        """Whether something waits for its other half, so that `flush` may give something."""
        self._half: str = ""
        self._decoder: codecs.IncrementalDecoder | None = None

    def text(self, stretch: str) -> str:
        """The whole characters that a stretch of text completes."""
        if stretch.isascii() and not self.holds:
            return stretch
        before = self._bytes(b"", final=True)
        stretch = self._half + stretch
        self._half = ""
        if stretch and _HALVES[0] <= stretch[-1] <= _HALVES[1]:
            self._half = stretch[-1]
            stretch = stretch[:-1]
        self.holds = bool(self._half)
        return before + self._storable(stretch)

    def data(self, stretch: bytes) -> str:
        """The whole characters that a stretch of UTF-8 completes."""
        before = self._storable(self._half)
        self._half = ""
        return before + self._bytes(stretch)

    def flush(self) -> str:
        """What is left at the end, or before a control token: replaced halves of characters."""
        if not self.holds:
            return ""
        left = self._bytes(b"", final=True) + self._storable(self._half)
        self._half = ""
        self.holds = False
        return left

    def _bytes(self, stretch: bytes, *, final: bool = False) -> str:
        if self._decoder is None:
            if final:
                return ""
            self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        text = self._decoder.decode(stretch, final)
        self.holds = bool(self._decoder.getstate()[0])
        return self._storable(text)

    def _storable(self, text: str) -> str:
        """Text with its pairs of halves joined, and what is left of halves replaced."""
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            units = text.encode("utf-16", "surrogatepass")
            try:
                text = units.decode("utf-16")
            except UnicodeDecodeError:
                text = units.decode("utf-16", "replace")
                self.broken = True
        return text
