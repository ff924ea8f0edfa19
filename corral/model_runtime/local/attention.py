"""Attention of many sequences at once, each over its own cache.

On a CPU it is written out as products of fixed shapes, so that a token's numbers are the same to
the last bit whether it comes alone, in a stretch of its prompt or among other sessions' tokens.
In int8 nothing less would do: a difference in the last bit turns one rounding, and a few layers on
the output is another. On other devices torch's own attention is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.kv import BLOCK

if TYPE_CHECKING:
    import torch

__all__ = ["Attention", "Shape"]

_ROWS = 4
"""Products of a multiple of so many rows give each row the same bits; fewer take another way."""

_Look: TypeAlias = "Callable[[int, torch.Tensor], torch.Tensor]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers that a Llama model is made of."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    context_length: int
    epsilon: float


class Attention:
    """Attention of one pass: appends keys and values to the caches and looks back over each."""

    def __init__(self, steps: Sequence[Step], shape: Shape, like: torch.Tensor) -> None:
        """Make room in the caches of `steps`, whose rows will be of the type of `like`."""
        exact = like.device.type == "cpu"
        singles: list[Step] = []
        rows: list[int] = []
        self._others: list[tuple[slice, _Look]] = []
        begin = 0
        for step in steps:
            n = len(step.ids)
            if exact and n == 1:
                singles.append(step)
                rows.append(begin)
            else:
                look = (_exact if exact else _fused)(step, shape, like)
                self._others.append((slice(begin, begin + n), look))
            begin += n
        self._rows = rows
        self._singles = _Singles(singles, shape, like) if singles else None
        self._width = shape.heads * shape.head_size

    def __call__(self, layer: int, turned: torch.Tensor) -> torch.Tensor:
        """Look back in one layer.

        Takes queries, keys and values of shape (tokens, heads, head size), all heads side by side;
        gives shape (tokens, heads * head size).
        """
        if self._singles is not None and not self._others:
            return self._singles(layer, turned)
        if self._singles is None and len(self._others) == 1:
            return self._others[0][1](layer, turned)
        seen = turned.new_empty((turned.shape[0], self._width))
        if self._singles is not None:
            seen[self._rows] = self._singles(layer, turned[self._rows])
        for rows, look in self._others:
            seen[rows] = look(layer, turned[rows])
        return seen


class _Past:
    """What an exact look goes over: one cache in whole blocks, the new positions' room included."""

    def __init__(self, step: Step, shape: Shape, like: torch.Tensor) -> None:
        import torch

        self._split: Any = torch.split
        n = len(step.ids)
        self.room = step.cache.grow(n)
        length = step.cache.length
        whole = -(-length // BLOCK) * BLOCK
        keys, values = step.cache.first(whole)
        self.keys = keys.transpose(2, 3).unbind(0)
        self.values = [block.unbind(0) for block in values.split(BLOCK, 2)]
        mask = _mask(n, length, whole, like).repeat_interleave(shape.heads // shape.kv_heads, 0)
        missing = -len(mask) % _ROWS
        self.mask = mask.new_zeros((len(mask) + missing, whole))
        self.mask[: len(mask)] = mask
        self._scale = shape.head_size**-0.5

    def look(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """Look back from queries of shape (key heads, rows, head size), a multiple of four rows.

        Positions to come are masked. The sum over positions goes block by block, so that how many
        blocks follow doesn't change it.
        """
        scores = self.mask.baddbmm(queries, self.keys[layer], alpha=self._scale)
        weights = scores.softmax(-1)
        if len(self.values) == 1:
            return weights.bmm(self.values[0][layer])
        parts: Sequence[torch.Tensor] = self._split(weights, BLOCK, -1)
        seen = parts[0].bmm(self.values[0][layer])
        for part, values in zip(parts[1:], self.values[1:], strict=True):
            seen.baddbmm_(part, values[layer])
        return seen


class _Singles:
    """The exact look of sequences that come with one token each, side by side."""

    def __init__(self, steps: Sequence[Step], shape: Shape, like: torch.Tensor) -> None:
        import torch

        self._torch: Any = torch
        self._pasts = [_Past(step, shape, like) for step in steps]
        self._heads, self._kv_heads, self._size = shape.heads, shape.kv_heads, shape.head_size
        self._group = shape.heads // shape.kv_heads
        self._missing = -self._group % _ROWS

    def __call__(self, layer: int, turned: torch.Tensor) -> torch.Tensor:
        n, kv_heads, size = turned.shape[0], self._kv_heads, self._size
        new = turned[:, self._heads :].view(n, 2, kv_heads, 1, size)
        queries = turned[:, : self._heads].view(n, kv_heads, self._group, size)
        if self._missing:
            queries = self._torch.nn.functional.pad(queries, (0, 0, 0, self._missing))
        results: list[torch.Tensor] = []
        for past, each, query in zip(self._pasts, new, queries, strict=True):
            past.room[layer].copy_(each)
            results.append(past.look(layer, query))
        seen = results[0][None] if n == 1 else self._torch.stack(results)
        return seen[:, :, : self._group].reshape(n, self._heads * size)


def _exact(step: Step, shape: Shape, like: torch.Tensor) -> _Look:
    """The exact look of a stretch of tokens. Heads that share keys are rows of one product."""
    import torch

    past = _Past(step, shape, like)
    n = len(step.ids)
    heads, kv_heads, size = shape.heads, shape.kv_heads, shape.head_size
    group = heads // kv_heads
    rows = n * group
    padding = (0, 0, 0, -rows % _ROWS)
    pad: Any = torch.nn.functional.pad

    def look(layer: int, turned: torch.Tensor) -> torch.Tensor:
        new = turned[:, heads:].view(n, 2, kv_heads, size)
        past.room[layer].copy_(new.permute(1, 2, 0, 3))
        folded = turned[:, :heads].view(n, kv_heads, group * size).transpose(0, 1)
        folded = pad(folded.reshape(kv_heads, rows, size), padding)
        seen = past.look(layer, folded)[:, :rows].reshape(kv_heads, n, group * size)
        return seen.transpose(0, 1).reshape(n, heads * size)

    return look


def _fused(step: Step, shape: Shape, like: torch.Tensor) -> _Look:
    """Torch's own attention."""
    import torch

    n = len(step.ids)
    room = step.cache.grow(n)
    length = step.cache.length
    keys, values = step.cache.first(length)
    mask = None if n in (1, length) else _mask(n, length, length, like)
    heads, kv_heads = shape.heads, shape.kv_heads

    def look(layer: int, turned: torch.Tensor) -> torch.Tensor:
        new = turned[:, heads:].view(n, 2, kv_heads, shape.head_size)
        room[layer].copy_(new.permute(1, 2, 0, 3))
        queries = turned[:, :heads]
        seen = torch.nn.functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[layer][None],
            values[layer][None],
            attn_mask=mask,
            is_causal=mask is None and n > 1,
            enable_gqa=heads != kv_heads,
        )
        return seen[0].transpose(0, 1).reshape(n, -1)

    return look


def _mask(n: int, length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Minus infinity where each of the last `n` of `length` positions may not look.

    Of shape (n, width).
    """
    return like.new_full((n, width), float("-inf")).triu_(length - n + 1)
