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
        import torch

        self._cat: Any = torch.cat
        self._split: Any = torch.split
        self._heads = shape.heads
        self._kv = (2, shape.kv_heads, shape.head_size)
        self._sizes = [len(step.ids) for step in steps]
        self._rooms = [step.cache.grow(len(step.ids)) for step in steps]
        look = _exact if like.device.type == "cpu" else _fused
        self._looks = [look(step, shape, like) for step in steps]

    def __call__(self, layer: int, turned: torch.Tensor) -> torch.Tensor:
        """Look back in one layer.

        Takes queries, keys and values of shape (tokens, heads, head size), all heads side by side;
        gives shape (tokens, heads * head size).
        """
        results: list[torch.Tensor] = []
        parts = self._split(turned, self._sizes) if len(self._sizes) > 1 else (turned,)
        for part, room, look, n in zip(parts, self._rooms, self._looks, self._sizes, strict=True):
            new = part[:, self._heads :].view(n, *self._kv)
            room[layer].copy_(new.permute(1, 2, 0, 3))
            results.append(look(layer, part[:, : self._heads]))
        return results[0] if len(results) == 1 else self._cat(results)


def _exact(step: Step, shape: Shape, like: torch.Tensor) -> _Look:
    """Products of whole blocks of positions and of a multiple of four rows.

    Heads that share keys are rows of one product. Positions to come are masked; the sum over
    positions goes block by block, so that how many blocks follow doesn't change it.
    """
    import torch

    n, length = len(step.ids), step.cache.length
    heads, group, size = shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size
    blocks = range(BLOCK, length, BLOCK)
    keys, values = step.cache.first(-(-length // BLOCK) * BLOCK)
    rows = n * group
    missing = -rows % _ROWS
    mask = _mask(n, length, keys[0].shape[1], like).repeat_interleave(group, 0)
    if missing:
        mask = torch.cat([mask, mask[:1].expand(missing, -1)])
    scale = size**-0.5
    pad, add_product = torch.nn.functional.pad, torch.baddbmm

    def look(layer: int, queries: torch.Tensor) -> torch.Tensor:
        folded = queries.view(n, heads, group * size).transpose(0, 1).reshape(heads, rows, size)
        if missing:
            folded = pad(folded, (0, 0, 0, missing))
        scores = add_product(mask, folded, keys[layer].transpose(1, 2), alpha=scale)
        weights = scores.softmax(-1)
        seen = weights[:, :, :BLOCK].bmm(values[layer][:, :BLOCK])
        for begin in blocks:
            end = begin + BLOCK
            seen.baddbmm_(weights[:, :, begin:end], values[layer][:, begin:end])
        seen = seen[:, :rows].reshape(heads, n, group * size)
        return seen.transpose(0, 1).reshape(n, -1)

    return look


def _fused(step: Step, shape: Shape, like: torch.Tensor) -> _Look:
    """Torch's own attention."""
    import torch

    n, length = len(step.ids), step.cache.length
    keys, values = step.cache.first(length)
    mask = None if n in (1, length) else _mask(n, length, length, like)
    grouped = shape.heads != shape.kv_heads

    def look(layer: int, queries: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[layer][None],
            values[layer][None],
            attn_mask=mask,
            is_causal=mask is None and n > 1,
            enable_gqa=grouped,
        )
        return seen[0].transpose(0, 1).reshape(n, -1)

    return look


def _mask(n: int, length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Minus infinity where each of the last `n` of `length` positions may not look.

    Of shape (n, width).
    """
    return like.new_full((n, width), float("-inf")).triu_(length - n + 1)
