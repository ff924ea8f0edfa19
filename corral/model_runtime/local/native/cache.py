"""Keys and values in blocks of 64 positions, which caches that begin alike share.

A copy takes over what is full as it is, and copies a part of one block; growing moves nothing. A
block that two caches hold is written by neither: the one that has to takes a copy first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from corral.model_runtime.local.pages import empty_in_large_pages

if TYPE_CHECKING:
    import torch

__all__ = ["PAGE", "Blocks", "PagedCache"]

PAGE: Final = 64
"""Positions of a block."""

_SLAB = 16 * 2**20
"""Bytes that are asked of the system at once."""


class _Block:
    """The keys and values of some positions in all layers, and how many caches hold them.

    Of shape (layers, 2, key heads, positions, head size).
    """

    __slots__ = ("tensor", "users")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.users = 1


class Blocks:
    """Where a model's caches take their blocks from, and bring them back."""

    def __init__(self, *, layers: int, key_heads: int, size: int) -> None:
        """Take nothing yet. The numbers are the model's."""
        self._shape = (layers, 2, key_heads, PAGE, size)
        self.nbytes = layers * 2 * key_heads * PAGE * size * 4
        self._free: list[Any] = []

    def take(self) -> _Block:
        """One whose numbers are not set."""
        import torch

        if not self._free:
            count = max(1, _SLAB // self.nbytes)
            with torch.inference_mode(False):  # so that it may be written outside of that as well
                slab = empty_in_large_pages(torch.empty(0), [count, *self._shape])
            self._free.extend(slab.unbind(0))
        return _Block(self._free.pop())

    def bring(self, block: _Block) -> None:
        """One cache less holds this one."""
        block.users -= 1
        if block.users == 0:
            self._free.append(block.tensor)


class PagedCache:
    """The cache of one sequence. Fulfils `KVCache`."""

    __slots__ = ("_held", "_pool", "length")

    def __init__(self, pool: Blocks) -> None:
        """An empty one."""
        self._pool = pool
        self._held: list[_Block] = []
        self.length = 0

    @property
    def nbytes(self) -> int:
        """The memory of its blocks; of those that it shares, its share."""
        return int(sum(self._pool.nbytes / block.users for block in self._held))

    def reserve(self, n: int) -> list[int]:
        """Make room for `n` more positions, which count from now on; the blocks' addresses."""
        first, self.length = self.length // PAGE, self.length + n
        for at in range(first, len(self._held)):
            if self._held[at].users > 1:
                self._held[at] = self._copied(self._held[at])
        while len(self._held) * PAGE < self.length:
            self._held.append(self._pool.take())
        return [block.tensor.data_ptr() for block in self._held]

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        self.length = min(length, self.length)
        while len(self._held) > -(-self.length // PAGE):
            self._pool.bring(self._held.pop())

    def fork(self, length: int) -> PagedCache:
        """Another cache of the first `length` positions."""
        other = PagedCache(self._pool)
        other.length = length
        whole = length // PAGE
        for block in self._held[:whole]:
            block.users += 1
            other._held.append(block)
        if length % PAGE:
            last = self._pool.take()
            last.tensor[..., : length % PAGE, :] = self._held[whole].tensor[..., : length % PAGE, :]
            other._held.append(last)
        return other

    def _copied(self, block: _Block) -> _Block:
        own = self._pool.take()
        own.tensor.copy_(block.tensor)
        self._pool.bring(block)
        return own

    def __del__(self) -> None:
        self.crop(0)
