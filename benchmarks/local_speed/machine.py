"""What this machine is, how fast it reads memory, and what this process holds."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PACKAGES = ("torch", "transformers", "llguidance", "llama-cpp-python")


def cores() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def describe(threads: int) -> str:
    """The lines that stand over all tables."""
    info = _text("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info)
    known = re.search(r"flags\s*:\s*(.+)", info)
    flags = [flag for flag in _FLAGS if known and flag in known[1].split()]
    total = re.search(r"MemTotal:\s+(\d+)", _text("/proc/meminfo"))
    versions: list[str] = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} {_version_inside(package) or 'not installed'}")
    memory = f", {int(total[1]) / 2**20:.0f} GiB" if total else ""
    return (
        f"{model[1] if model else platform.processor() or platform.machine()}, {cores()} "
        f"processors{memory}; {' '.join(flags) or 'flags unknown'}. {threads} threads for everyone."
        f"\n{'; '.join(versions)}; Python {platform.python_version()}."
    )


class Reader:
    """Reads a buffer, with all threads, as fast as this machine can: the limit of decoding.

    A token needs every weight once, so none can come faster than the weights can be read. Three
    readings that compute next to nothing are tried each time (a sum of whole numbers and the
    largest float by torch, the largest whole number by NumPy, a part to each thread); the fastest
    counts. The buffer lies in large pages if the system gives them. Torch keeps its threads, so it
    belongs into a process of its own.
    """

    def __init__(self, size: int, threads: int) -> None:
        import numpy as np
        import torch

        from corral.model_runtime.local.pages import empty_in_large_pages

        torch.set_num_threads(threads)
        self._size = size // 64 * 64
        like = torch.empty(0, dtype=torch.int64)
        whole = empty_in_large_pages(like, [self._size // 8]).fill_(1)
        floats = whole.view(torch.float32)
        parts = np.array_split(whole.numpy(), threads)
        pool = ThreadPoolExecutor(threads)
        self._readings: list[Callable[[], object]] = [
            whole.sum,
            floats.amax,
            lambda: list(pool.map(np.max, parts)),
        ]

    def measure(self) -> float:
        """Bytes a second."""
        best = 0.0
        for read in self._readings:
            for _ in range(2):
                began = time.perf_counter()
                read()
                best = max(best, self._size / (time.perf_counter() - began))
        return best


def resident() -> float:
    """MiB of memory that this process holds; not a number where the system doesn't say."""
    gc.collect()
    found = re.search(r"VmRSS:\s+(\d+)", _text("/proc/self/status"))
    return int(found[1]) / 1024 if found else float("nan")


def _version_inside(package: str) -> str | None:
    """The version of a package that lies on the path without having been installed."""
    if package != "llama-cpp-python":
        return None
    try:
        import llama_cpp
    except ImportError:
        return None
    return llama_cpp.__version__


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
