"""Keys and values of one sequence, in one block of memory that grows at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from corral.model_runtime.local.pages import empty_in_large_pages

if TYPE_CHECKING:
    import torch

__all__ = ["BLOCK", "LlamaCache"]

BLOCK: Final = 256
"""Capacity comes in blocks of so many positions. What is not written yet is zero."""

_GROWTH = 1.5


class LlamaCache:
    """The cache of a Llama model. Fulfils `KVCache`.

    The block has the shape (layers, 2, 1, heads, capacity, head size); 2 is keys and values.
    """

    __slots__ = ("_block", "_like", "length")

    def __init__(self, like: torch.Tensor) -> None:
        """An empty cache; `like` is a block of no capacity that gives shape, type and device."""
        self._like = like
        self._block = like
        self.length = 0

    @property
    def nbytes(self) -> int:
        """The memory of the block."""
        return self._block.nbytes

    @property
    def _capacity(self) -> int:
        return self._block.shape[4]

    def grow(self, n: int) -> Sequence[torch.Tensor]:
        """Make room for `n` more positions, which count from now on.

        Returns for each layer the room for keys and values, of shape (2, heads, n, head size).
        """
        begin, end = self.length, self.length + n
        if end > self._capacity:
            self._move(max(end, int(self._capacity * _GROWTH)))
        self.length = end
        return self._block[:, :, 0, :, begin:end].unbind(0)

    def first(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `n` positions of the capacity.

        Each is of shape (layers, heads, n, head size).
        """
        block = self._block[:, :, 0, :, :n]
        return block[:, 0], block[:, 1]

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        self.length = min(length, self.length)
        if self.length == 0:
            self._block = self._like

    def fork(self, length: int) -> LlamaCache:
        """Another cache of the first `length` positions, copied."""
        other = LlamaCache(self._like)
        other._block, other.length = self._block, length
        other._move(length)
        return other

    def _move(self, capacity: int) -> None:
        shape = list(self._block.shape)
        shape[4] = -(-capacity // BLOCK) * BLOCK
        block = empty_in_large_pages(self._block, shape)
        block[:, :, :, :, : self.length] = self._block[:, :, :, :, : self.length]
        block[:, :, :, :, self.length :] = 0
        self._block = block
