"""The product as a kernel among others: rows of 32-bit reals in and out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from corral.model_runtime.local.native.machine import Arguments, products_for
from corral.model_runtime.local.native.product import ISAS, Packed, pack
from corral.model_runtime.local.native.rows import ADDED, BLOCK

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.local.kernels import Quantised

__all__ = ["NativeLinear", "Rounded"]


class Rounded:
    """Memory for rounded rows, which grows to what a pass needs and stays."""

    def __init__(self) -> None:
        """None yet."""
        import torch

        self._rows = self._width = 0
        self._single_targets = torch.tensor([0, ADDED])

    def reserve(self, arguments: Arguments, rows: int, width: int) -> None:
        """See that so many rows of at most that width fit; where they go is said when it changes.

        A `Rounded` belongs to one `Arguments`.
        """
        import torch

        if rows > self._rows or width > self._width:
            rows, width = max(rows, self._rows), max(width, self._width)
            whole = -(-rows // BLOCK) * BLOCK
            self._rows, self._width = whole, width
            self._bytes = torch.empty(2, whole * width, dtype=torch.int8)
            self._reals = torch.empty(2, whole)
            self._targets = torch.stack([torch.arange(whole), torch.zeros(whole, dtype=torch.long)])
            arguments.set(
                rounded=self._bytes[0].data_ptr(),
                finer=self._bytes[1].data_ptr(),
                scales=self._reals[0].data_ptr(),
                finer_scales=self._reals[1].data_ptr(),
                targets=self._targets[0].data_ptr(),
                single_targets=self._single_targets.data_ptr(),
                finer_targets=self._targets[1].data_ptr(),
            )


class NativeLinear:
    """`x @ weight.T`; see `kernels.Linear`. A pass as a whole takes `packed` instead."""

    def __init__(self, weight: Quantised, isa: str) -> None:
        """Lay out a weight whose rows are a multiple of `MULTIPLE` long."""
        self.isa = isa
        self.packed: Packed = pack(weight, ISAS[isa])
        self._stride = self.packed.corrections.numel()
        self._fields = list(self.packed.fields().values())
        self._run = products_for(isa).functions["plain"]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product with rows of shape (n, in): (n, out)."""
        x = x.float().contiguous()
        if x.dim() != 2 or x.shape[1] != self.packed.width:
            raise ValueError(f"Rows of {self.packed.width} values are needed, not {list(x.shape)}.")
        result = x.new_empty((x.shape[0], self._stride))
        arguments = _workspace.prepared(x, self.packed.width)
        arguments.raw[_WEIGHT] = self._fields
        arguments.set(result=result.data_ptr(), result_stride=self._stride * 4)
        self._run(arguments.address)
        return result[:, : self.packed.out]


class _Workspace(threading.local):
    """A thread's arguments and memory for products: one for all weights."""

    def __init__(self) -> None:
        self._arguments: Arguments | None = None
        self._rounded = Rounded()
        self._scratch: Any = None

    def prepared(self, x: torch.Tensor, width: int) -> Arguments:
        """Arguments for a product with the rows of `x`."""
        import torch

        arguments = self._arguments = self._arguments or Arguments()
        rows, threads = x.shape[0], torch.get_num_threads()
        self._rounded.reserve(arguments, rows, width)
        if self._scratch is None or self._scratch.numel() < threads * width:
            self._scratch = torch.empty(threads * width)
        arguments.set(
            threads=threads,
            scratch=self._scratch.data_ptr(),
            scratch_size=width * 4,
            rows=rows,
            source=x.data_ptr(),
            source_width=width,
            source_stride=width * 4,
        )
        return arguments


_workspace = _Workspace()
_WEIGHT = Arguments.span("weight", "panels")
