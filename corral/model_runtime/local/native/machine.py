"""Which of the kernels this machine can run, compiled for it, and the threads that run them.

The threads are torch's own: the library that it takes them from, OpenMP's by GNU, is asked to run a
function in all of them. So there are never two sets of threads that want the same processors.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from corral.model_runtime.local.native.code import Program
from corral.model_runtime.local.native.fields import FIELDS, PLACES
from corral.model_runtime.local.native.layer import (
    PRODUCTS,
    Heads,
    write_layer,
    write_products,
)
from corral.model_runtime.local.native.product import ISAS, Isa

__all__ = ["Arguments", "Code", "host_isa", "layer_for", "products_for", "threads_of_torch"]


class Arguments:
    """The fields that a function takes, in memory of their own."""

    def __init__(self) -> None:
        """All zero but for where the threads are."""
        self.raw: Any = (ctypes.c_int64 * len(FIELDS))()
        self.address = ctypes.addressof(self.raw)
        library = threads_of_torch()
        assert library is not None
        self.set(
            parallel=_address(library.GOMP_parallel),
            thread_number=_address(library.omp_get_thread_num),
        )

    def set(self, **values: int) -> None:
        """Set some of them."""
        for name, value in values.items():
            self.raw[PLACES[name]] = value

    @staticmethod
    def place(name: str) -> int:
        """Where a field is in `raw`."""
        return PLACES[name]

    @staticmethod
    def span(first: str, last: str) -> slice:
        """The places from one field to another, both included."""
        return slice(PLACES[first], PLACES[last] + 1)


class Code:
    """A program in machine code: its public functions, which take the address of `Arguments`."""

    def __init__(self, program: Program, isa: Isa, names: Iterable[str]) -> None:
        """Compile it, which takes some tenths of a second."""
        llvm = _llvm()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=_features(isa), opt=2
        )
        module = llvm.parse_assembly(str(program.module))
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        builder = llvm.create_pass_builder(target, options)
        builder.getModulePassManager().run(module, builder)
        self._kept: Any = llvm.create_mcjit_compiler(module, target)
        self._kept.finalize_object()
        self.addresses = {name: self._kept.get_function_address(name) for name in names}
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64)
        self.functions: dict[str, Any] = {
            name: kind(address) for name, address in self.addresses.items()
        }


@cache
def products_for(isa: str) -> Code:
    """The products for a kind of processor, compiled once."""
    return Code(write_products(ISAS[isa]), ISAS[isa], PRODUCTS)


@cache
def layer_for(isa: str, heads: Heads, *, adapted: bool = False) -> Code:
    """A layer for a kind of processor, compiled once."""
    program = write_layer(heads, products_for(isa).addresses, adapted=adapted)
    return Code(program, ISAS[isa], ["layer"])


@cache
def host_isa() -> str:
    """The best kind of processor that this one is, or nothing where it is none of them."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return ""
    try:
        llvm = _llvm()
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except (ImportError, OSError):
        return ""  # it isn't installed, or the system lets no program make code
    if threads_of_torch() is None:
        return ""
    has: dict[str, bool] = llvm.get_host_cpu_features()
    for isa in ISAS.values():
        if all(has.get(feature) for feature in isa.features):
            return isa.name
    return ""


@cache
def threads_of_torch() -> Any:
    """The library whose threads torch uses, if it is one that we can ask; else None."""
    import torch

    folder = Path(torch.__file__).parent
    for path in sorted([*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")]):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
        if hasattr(library, "GOMP_parallel") and hasattr(library, "omp_get_thread_num"):
            return library
    return None


def _llvm() -> Any:
    import llvmlite.binding as llvm  # pyright: ignore[reportMissingTypeStubs]

    return llvm


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _features(isa: Isa) -> str:
    """What the code may use: all that this processor has, or for a lesser kind only that one's."""
    has: Any = _llvm().get_host_cpu_features()
    if isa.lanes < 16:
        for name in has:
            if name.startswith(("avx512", "avxvnni", "avx10", "amx")) and name not in isa.features:
                has[name] = False
    return has.flatten()
