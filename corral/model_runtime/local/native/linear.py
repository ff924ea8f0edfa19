"""The product as a kernel among others: rows of 32-bit reals in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        """See that so many rows of at most that width fit, and say where they go."""
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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product with rows of shape (n, in): (n, out)."""
        import torch

        packed, threads = self.packed, torch.get_num_threads()
        x = x.contiguous()
        rows = x.shape[0]
        result = x.new_empty((rows, packed.corrections.numel()))
        arguments = Arguments()
        rounded = Rounded()
        rounded.reserve(arguments, rows, packed.width)
        scratch = x.new_empty((threads, packed.width))
        arguments.set(
            threads=threads,
            scratch=scratch.data_ptr(),
            scratch_size=packed.width * 4,
            rows=rows,
            source=x.data_ptr(),
            source_width=packed.width,
            source_stride=packed.width * 4,
            result=result.data_ptr(),
            result_stride=result.shape[1] * 4,
            **packed.fields(),
        )
        products_for(self.isa).functions["plain"](arguments.address)
        return result[:, : packed.out]
