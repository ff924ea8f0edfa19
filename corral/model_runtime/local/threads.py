"""How many threads a product is split over: as many as find a processor free.

Torch gives each of its threads a share of every product and waits for the last of them. On a
processor that another program is using too, that one gets its turn milliseconds later, hundreds of
times a token: beside one busy program, two processors are slower than one by a factor of ten. So
it is looked at now and then whether threads come back at once, and if not, fewer are used until
they do. How many there are changes no result, only the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Threads", "torch_threads"]

_PERIOD = 0.25
"""Seconds between looks, after one that changed something or found nothing to change."""
_LONGEST_PERIOD = 4.0
_LATE = 0.0005
"""Seconds that no small operation takes whose threads are all there: it takes some 30 us."""
_TRIES = 4
_TRIES_FOR_MORE = 8
_GRAIN = 32768
"""Torch splits an operation on vectors into shares of at least so many values."""


class Threads:
    """Chooses the number of threads from time to time. For the thread that computes."""

    def __init__(
        self,
        most: int,
        *,
        use: Callable[[int], None],
        seconds: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with all.

        Args:
            most: How many there may be.
            use: Makes so many of them compute from now on.
            seconds: Times one small operation that is split over so many, which `use` was told.
            clock: Seconds, of which only differences mean anything.
        """
        self.now = most
        self._most = most
        self._use = use
        self._seconds = seconds
        self._clock = clock
        self._period = _PERIOD
        self._next = clock()

    def adjust(self) -> None:
        """Take fewer where they come late, one more where they don't; mostly do nothing."""
        if self._most == 1 or self._clock() < self._next:
            return
        before = self.now
        while self.now > 1 and self._late():
            self._take(self.now - 1)
        if self.now == before < self._most:
            self._take(before + 1)
            if any(self._is_late() for _ in range(_TRIES_FOR_MORE)):
                self._take(before)
                self._period = min(2 * self._period, _LONGEST_PERIOD)
        if self.now != before:
            self._period = _PERIOD
        self._next = self._clock() + self._period

    def _take(self, count: int) -> None:
        self.now = count
        self._use(count)

    def _late(self) -> bool:
        """Whether the threads come late half the time: once may be chance."""
        return sum(self._is_late() for _ in range(_TRIES)) >= _TRIES / 2

    def _is_late(self) -> bool:
        return self._seconds(self.now) > _LATE


def torch_threads() -> Threads:
    """Torch's own threads, of the thread that calls."""
    import torch

    most = torch.get_num_threads()
    values: Any = torch.ones(most * _GRAIN)

    def seconds(count: int) -> float:
        part = values[: count * _GRAIN]
        began = time.perf_counter()
        part.mul_(1.0)
        return time.perf_counter() - began

    return Threads(most, use=torch.set_num_threads, seconds=seconds)
