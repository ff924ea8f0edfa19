"""Rotary positions, the cache, and the look back over it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import gcd

from corral.model_runtime.local.native.cache import PAGE
from corral.model_runtime.local.native.code import F32, I64, Function, Program, Value, vector
from corral.model_runtime.local.native.fields import Fields
from corral.model_runtime.local.native.rows import exponential

__all__ = ["write_look", "write_turn"]

_LANES = 16
_TOGETHER = 4
"""Query heads that look back together: what one key or value is read for."""


def write_turn(program: Program, *, heads: int, key_heads: int, size: int) -> Function:
    """A function of the fields and a token's number: turns it and appends it to its cache."""
    f = program.function("turn", 2)
    fields, token = Fields(f, f.arguments[0]), f.arguments[1]
    half = size // 2
    lanes = gcd(_LANES, half)
    kind = vector(F32, lanes)
    row = fields.heads + token * fields.heads_stride
    cosines, sines = (getattr(fields, name) + token * half * 4 for name in ("cosines", "sines"))
    sequence = fields.item("sequences", token)
    position = fields.item("positions", token)
    block = fields.item("blocks", fields.item("caches", sequence) + position // PAGE)
    apart = PAGE * size * 4  # bytes from head to head; values come after the heads' keys
    cache = block + fields.number * (2 * key_heads * apart) + position % PAGE * (size * 4)

    def turned(begin: Value, to: Value) -> None:
        for at in range(0, half, lanes):
            low, high = (f.load(kind, begin + (part + at) * 4) for part in (0, half))
            cos, sin = f.load(kind, cosines + at * 4), f.load(kind, sines + at * 4)
            f.store(low * cos - high * sin, to + at * 4)
            f.store(high * cos + low * sin, to + (half + at) * 4)

    with f.loop(0, heads) as head:
        turned(row + head * size * 4, row + head * size * 4)
    with f.loop(0, key_heads) as head:
        turned(row + (head + heads) * size * 4, cache + head * apart)
        value = row + (head + heads + key_heads) * size * 4
        to = cache + (head + key_heads) * apart
        for at in range(0, size, lanes):
            f.store(f.load(kind, value + at * 4), to + at * 4)
    f.close()
    return f


def write_look(program: Program, *, heads: int, key_heads: int, size: int) -> Function:
    """A function of the fields, a place of work and memory for it: some tokens, one key head."""
    group = heads // key_heads
    looks = {
        together: _look(program, together, size)
        for together in {min(_TOGETHER, group - at) for at in range(0, group, _TOGETHER)}
    }
    f = program.function("look", 3)
    fields, place, scratch = Fields(f, f.arguments[0]), f.arguments[1], f.arguments[2]
    chunks = fields.chunks
    head = place // chunks
    chunk = place - head * chunks
    first = fields.item("chunk_firsts", chunk)
    sequence = fields.item("sequences", first)
    blocks = fields.blocks + fields.item("caches", sequence) * 8
    apart = PAGE * size * 4
    keys = (fields.number * (2 * key_heads) + head) * apart
    values = keys + apart * key_heads
    with f.loop(first, first + fields.item("chunk_counts", chunk)) as token:
        length = fields.item("positions", token) + 1
        queries = fields.heads + token * fields.heads_stride
        mixed = fields.mixed + token * fields.mixed_width * 4
        for at in range(0, group, _TOGETHER):
            begin = (head * group + at) * size * 4
            look = looks[min(_TOGETHER, group - at)]
            f.call(look, queries + begin, blocks, keys, values, length, scratch, mixed + begin)
    f.close()
    return f


def _look(program: Program, together: int, size: int) -> Function:
    """Some heads of one token, over the keys and values that they share."""
    f = program.function(f"look{together}", 7)
    queries, blocks, keys, values, length, scratch, mixed = f.arguments
    wide, few = vector(F32, _LANES), vector(F32, _TOGETHER)
    pieces = range(size // _LANES)
    root = size**-0.5

    def piece(begin: Value, at: int) -> Value:
        return f.load(wide, begin + at * _LANES * 4)

    query = [
        [piece(queries + row * size * 4, at) * root for at in pieces] for row in range(together)
    ]

    @contextmanager
    def positions(part: Value) -> Generator[tuple[Value, Value]]:
        """Each position, and where its keys or values are, which lie at `part` of a block."""
        with f.loop(0, length, PAGE) as first:
            begin = f.load(I64, blocks + first // PAGE * 8) + part
            with f.loop(0, (length - first).at_most(PAGE)) as at:
                yield first + at, begin + at * (size * 4)

    none = f.number(wide, 0.0)
    top = f.cell(f.number(few, float("-inf")))
    with positions(keys) as (position, place):
        key = [piece(place, at) for at in pieces]
        sums = [none] * _TOGETHER
        for row in range(together):
            sums[row] = query[row][0] * key[0]
            for at in pieces[1:]:
                sums[row] = f.fused(query[row][at], key[at], sums[row])
        scores = _folded_together(sums)
        f.store(scores, scratch + position * _TOGETHER * 4)
        top.set(top.get().at_least(scores))
    by = _LANES // _TOGETHER
    end = (length + (by - 1)) // by * by
    with f.loop(length, end) as position:
        f.store(f.number(few, float("-inf")), scratch + position * _TOGETHER * 4)

    highest = top.get().shuffled(None, list(range(_TOGETHER)) * by)
    total = f.cell(none)
    with f.loop(0, end, by) as position:
        place = scratch + position * _TOGETHER * 4
        weight = exponential(f, f.load(wide, place) - highest)
        # The exponential ends at a tiny number: what isn't there must weigh nothing.
        weight = (f.load(wide, place) > float("-inf")).choose(weight, 0.0)
        f.store(weight, place)
        total.set(total.get() + weight)
    parts = [
        total.get().shuffled(None, range(at, at + _TOGETHER)) for at in range(0, _LANES, _TOGETHER)
    ]
    weights = parts[0] + parts[1] + (parts[2] + parts[3])

    seen = [[f.cell(none) for _ in pieces] for _ in range(together)]
    with positions(values) as (position, place):
        value = [piece(place, at) for at in pieces]
        for row in range(together):
            weight = f.load(F32, scratch + (position * _TOGETHER + row) * 4).spread(_LANES)
            for at in pieces:
                cell = seen[row][at]
                cell.set(f.fused(weight, value[at], cell.get()))
    for row in range(together):
        whole = weights.lane(row).spread(_LANES)
        for at in pieces:
            f.store(seen[row][at].get() / whole, mixed + (row * size + at * _LANES) * 4)
    f.close()
    return f


def _folded_together(sums: list[Value]) -> Value:
    """The sum of each of four vectors of sixteen, side by side."""
    even = [*range(0, 32, 2)]
    odd = [*range(1, 32, 2)]
    first, second = (
        sums[at].shuffled(sums[at + 1], even) + sums[at].shuffled(sums[at + 1], odd)
        for at in (0, 2)
    )  # eight numbers of each vector
    both = first.shuffled(second, even) + first.shuffled(second, odd)  # four of each, in turn
    both = both.shuffled(None, even[:8]) + both.shuffled(None, odd[:8])
    return both.shuffled(None, even[:4]) + both.shuffled(None, odd[:4])
