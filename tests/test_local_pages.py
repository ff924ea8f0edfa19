"""What a pass reads from end to end lies in large pages, where the system gives them."""

import ctypes
import mmap
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from corral.model_runtime.local.pages import (  # noqa: E402
    LargePages,
    _allocated,
    _without,
)

SIZE = 64 * 2**20


def large_pages_are_given() -> bool:
    """Whether this system gives them to who asks, and can move what is there (Linux 6.1)."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if sys.platform != "linux" or not setting.exists() or "[never]" in setting.read_text():
        return False
    page = torch.ones(2 * 2 * 2**20, dtype=torch.uint8)
    begin = -(-page.data_ptr() // 2**21) * 2**21
    return ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(2**21), 25) == 0


def in_large_pages() -> int:
    """Bytes of this process's anonymous memory that lie in large pages."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"AnonHugePages:\s+(\d+) kB", text)
    return 1024 * int(found[1]) if found else 0


@pytest.mark.skipif(not large_pages_are_given(), reason="the system gives no large pages here")
def test_what_is_allocated_inside_is_moved_and_stays_what_it_was():
    values = torch.randint(0, 255, (SIZE,), dtype=torch.uint8)
    before = in_large_pages()
    pages = LargePages()
    with pages.noting():  # memory that surely is new, where a clone could lie in what was freed
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        copy = torch.frombuffer(memory, dtype=torch.uint8).copy_(values)
    while pages.move_some():
        pass
    assert not pages.move_some()
    assert torch.equal(copy, values)
    assert in_large_pages() - before > SIZE // 2


def test_ranges_are_what_is_new():
    assert _without([(0, 10)], []) == [(0, 10)]
    assert _without([(0, 10)], [(0, 10)]) == []
    assert _without([(0, 10), (20, 30)], [(2, 4), (8, 22)]) == [(0, 2), (4, 8), (22, 30)]
    assert _without([(5, 9)], [(0, 7)]) == [(7, 9)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_tensor_is_found_among_what_is_allocated():
    values = torch.ones(SIZE, dtype=torch.uint8)
    whole = (values.data_ptr(), values.data_ptr() + SIZE)
    assert _without([whole], _allocated()) == []  # perhaps in pieces, of other kinds of pages
