"""The product of rounded rows with a weight in 8 bits.

The weight lies in panels of some output channels: for every four inputs in turn, four values of
each channel. One instruction multiplies and adds up four neighbouring values, for as many channels
as a register holds, so a panel is read from its first byte to its last, once for up to twelve rows.
The sums are whole numbers, so that their order doesn't matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from corral.model_runtime.local.native.code import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Function,
    Program,
    Value,
    vector,
)
from corral.model_runtime.local.native.fields import Fields
from corral.model_runtime.local.native.rows import ADDED, BLOCK

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.local.kernels import Quantised

__all__ = ["ISAS", "MULTIPLE", "Isa", "Packed", "pack", "write_product"]

MULTIPLE = 16
"""What the length of rows has to be a multiple of."""

_AHEAD = 2048
"""Bytes of the weight that are fetched ahead of their use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isa:
    """A kind of processor, by its instruction for products of 8 bits."""

    name: str
    features: tuple[str, ...]
    """What the processor must have, by LLVM's names."""
    lanes: int
    """32-bit numbers in a register."""
    offset: int
    """What stands for 0 in the rows' 8 bits."""
    rows: tuple[int, ...]
    """How many rows are taken at once, the most first; the last is 1."""
    dot: Callable[[Function, Value, Value, Value], Value]
    """Adds the products of each four values of a row (the third) and of a weight to sums."""

    @property
    def panel(self) -> int:
        """Output channels of a panel."""
        return 2 * self.lanes


def _vnni(bits: int) -> Callable[[Function, Value, Value, Value], Value]:
    def dot(f: Function, sums: Value, weight: Value, row: Value) -> Value:
        return f.instruct(f"llvm.x86.avx512.vpdpbusd.{bits}", sums.type, sums, row, weight)

    return dot


def _avx2(f: Function, sums: Value, weight: Value, row: Value) -> Value:
    """Without an instruction of its own: signs go to the weight, so that 16 bits are enough."""
    bytes_, words = vector(I8, 32), vector(I16, 16)
    row, weight = row.seen_as(bytes_), weight.seen_as(bytes_)
    signed = f.instruct("llvm.x86.avx2.psign.b", bytes_, weight, row)
    size = f.instruct("llvm.x86.avx2.psign.b", bytes_, row, row)
    pairs = f.instruct("llvm.x86.avx2.pmadd.ub.sw", words, size, signed)
    ones = f.number(words, 1)
    return sums + f.instruct("llvm.x86.avx2.pmadd.wd", sums.type, pairs, ones)


