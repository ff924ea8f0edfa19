"""Large pages for large tensors, where the system gives them on request (Linux does).

A pass reads a session's keys and values from end to end. In pages of 4 KiB the processor spends as
long on finding them as on reading.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

__all__ = ["empty_in_large_pages"]

_PAGE: Final = 2 * 2**20


def empty_in_large_pages(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """A tensor of a shape, of the type and on the device of `like`, its numbers not yet set.

    Whether its memory comes in large pages is up to the system, which is asked for them and may
    refuse.
    """
    tensor = like.new_empty(shape)
    advise = _advise()
    if advise is not None and tensor.device.type == "cpu":
        begin = -(-tensor.data_ptr() // _PAGE) * _PAGE
        end = (tensor.data_ptr() + tensor.nbytes) // _PAGE * _PAGE
        if begin < end:
            advise(begin, end - begin, mmap.MADV_HUGEPAGE)
    return tensor


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
