"""Caches of earlier prompts: a prompt that begins like one is not computed again.

A conversation only grows at its end, and so does a guard's policy: nearly every prompt repeats one
that came before. Caches are kept up to a number of bytes, the least recently used goes first.
One that a prompt continues is handed over as it is; one that goes on in another way is copied as
far as the two agree, also while somebody is writing to it, since what is written stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from corral.model_runtime.local.engine import KVCache

__all__ = ["Prefix", "Prefixes", "common_length"]

_CROPPED_SHARE = 0.25
_CROPPED_TOKENS = 32
"""An end so short, or so small a share of a cache, is cut off rather than kept in a copy."""


@dataclass(slots=True, eq=False)
class Prefix:
    """A cache and the keys of its tokens: their ids, and for an image what tells it apart."""

    cache: KVCache
    keys: list[int] = field(default_factory=list[int])
    lent: bool = True

    def crop(self, length: int) -> None:
        """Cut it down to its first `length` tokens."""
        self.cache.crop(length)
        del self.keys[length:]


class Prefixes:
    """The caches last used. For one thread at a time."""

    def __init__(self, new_cache: Callable[[], KVCache]) -> None:
        """Keep caches that `new_cache` makes."""
        self._new_cache = new_cache
        self._held: list[Prefix] = []  # least recently used first

    @property
    def nbytes(self) -> int:
        """The memory of all caches, those in use counted in."""
        return sum(prefix.cache.nbytes for prefix in self._held)

    def take(self, keys: Sequence[int]) -> Prefix:
        """A cache of the longest beginning of `keys` that is known; give it back when done.

        At least one token is left to compute, since its logits are what the caller is after.
        """
        best, shared = self._longest(keys)
        if best is None or shared <= 0:
            taken = Prefix(self._new_cache())
        elif best.lent or _worth_keeping(len(best.keys) - shared, len(best.keys)):
            taken = Prefix(best.cache.fork(shared), list(best.keys[:shared]))
        else:
            self._held.remove(best)
            best.crop(shared)
            best.lent = True
            taken = best
        self._held.append(taken)
        return taken

    def known(self, keys: Sequence[int]) -> int:
        """How much of `keys` a cache would hold that was taken for them now."""
        return self._longest(keys)[1]

    def give(self, prefix: Prefix, *, budget: int) -> None:
        """Bring a cache back, for the prompts to come, and keep what fits into `budget` bytes.

        Those in use count, and are kept whatever they take.
        """
        prefix.lent = False
        self._held.remove(prefix)
        if prefix.keys:
            self._held.append(prefix)
        self._evict(budget)

    def drop(self, prefix: Prefix) -> None:
        """Let a cache go that is of no use any more."""
        self._held.remove(prefix)

    def _longest(self, keys: Sequence[int]) -> tuple[Prefix | None, int]:
        best, shared = None, 0
        for prefix in reversed(self._held):
            length = common_length(prefix.keys, keys)
            if length > shared:
                best, shared = prefix, length
        return best, min(shared, len(keys) - 1)

    def _evict(self, budget: int) -> None:
        for prefix in list(self._held):
            if self.nbytes <= budget:
                break
            if not prefix.lent:
                self._held.remove(prefix)
                prefix.cache.crop(0)  # What others share with it is theirs alone from now on.


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How far two sequences agree, by halving: comparing slices is much faster than items."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _worth_keeping(rest: int, length: int) -> bool:
    return rest > _CROPPED_TOKENS and rest > _CROPPED_SHARE * length
