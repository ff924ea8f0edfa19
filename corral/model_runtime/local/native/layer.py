"""A layer of a Llama model, and its parts that are of use alone, as one program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.model_runtime.local.native.attention import write_look, write_turn
from corral.model_runtime.local.native.code import I32, I64, NOTHING, Function, Program, Value
from corral.model_runtime.local.native.fields import Fields
from corral.model_runtime.local.native.product import Isa, write_product
from corral.model_runtime.local.native.rows import BLOCK, gated, normed, plain, write_rounding

__all__ = ["PRODUCTS", "Heads", "write_layer", "write_products"]

_FEW = 4
"""Rows that one thread is done with before others would have begun."""
_SHORT = 2048
"""Numbers in rows, of which the same is true."""
_SMALL = 160 * 1024
"""Bytes of a weight, of which the same is true for as many rows as are taken at once."""

_SHARES = 4
"""Pieces of a weight for each thread. A thread reads a long piece at twice the speed of many short
ones that lie apart, and with some pieces to spare a thread that is held up holds up no other."""

PRODUCTS = {kind.__name__: kind for kind in (plain, normed, gated)}
"""Public functions: a product with the rows of `source`, which are made ready first."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The numbers of attention that a layer is written for."""

    heads: int
    key_heads: int
    size: int


def write_products(isa: Isa) -> Program:
    """The functions of `PRODUCTS`, which take fields."""
    program = Program("products")
    panels = _shared(program, write_product(program, isa))
    for name, kind in PRODUCTS.items():
        rounding = write_rounding(
            program, f"round_{name}", kind, lanes=isa.lanes, offset=isa.offset
        )
        shared = _shared(program, rounding, own_memory=True)
        f = program.function(name, 1, public=True)
        fields = Fields(f, f.arguments[0])
        fields.put("finer_count", 0)
        is_short = fields.rows * fields.source_width < _SHORT
        few = is_short.choose(f.number(I64, _SHORT), f.number(I64, _FEW))
        _run(f, fields, shared, fields.rows, alone_below=few)
        _multiply(f, fields, panels, isa)
        f.close()
    return program


def _multiply(f: Function, fields: Fields, panels: Function, isa: Isa) -> None:
    shares = fields.threads * _SHARES
    there = fields.panels + fields.more_panels
    each = (there + (shares - 1)) // shares
    fields.put("share", each)
    count = (there + (each - 1)) // each
    blocks = (fields.rows + (BLOCK - 1)) // BLOCK
    is_small = there * fields.source_width * blocks * isa.panel < _SMALL
    _run(f, fields, panels, count, alone_below=is_small.choose(count + 1, f.number(I64, 2)))


def write_layer(heads: Heads, products: Mapping[str, int], *, adapted: bool = False) -> Program:
    """The function `layer`, which takes the rows of `stream` through a whole layer.

    Args:
        heads: What it is written for.
        products: Where the functions of `PRODUCTS` lie.
        adapted: Whether an adapter's low-rank products are added to the layer's own.
    """
    program = Program("layer")
    numbers = {"heads": heads.heads, "key_heads": heads.key_heads, "size": heads.size}
    turn = _shared(program, write_turn(program, **numbers))
    look = _shared(program, write_look(program, **numbers), own_memory=True)
    f = program.function("layer", 1, public=True)
    fields = Fields(f, f.arguments[0])

    def product(part: str, kind: str, taken: _Rows, given: _Rows, *, adds: bool = False) -> None:
        _take(fields, taken)
        _give(fields, given, adds=adds)
        _weigh(fields, part)
        if adapted:
            _weigh(fields, f"{part}_narrow", "more_")
        f.call_foreign(f.number(I64, products[kind]), NOTHING, f.arguments[0])
        if not adapted:
            return
        fields.put("more_panels", 0)
        with f.when(getattr(fields, f"{part}_rank") > 0):
            _take(fields, _Rows("more_result", f"{part}_rank", fields.more_result_stride))
            _give(fields, given, adds=True)
            _weigh(fields, f"{part}_wide")
            f.call_foreign(f.number(I64, products["plain"]), NOTHING, f.arguments[0])

    stream = _Rows("stream", "width", fields.width * 4)
    both = _Rows("both", "inner", fields.both_stride)
    fields.put("norm", fields.attention_norm)
    product("qkv", "normed", stream, _Rows("heads", "width", fields.heads_stride))
    _run(f, fields, turn, fields.rows, alone_below=2 * _FEW)
    _run(f, fields, look, fields.chunks * heads.key_heads)
    product(
        "out", "plain", _Rows("mixed", "mixed_width", fields.mixed_width * 4), stream, adds=True
    )
    fields.put("norm", fields.mlp_norm)
    product("gate_up", "normed", stream, both)
    product("down", "gated", both, stream, adds=True)
    f.close()
    return program


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that a product takes or gives: the fields that say where they are and how long."""

    place: str
    width: str
    stride: Value


def _take(fields: Fields, rows: _Rows) -> None:
    fields.put("source", getattr(fields, rows.place))
    fields.put("source_width", getattr(fields, rows.width))
    fields.put("source_stride", rows.stride)


def _give(fields: Fields, rows: _Rows, *, adds: bool = False) -> None:
    fields.put("result", getattr(fields, rows.place))
    fields.put("result_stride", rows.stride)
    fields.put("adds", int(adds))


def _weigh(fields: Fields, part: str, before: str = "") -> None:
    for what in ("weight", "corrections", "weight_scales", "panels"):
        fields.put(f"{before}{what}", getattr(fields, f"{part}_{what}"))


def _shared(program: Program, one: Function, *, own_memory: bool = False) -> Function:
    """A function of the fields that does one piece of work after the other, as long as there are.

    Any number of threads may run it at once. `one` takes the fields, a piece's number and, with
    `own_memory`, the address of a thread's own memory.
    """
    f = program.function(f"all_{one.raw.name}", 1)
    fields = Fields(f, f.arguments[0])
    more: list[Value] = []
    if own_memory:
        thread = f.call_foreign(fields.thread_number, I32).to(I64)
        more = [fields.scratch + thread * fields.scratch_size]
    with f.tickets(fields.place("ticket"), fields.count) as ticket:
        f.call(one, f.arguments[0], ticket, *more)
    f.close()
    return f


def _run(
    f: Function, fields: Fields, work: Function, count: Value, *, alone_below: Value | int = 2
) -> None:
    """Have so many pieces of work done, by all threads unless they are few."""
    fields.put("ticket", 0)
    fields.put("count", count)
    alone = (count < alone_below).choose(f.number(I64, 1), fields.threads)
    with f.when(alone < 2):
        f.call(work, f.arguments[0])
    with f.when(alone > 1):
        threads = alone.to(I32)
        f.call_foreign(
            fields.parallel, NOTHING, work, f.pointer(f.arguments[0]), threads, f.number(I32, 0)
        )
