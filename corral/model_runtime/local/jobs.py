"""One thing asked of a model, as the scheduler carries it from pass to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from corral.messages import StopReason
from corral.model_runtime.local.drawing import Reader
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.lookup import Lookup
from corral.model_runtime.local.prefixes import Prefix

if TYPE_CHECKING:
    import torch

__all__ = ["Ended", "Job", "Listener"]


_FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended."""

    reason: StopReason | None = None
    """Why it stopped writing; None where it wrote nothing, or failed."""
    error: Exception | None = None
    cached: int = 0
    """Of the prompt's tokens, those that were not computed again."""
    written: int = 0
    """Tokens written, the one that ended it counted in."""


Listener: TypeAlias = "Callable[[Sequence[int] | Ended], bool]"
"""Told of the tokens written and then of the end, in the model's thread. False if nobody hears."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A prompt and what is to be read behind it."""

    ids: Sequence[int]
    keys: Sequence[int]
    """The ids, but for an image's token something that tells the image from others."""
    reader: Reader
    listener: Listener
    stops: Mapping[int, StopReason] = field(default_factory=dict[int, StopReason])
    limit: int = 0
    images: Any = None
    lookup: Lookup | None = None
    cancelled: bool = False
    """Set by any thread: the job ends before the next pass."""

    prefix: Prefix | None = None
    todo: list[int] = field(default_factory=list[int])
    guessed: list[int] = field(default_factory=list[int])
    cached: int = 0
    written: int = 0

    number: int = 0
    """Its place among the scheduler's jobs, in the order in which they came."""
    leader: Job | None = None
    """One that came before and is reading the same beginning, for which this one waits."""
    shared: int = 0
    """How many tokens that beginning has."""

    @property
    def known(self) -> int:
        """How many tokens its cache holds."""
        return 0 if self.prefix is None else len(self.prefix.keys)

    @property
    def reading(self) -> bool:
        """Whether it has more of its prompt to read than a pass takes from all who write."""
        return self.prefix is None or len(self.todo) > _FEW

    def begin(self, prefix: Prefix) -> None:
        """Start behind a cache that holds a beginning of the prompt."""
        self.prefix = prefix
        self.cached = len(prefix.keys)
        self.todo = list(self.ids[self.cached :])

    def step(self, size: int, *, guess: bool) -> Step:
        """The next pass over at most `size` tokens, with guesses behind them if wanted."""
        assert self.prefix is not None
        ids = self.todo[:size]
        self.guessed = []
        if size < len(self.todo):
            return Step(cache=self.prefix.cache, ids=ids, images=self.images)
        if guess and self.lookup is not None and self.written:
            self.guessed = self.lookup.guess(self.limit - self.written - 1)
        return Step(
            cache=self.prefix.cache,
            ids=ids + self.guessed,
            wanted=1 + len(self.guessed),
            images=self.images,
        )

    def read(self, step: Step, logits: torch.Tensor) -> Ended | None:
        """Take what a pass computed; the end, if this was it."""
        assert self.prefix is not None
        before = len(self.prefix.keys)
        computed = len(step.ids) - len(self.guessed)
        # A prompt's keys are its own; behind it a token is its own key.
        known = self.keys[before : before + computed]
        self.prefix.keys += known
        self.prefix.keys += step.ids[len(known) :]
        self.todo = self.todo[computed:]
        if not step.wanted:
            return None
        right, ended = self._write(logits)
        if self.guessed:
            self.prefix.crop(before + computed + right)
            if self.lookup is not None:
                self.lookup.fared(len(self.guessed), right)
        return ended

    def _write(self, logits: torch.Tensor) -> tuple[int, Ended | None]:
        """Draw tokens for as long as the guesses hold. Returns how many of them did."""
        right = 0
        while True:
            tokens = self.reader(logits[right])
            if not tokens:
                return right, Ended(cached=self.cached)
            new, ended = self._end(tokens)
            if self.lookup is not None:
                self.lookup.add(new)
            heard = self.listener(new)
            if ended is not None:
                return right, ended
            if not heard:
                self.cancelled = True
            for at, token in enumerate(tokens):
                if right < len(self.guessed) and token == self.guessed[right]:
                    right += 1
                else:
                    self.todo = list(tokens[at:])
                    return right, None

    def _end(self, tokens: Sequence[int]) -> tuple[Sequence[int], Ended | None]:
        """The tokens up to one that ends it all, and that end."""
        for at, token in enumerate(tokens):
            self.written += 1
            reason = self.stops.get(token)
            if reason is not None:
                return tokens[:at], self._ended(reason)
            if self.written == self.limit:
                return tokens[: at + 1], self._ended("max_tokens")
        return tokens, None

    def _ended(self, reason: StopReason) -> Ended:
        return Ended(reason=reason, cached=self.cached, written=self.written)
