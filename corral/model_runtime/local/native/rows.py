"""Rows on their way into a product: made ready, then rounded to 8 bits.

A row is divided by its largest value and rounded to a 127th of it. A few values of a Llama's rows
are many times the rest, which then vanish in the rounding; what the rounding took of such a row is
rounded a second time, as a row of its own whose product is added to the first one's.

Rounded rows lie in blocks of twelve, four neighbouring values of each row after the other, as the
product wants them; what was rounded the second time lies in blocks of its own, but beside a single
row, so that both are multiplied together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from corral.model_runtime.local.native.code import (
    F32,
    I8,
    I32,
    I64,
    Function,
    Program,
    Value,
    vector,
)
from corral.model_runtime.local.native.fields import Fields

__all__ = ["ADDED", "BLOCK", "exponential", "gated", "normed", "plain", "write_rounding"]

BLOCK = 12
"""Rows that a product takes at once."""

ADDED = 1 << 32
"""Goes with the number of the row of the result that a product is to be added to."""

_OUTLYING = 8.0
"""A row whose largest value is so many times its root mean square is rounded twice."""

Source: TypeAlias = Callable[[Function, Fields, Value, int], Callable[[Value], Value]]
"""Given a row's number and how many values go side by side: what gives the values at a place."""


def plain(f: Function, fields: Fields, row: Value, lanes: int) -> Callable[[Value], Value]:
    """The rows as they are."""
    begin = fields.source + row * fields.source_stride
    return lambda at: f.load(vector(F32, lanes), begin + at * 4)


def normed(f: Function, fields: Fields, row: Value, lanes: int) -> Callable[[Value], Value]:
    """The rows divided by their root mean square, times a weight."""
    kind = vector(F32, lanes)
    begin, norm, width = (
        fields.source + row * fields.source_stride,
        fields.norm,
        fields.source_width,
    )
    squares = f.cell(f.number(kind, 0.0))
    with f.loop(0, width, lanes) as at:
        value = f.load(kind, begin + at * 4)
        squares.set(f.fused(value, value, squares.get()))
    mean = squares.get().folded("add") / width.to(F32)
    inverse = f.number(F32, 1.0) / f.unary("sqrt", mean + fields.real("epsilon"))
    return lambda at: f.load(kind, begin + at * 4) * inverse * f.load(kind, norm + at * 4)


def gated(f: Function, fields: Fields, row: Value, lanes: int) -> Callable[[Value], Value]:
    """silu(gate) * up, for rows that hold the gates and then the others."""
    kind = vector(F32, lanes)
    begin = fields.source + row * fields.source_stride
    other = begin + fields.source_width * 4

    def values(at: Value) -> Value:
        gate, up = f.load(kind, begin + at * 4), f.load(kind, other + at * 4)
        return gate / (exponential(f, f.number(kind, 0.0) - gate) + 1.0) * up

    return values


def write_rounding(
    program: Program, name: str, source: Source, *, lanes: int, offset: int
) -> Function:
    """A function of the fields, a row's number and memory for a row of 32-bit numbers.

    Args:
        program: What it becomes part of.
        name: Its name.
        source: What makes the values ready.
        lanes: How many values go side by side.
        offset: What stands for 0 in the 8 bits.
    """
    f = program.function(name, 3)
    fields, row, scratch = Fields(f, f.arguments[0]), f.arguments[1], f.arguments[2]
    kind = vector(F32, lanes)
    width, rows = fields.source_width, fields.rows
    ready = source(f, fields, row, lanes)

    largest, squares = (f.cell(f.number(kind, 0.0)) for _ in range(2))
    with f.loop(0, width, lanes) as at:
        value = ready(at)
        f.store(value, scratch + at * 4)
        largest.set(largest.get().at_least(f.unary("fabs", value)))
        squares.set(f.fused(value, value, squares.get()))
    top = largest.get().folded("at_least").at_least(1e-30)
    square = squares.get().folded("add")
    outlying = square * _OUTLYING**2 < top * top * width.to(F32)

    def rounded(begin: Value, step: Value, factor: Value) -> Value:
        """Round what lies in `scratch`, put what is left there, and return its largest value."""
        left = f.cell(f.number(kind, 0.0))
        with f.loop(0, width, lanes) as at:
            value = f.load(kind, scratch + at * 4) * factor
            whole = f.unary("rint", value)
            rest = value - whole
            f.store(rest, scratch + at * 4)
            left.set(left.get().at_least(f.unary("fabs", rest)))
            words = (whole.to(I32) + offset).to(I8).seen_as(vector(I32, lanes // 4))
            for word in range(lanes // 4):
                f.store(words.lane(word), begin + (at // 4 + word) * step)
        return left.get().folded("at_least").at_least(1e-30)

    def place_of(row: Value) -> Value:
        return row // BLOCK * BLOCK * width + row % BLOCK * 4

    is_single = rows.equals(1)
    left_over = (rows - row // BLOCK * BLOCK).at_most(BLOCK)
    step = is_single.choose(f.number(I64, 2), left_over) * 4
    left = rounded(fields.rounded + place_of(row), step, f.number(F32, 127.0) / top)
    # What isn't finite must come out as such, and whole numbers can't hold it.
    scale = top / 127.0 + square * 0.0
    f.store(scale, fields.scales + row * 4)
    with f.when(outlying):
        finer = f.take_ticket(fields.place("finer_count"))
        begin = is_single.choose(fields.rounded + 4, fields.finer + place_of(finer))
        step = is_single.choose(f.number(I64, 2), rows.at_most(BLOCK)) * 4
        rounded(begin, step, f.number(F32, 127.0) / left)
        scales = is_single.choose(fields.scales + 4, fields.finer_scales + finer * 4)
        f.store(scale * left / 127.0, scales)
        f.store(row + ADDED, fields.finer_targets + finer * 8)
    f.close()
    return f


def exponential(f: Function, x: Value) -> Value:
    """The exponential of x, right to 3e-7 of itself; for x of at most 88.

    By Cody and Waite's reduction to half of ln 2 and a polynomial of the sixth degree.
    """
    x = x.at_least(-87.0).at_most(88.0)
    whole = f.unary("rint", x * 1.4426950408889634)
    rest = f.fused(whole, f.number(x.type, -0.693359375), x)
    rest = f.fused(whole, f.number(x.type, 2.12194440e-4), rest)
    sum_ = f.number(x.type, 1.0 / 720)
    for factor in (1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0):
        sum_ = f.fused(sum_, rest, f.number(x.type, factor))
    power = (whole.to(I32) + 127) << 23
    return sum_ * power.seen_as(x.type)
