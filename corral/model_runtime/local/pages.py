"""Large pages for large tensors, where the system gives them on request (Linux does).

A pass reads all weights, and a session's keys and values, from end to end. In pages of 4 KiB the
processor spends much of that time on finding them: of keys and values half, of 8-bit weights an
eighth at most.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import torch

__all__ = ["LargePages", "empty_in_large_pages"]

_PAGE: Final = 2 * 2**20
_AT_ONCE: Final = 4 * _PAGE
_LEAST: Final = 16 * 2**20
"""What is smaller is left alone: a thread's stack, of which a few pages are used."""
_COLLAPSE: Final = 25
"""MADV_COLLAPSE, of Linux 6.1: move what is there into large pages now. Older ones refuse it, and
move some of what they were advised of by and by."""
_MAPS: Final = Path("/proc/self/maps")

_Range: TypeAlias = tuple[int, int]


def empty_in_large_pages(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """A tensor of a shape, of the type and on the device of `like`, its numbers not yet set.

    Whether its memory comes in large pages is up to the system, which is asked for them and may
    refuse.
    """
    tensor = like.new_empty(shape)
    if tensor.device.type == "cpu":
        _ask_for((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes))
    return tensor


class LargePages:
    """Moves into large pages what libraries allocated and keep to themselves, such as weights.

    Moving takes two to three seconds for a GB, which nobody should have to wait for: `move_some` is
    called while there is nothing else to do.
    """

    def __init__(self) -> None:
        """Nothing to move yet."""
        self._left: list[_Range] = []

    @contextmanager
    def noting(self) -> Generator[None]:
        """Note what is allocated inside, and is still there at the end.

        What the allocator puts where something was freed before is not noted, and stays as it is.
        """
        before = _allocated()
        yield
        found = _without(_allocated(), before)
        self._left = [_whole(one) for one in found if one[1] - one[0] >= _LEAST]

    def move_some(self) -> bool:
        """Move 8 MB, in some twenty milliseconds. False if there was nothing left to move."""
        while self._left:
            begin, end = self._left.pop()
            if end - begin > _AT_ONCE:
                self._left.append((begin, end - _AT_ONCE))
                begin = end - _AT_ONCE
            # What was freed since is refused, and what was allocated there gains as well.
            if _ask_for((begin, end), now=True):
                return True
        return False


def _ask_for(memory: _Range, *, now: bool = False) -> bool:
    """Ask for large pages as far as whole ones fit; what is there already is moved if `now`.

    Returns whether one fits.
    """
    advise = _advise()
    begin, end = _whole(memory)
    if advise is None or begin >= end:
        return False
    advise(begin, end - begin, mmap.MADV_HUGEPAGE)
    if now:
        advise(begin, end - begin, _COLLAPSE)
    return True


def _whole(memory: _Range) -> _Range:
    """The large pages that lie in it from end to end."""
    return -(-memory[0] // _PAGE) * _PAGE, memory[1] // _PAGE * _PAGE


def _allocated() -> list[_Range]:
    """This process's memory that belongs to no file, in ascending order; none where unknown."""
    if _advise() is None:
        return []
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[_Range] = []
    for line in lines:
        where, rights, _, _, inode, *name = line.split(maxsplit=5)
        if inode == "0" and rights.startswith("rw") and (not name or name[0] == "[heap]"):
            begin, end = where.split("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def _without(ranges: list[_Range], taken: list[_Range]) -> list[_Range]:
    """What of `ranges` is in none of `taken`. All are in ascending order and don't overlap."""
    left: list[_Range] = []
    for begin, end in ranges:
        for other, last in taken:
            if last <= begin or other >= end:
                continue
            if other > begin:
                left.append((begin, other))
            begin = last
        if begin < end:
            left.append((begin, end))
    return left


@cache
def _advise() -> Any:
    """The C library's madvise; None where there is none or it knows no large pages."""
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
