"""From logits to what is made of them: the next tokens, or probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from corral.errors import ModelError
from corral.model_runtime.runtime import Sampling

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.grammar import Matcher

__all__ = ["Draw", "Likeliest", "Probabilities", "Reader"]

_COLDEST = 1e-6
"""Below it a draw is the likeliest token, and numbers would overflow."""
_SEEDS = 1 << 64


class Reader(Protocol):
    """Makes the next tokens of one position's logits; none when it has read what it wanted."""

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        """Read logits of shape (vocabulary,), float32."""
        ...


class Draw:
    """Draws the next token from logits, greedily or at random, and adds what must follow it."""

    def __init__(self, sampling: Sampling, matcher: Matcher | None = None) -> None:
        """Draw by `sampling`, of what `matcher` allows."""
        self._sampling = sampling
        self._matcher = matcher
        self._generator: torch.Generator | None = None

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        """The next token, and those that can only follow it."""
        if self._matcher is None:
            return [self._draw(logits)]
        if self._matcher.done:
            return [self._matcher.end]
        token = self._draw(logits)
        self._matcher.advance(token)
        return [token, *self._matcher.forced()]

    def _draw(self, logits: torch.Tensor) -> int:
        import torch

        # One sum instead of a look at each: it is not finite if any of them isn't.
        if not math.isfinite(float(_quick(logits).sum())):
            raise ModelError(
                "The model produced numbers that are not finite. Its weights are damaged, or "
                "their precision is too low here."
            )
        if self._matcher is not None:
            logits = self._matcher.mask(logits)
        if self._sampling.temperature < _COLDEST:
            return int(_quick(logits).argmax())
        if self._generator is None:
            self._generator = torch.Generator()
            if self._sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._sampling.seed % _SEEDS)
        probabilities = torch.softmax(logits.cpu() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            beyond = ordered.cumsum(0) - ordered >= self._sampling.top_p
            beyond[0] = False  # one is left to draw, however small the share
            probabilities[order[beyond]] = 0
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _quick(logits: torch.Tensor) -> Any:
    """The same numbers as numpy's on a CPU, where it adds up and compares many times as fast."""
    return logits.numpy() if logits.device.type == "cpu" else logits


class Probabilities:
    """Reads the probabilities of a few tokens from logits."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """Of these tokens."""
        self._tokens = list(tokens)
        self.found: list[float] = []

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        """Read them; nothing is to follow."""
        import torch

        picked = torch.softmax(logits, dim=-1)[self._tokens]
        self.found = [float(p) for p in picked]
        if not all(math.isfinite(p) for p in self.found):
            raise ModelError("The model gave no probabilities: its weights are damaged.")
        return ()


class Likeliest:
    """Reads the likeliest tokens from logits."""

    def __init__(self, n: int) -> None:
        """The `n` likeliest."""
        self._n = n
        self.found: list[tuple[int, float]] = []

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        """Read them; nothing is to follow."""
        import torch

        top = torch.softmax(logits, dim=-1).topk(self._n)
        self.found = [
            (int(token), float(p)) for p, token in zip(top.values, top.indices, strict=True)
        ]
        return ()