ISAS: Final[Mapping[str, Isa]] = {
    isa.name: isa
    for isa in (
        Isa(
            name="avx512-vnni",
            features=("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "fma"),
            lanes=16,
            offset=128,
            rows=(12, 8, 6, 4, 2, 1),
            dot=_vnni(512),
        ),
        Isa(
            name="avx-vnni",
            features=("avx2", "fma", "avxvnni"),
            lanes=8,
            offset=128,
            rows=(6, 4, 2, 1),
            dot=_vnni(256),
        ),
        Isa(name="avx2", features=("avx2", "fma"), lanes=8, offset=0, rows=(4, 2, 1), dot=_avx2),
    )
}
"""The best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A weight in panels. Its last panel is filled up with zeros."""

    out: int
    width: int
    panels: torch.Tensor
    """Of shape (panels, width / 4, channels of a panel), four 8-bit values in each 32-bit one."""
    corrections: torch.Tensor
    """What the rows' offset adds to each channel's sum, taken away: 32-bit whole numbers."""
    scales: torch.Tensor

    def fields(self, before: str = "") -> dict[str, int]:
        """Where it lies, by the names of the fields, with words before them."""
        return {
            f"{before}weight": self.panels.data_ptr(),
            f"{before}corrections": self.corrections.data_ptr(),
            f"{before}weight_scales": self.scales.data_ptr(),
            f"{before}panels": self.panels.shape[0],
        }


def pack(weight: Quantised, isa: Isa) -> Packed:
    """Lay out a weight whose rows are a multiple of `MULTIPLE` long."""
    import numpy
    import torch

    from corral.model_runtime.local.pages import empty_in_large_pages

    out, width = weight.values.shape
    count, whole = -(-out // isa.panel), out // isa.panel
    words = weight.values.contiguous().view(torch.int32)
    panels = empty_in_large_pages(words.new_empty(0), [count, width // 4, isa.panel])
    # Numpy's ways to copy and to add up are many times as fast as torch's.
    full = words[: whole * isa.panel].view(whole, isa.panel, width // 4).transpose(1, 2)
    numpy.copyto(panels[:whole].numpy(), full.numpy())
    if whole < count:
        panels[whole].zero_()
        panels[whole, :, : out - whole * isa.panel] = words[whole * isa.panel :].t()
    corrections = torch.zeros(count * isa.panel, dtype=torch.int32)
    sums = numpy.add.reduce(weight.values.numpy(), axis=1, dtype=numpy.int32)
    corrections[:out] = torch.tensor(sums) * -isa.offset
    scales = torch.zeros(count * isa.panel)
    scales[:out] = weight.scales
    return Packed(out=out, width=width, panels=panels, corrections=corrections, scales=scales)


def write_product(program: Program, isa: Isa) -> Function:
    """A function of the fields and a share's number: its panels' products with all rows.

    Behind a weight's own panels come those of a second one, if there is one: `more_weight`. It
    takes the same rows and has a result of its own.
    """
    tiles = {rows: _tile(program, isa, rows) for rows in isa.rows}
    f = program.function("panel", 2)
    fields, share = Fields(f, f.arguments[0]), f.arguments[1]
    each = fields.share
    first = share * each
    with f.loop(first, (first + each).at_most(fields.panels + fields.more_panels)) as panel:
        _panel(f, fields, panel, isa, tiles)
    f.close()
    return f


def _panel(
    f: Function, fields: Fields, panel: Value, isa: Isa, tiles: Mapping[int, Function]
) -> None:
    width, rows = fields.source_width, fields.rows
    is_more = fields.panels < panel + 1

    def of(name: str) -> Value:
        return is_more.choose(getattr(fields, f"more_{name}"), getattr(fields, name))

    panel = is_more.choose(panel - fields.panels, panel)
    first = panel * isa.panel * 4
    about = (
        of("weight") + panel * isa.panel * width,
        width,
        of("corrections") + first,
        of("weight_scales") + first,
        of("result") + first,
        of("result_stride"),
    )
    adds = is_more.choose(f.number(I64, 0), fields.adds)

    def all_of(begin: Value, count: Value, step: Value, scales: Value, to: Value) -> None:
        """All rows in their blocks, some at once; a block's rows are `step` apart, or all of it."""
        with f.loop(0, count, BLOCK) as block:
            there = (count - block).at_most(BLOCK)
            apart = step.equals(0).choose(there, step) * 4
            done = f.number(I64, 0)
            for together, tile in tiles.items():
                with f.loop(done, there - (together - 1), together) as row:
                    at = block + row
                    place = begin + block * width + row * 4
                    f.call(tile, *about, place, apart, scales + at * 4, to + at * 8, adds)
                done = there - (there - done) % together

    is_single = rows.equals(1)
    none = f.number(I64, 0)
    finer = fields.finer_count
    count, finer = rows + is_single.choose(finer, 0), is_single.choose(none, finer)
    apart = is_single.choose(f.number(I64, 2), 0)
    targets = is_single.choose(fields.single_targets, fields.targets)
    all_of(fields.rounded, count, apart, fields.scales, targets)
    all_of(fields.finer, finer, rows.at_most(BLOCK), fields.finer_scales, fields.finer_targets)


def _tile(program: Program, isa: Isa, rows: int) -> Function:
    """So many rows with one panel."""
    f = program.function(f"tile{rows}", 11)
    weight, width, corrections, weight_scales, result, stride = f.arguments[:6]
    begin, apart, scales, targets, adds = f.arguments[6:]
    whole, real = vector(I32, isa.lanes), vector(F32, isa.lanes)
    size = 4 * isa.lanes
    sums = [
        [f.cell(f.load(whole, corrections + half * size)) for half in range(2)] for _ in range(rows)
    ]
    many = 2 if rows > 2 else 4
    with f.loop(0, width // 4, many) as at:
        for more in range(many):
            place = weight + (at + more) * 2 * size
            if rows <= 4:
                f.prefetch(place + _AHEAD)
                if size == 64:
                    f.prefetch(place + _AHEAD + 64)
            halves = [f.load(whole, place + half * size) for half in range(2)]
            here = begin + (at + more) * apart
            for row in range(rows):
                four = f.load(I32, here + row * 4).spread(isa.lanes)
                for half in range(2):
                    cell = sums[row][half]
                    cell.set(isa.dot(f, cell.get(), halves[half], four))
    none = f.number(real, 0.0)
    for row in range(rows):
        scale = f.load(F32, scales + row * 4)
        target = f.load(I64, targets + row * 8)
        is_added = (adds | target >> 32).equals(1)
        for half in range(2):
            place = result + (target & ADDED - 1) * stride + half * size
            value = sums[row][half].get().to(F32) * f.load(real, weight_scales + half * size)
            before = f.load(real, place)
            f.store(is_added.choose(before, none) + value * scale, place)
    f.close()
    return f
