"""Key/value caches of earlier prompts: a prompt that begins like one is not computed again.

A conversation only grows at its end, and so does a guard's policy: nearly every prompt repeats one
that came before. A few caches are kept, the least recently used goes first. A cache belongs to one
generation at a time: `take` hands it over, `give` brings it back with what it has come to hold.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import DynamicCache

__all__ = ["CacheEntry", "PrefixCache"]


@dataclass(slots=True)
class CacheEntry:
    """A cache and the token ids that it holds, one position each."""

    ids: list[int]
    cache: DynamicCache


class PrefixCache:
    """The few caches last used. Safe to use from any thread."""

    def __init__(self, *, entries: int = 4) -> None:
        """Keep at most `entries` caches."""
        self._entries: list[CacheEntry] = []  # least recently used first
        self._limit = entries
        self._lock = threading.Lock()

    def take(self, ids: Sequence[int]) -> CacheEntry:
        """A cache that holds a true prefix of `ids`, or an empty one.

        One token is always left to compute, since its logits are what the caller is after. A
        longer conversation that only shares its opening with `ids` is left alone while there is
        room for another.
        """
        with self._lock:
            full = len(self._entries) >= self._limit
            best, shared = None, 0
            for entry in self._entries:
                common = _common_prefix(entry.ids, ids)
                if common > shared and (full or 2 * common >= len(entry.ids)):
                    best, shared = entry, common
            if best is None:
                return CacheEntry([], _new_cache())
            self._entries.remove(best)
        crop(best, min(shared, len(ids) - 1))
        return best

    def give(self, entry: CacheEntry) -> None:
        """Bring a cache back, for the prompts to come."""
        if entry.ids:
            with self._lock:
                self._entries.append(entry)
                del self._entries[: -self._limit]

    def clear(self) -> None:
        """Let all caches go."""
        with self._lock:
            self._entries.clear()


def crop(entry: CacheEntry, length: int) -> None:
    """Cut a cache down to its first `length` tokens."""
    surplus = len(entry.ids) - length
    if length == 0:
        entry.cache = _new_cache()
    elif surplus > 0:
        entry.cache.crop(-surplus)
    del entry.ids[length:]


def _new_cache() -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache()


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
