"""A layer of a Llama model, and its parts that are of use alone, as one program."""

from __future__ import annotations

from dataclasses import dataclass

from corral.model_runtime.local.native.attention import write_look, write_turn
from corral.model_runtime.local.native.code import I32, I64, NOTHING, Function, Program, Value
from corral.model_runtime.local.native.fields import Fields
from corral.model_runtime.local.native.product import Isa, write_product
from corral.model_runtime.local.native.rows import gated, normed, plain, write_rounding

__all__ = ["Heads", "write_program"]

_FEW = 4
"""Rows that one thread is done with before others would have begun."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The numbers of attention that a program is written for."""

    heads: int
    key_heads: int
    size: int


def write_program(isa: Isa, heads: Heads | None) -> Program:
    """The public functions `linear` and `head`, and with `heads` also `layer`. They take fields.

    `linear` rounds the rows of `source` and multiplies them with a weight; `head` norms them first;
    `layer` takes the rows of `stream` through a whole layer.
    """
    program = Program("corral")
    about = {"lanes": isa.lanes, "offset": isa.offset}
    roundings = {
        kind.__name__: _shared(
            program, write_rounding(program, kind.__name__, kind, **about), own_memory=True
        )
        for kind in (plain, normed, gated)
    }
    panels = _shared(program, write_product(program, isa))

    def multiplied(f: Function, fields: Fields, rounding: str) -> None:
        fields.put("finer_count", 0)
        _run(f, fields, roundings[rounding], fields.rows, alone_below=_FEW)
        _run(f, fields, panels, fields.panels)

    for name, rounding in (("linear", "plain"), ("head", "normed")):
        f = program.function(name, 1, public=True)
        multiplied(f, Fields(f, f.arguments[0]), rounding)
        f.close()
    if heads is not None:
        _write_layer(program, heads, multiplied)
    return program


def _write_layer(program: Program, heads: Heads, multiplied) -> None:
    numbers = {"heads": heads.heads, "key_heads": heads.key_heads, "size": heads.size}
    turn = _shared(program, write_turn(program, **numbers))
    look = _shared(program, write_look(program, **numbers), own_memory=True)
    f = program.function("layer", 1, public=True)
    fields = Fields(f, f.arguments[0])

    def product(
        part: str, rounding: str, source: str, width: str, stride: Value, norm: str = ""
    ) -> None:
        fields.put("source", getattr(fields, source))
        fields.put("source_width", getattr(fields, width))
        fields.put("source_stride", stride)
        if norm:
            fields.put("norm", getattr(fields, norm))
        for what in ("weight", "corrections", "weight_scales", "panels"):
            fields.put(what, getattr(fields, f"{part}_{what}"))
        multiplied(f, fields, rounding)

    def to(result: str, stride: Value, adds: int) -> None:
        fields.put("result", getattr(fields, result))
        fields.put("result_stride", stride)
        fields.put("adds", adds)

    stream = fields.width * 4
    to("heads", fields.heads_stride, 0)
    product("qkv", "normed", "stream", "width", stream, "attention_norm")
    _run(f, fields, turn, fields.rows, alone_below=2 * _FEW)
    _run(f, fields, look, fields.chunks * heads.key_heads)
    to("stream", stream, 1)
    product("out", "plain", "mixed", "mixed_width", fields.mixed_width * 4)
    to("both", fields.both_stride, 0)
    product("gate_up", "normed", "stream", "width", stream, "mlp_norm")
    to("stream", stream, 1)
    product("down", "gated", "both", "inner", fields.both_stride)
    f.close()


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
    f: Function, fields: Fields, work: Function, count: Value, *, alone_below: int = 2
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
