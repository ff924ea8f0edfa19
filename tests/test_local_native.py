"""Corral's own machine code: right on every kind of processor that this one can stand in for."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import sys

import numpy as np
import pytest
import tiny_llama
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corral.model_runtime.local import kernels, loading
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.kernels import quantise
from corral.model_runtime.local.loading import load_llama
from corral.model_runtime.local.native import machine
from corral.model_runtime.local.native.attention import write_look, write_turn
from corral.model_runtime.local.native.cache import PAGE, Blocks, PagedCache
from corral.model_runtime.local.native.code import F32, Program, vector
from corral.model_runtime.local.native.fields import Fields
from corral.model_runtime.local.native.linear import NativeLinear
from corral.model_runtime.local.native.machine import Arguments, Code, host_isa
from corral.model_runtime.local.native.product import ISAS
from corral.model_runtime.local.native.rows import exponential
from corral.model_runtime.local.prefixes import Prefixes

pytestmark = pytest.mark.skipif(not host_isa(), reason="no own code for this processor")


OWN = kernels._CPU["int8"][0]
HALF = "avx-vnni by avx-512"


def here() -> list[str]:
    """The kinds of processor whose code this one runs."""
    import llvmlite.binding as llvm

    if not host_isa():
        return []
    has = llvm.get_host_cpu_features()
    names = [isa.name for isa in ISAS.values() if all(has.get(one) for one in isa.features)]
    return [*names, HALF] if "avx512-vnni" in names else names


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def half_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for processors with AVX-VNNI, where this one has the same instruction by AVX-512."""
    isa = ISAS["avx-vnni"]
    features = (*ISAS["avx2"].features, "avx512f", "avx512bw", "avx512vl", "avx512vnni")
    monkeypatch.setitem(ISAS, HALF, dataclasses.replace(isa, name=HALF, features=features))


@pytest.fixture(autouse=True)
def own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the fastest where the machine has nothing else to do."""
    monkeypatch.setattr(loading, "choose_kernel", lambda device, precision: OWN)


# --- the product


@pytest.mark.parametrize("isa", here())
@pytest.mark.parametrize("out", [64, 70])
@pytest.mark.parametrize("width", [16, 48, 2048])
def test_a_product_is_right_and_each_row_the_same_in_any_company(isa: str, out: int, width: int):
    weight = torch.randn(out, width, generator=seeded(1))
    weight[0], weight[1] = 1.0, -1.0
    linear = NativeLinear(quantise(weight), isa)
    rows = torch.randn(31, width, generator=seeded(2))
    rows[1], rows[2], rows[3] = 1.0, -1.0, 0.0
    rows[4, 5], rows[20, 7], rows[25:29, 3] = 1000.0, -500.0, 300.0
    together = linear(rows)
    assert together.shape == (31, out)
    for count in (1, 2, 3, 5, 7, 11, 12, 13, 24, 25):
        assert torch.equal(linear(rows[:count]), together[:count]), count
    for at, row in enumerate(rows):
        assert torch.equal(linear(row[None])[0], together[at]), at
    held = quantise(weight)
    exact = rows.double() @ (held.values.double() * held.scales.double()[:, None]).t()
    off = (together - exact).norm(dim=1)
    assert bool((off <= 0.02 * exact.norm(dim=1) + 1e-6).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_comes_out_as_such_and_harms_no_other_row(bad: float):
    linear = NativeLinear(quantise(torch.randn(64, 128, generator=seeded(1))), host_isa())
    rows = torch.randn(5, 128, generator=seeded(2))
    before = linear(rows)
    rows[3, 17] = bad
    after = linear(rows)
    assert not bool(torch.isfinite(after[3]).any())
    assert not bool(torch.isfinite(linear(rows[3:4])).any())
    assert torch.equal(after[[0, 1, 2, 4]], before[[0, 1, 2, 4]])


def test_every_kind_of_processor_gives_the_same_numbers():
    weight = quantise(torch.randn(96, 1024, generator=seeded(3)))
    rows = torch.randn(40, 1024, generator=seeded(4))
    rows[::7, 11] = 90.0
    results = [NativeLinear(weight, isa)(rows) for isa in here()]
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_many_threads_share_the_work_and_change_nothing():
    linear = NativeLinear(quantise(torch.randn(330, 256, generator=seeded(5))), host_isa())
    rows = torch.randn(50, 256, generator=seeded(6))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results += [linear(rows), torch.cat([linear(rows[:1]), linear(rows[1:])])]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_where_there_is_no_compiler_torchs_kernels_are_taken(monkeypatch: pytest.MonkeyPatch):
    assert kernels._is_right(OWN)
    for name in [name for name in sys.modules if ".local.native" in name or "llvmlite" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert not kernels._is_right(OWN)


def test_where_programs_may_not_make_code_there_is_none(monkeypatch: pytest.MonkeyPatch):
    def refused(*arguments: object, **named: object) -> None:
        raise PermissionError

    monkeypatch.setattr(machine.mmap, "mmap", refused)
    assert host_isa.__wrapped__() == ""


def test_rows_of_an_odd_length_go_another_way():
    weight = torch.randn(20, 40, generator=seeded(7))
    rows = torch.randn(3, 40, generator=seeded(8))
    linear = OWN.prepare(quantise(weight))
    assert not isinstance(linear, NativeLinear)
    assert torch.dist(linear(rows), rows @ weight.t()) < 0.02 * (rows @ weight.t()).norm()


# --- its parts


@pytest.mark.parametrize("isa", here())
def test_the_exponential_is_right_to_the_last_places(isa: str):
    program = Program("test")
    f = program.function("all", 3, public=True)
    begin, end, to = f.arguments
    with f.loop(0, (end - begin) // 4, 8) as at:
        f.store(exponential(f, f.load(vector(F32, 8), begin + at * 4)), to + at * 4)
    f.close()
    code = Code(program, ISAS[isa], ["all"])
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(code.addresses["all"])
    x = np.linspace(-86.9, 87.9, 80_000, dtype=np.float32)
    got = np.empty_like(x)
    run(x.ctypes.data, x.ctypes.data + x.nbytes, got.ctypes.data)
    wanted = np.exp(x.astype(np.float64))
    assert float(np.max(np.abs(got - wanted) / wanted)) < 3e-7


HEADS = [(4, 4, 16), (8, 2, 32), (9, 3, 64), (10, 2, 48), (8, 1, 128)]


@pytest.mark.parametrize(("heads", "key_heads", "size"), HEADS)
def test_attention_is_torchs_own(heads: int, key_heads: int, size: int):
    """Two sequences at once: one that begins, and one of a single token after many."""
    program = Program("test")
    numbers = {"heads": heads, "key_heads": key_heads, "size": size}
    turn, look = write_turn(program, **numbers), write_look(program, **numbers)
    f = program.function("both", 1, public=True)
    fields = Fields(f, f.arguments[0])
    with f.loop(0, fields.rows) as token:
        f.call(turn, f.arguments[0], token)
    with f.loop(0, fields.chunks * key_heads) as place:
        f.call(look, f.arguments[0], place, fields.scratch)
    f.close()
    code = Code(program, ISAS[host_isa()], ["both"])

    layer, lengths, news = 1, (0, 3 * PAGE + 6), (5, 1)
    pool = Blocks(layers=2, key_heads=key_heads, size=size)
    caches = [PagedCache(pool) for _ in news]
    pasts = []
    for cache, length in zip(caches, lengths, strict=True):
        past = torch.randn(2, key_heads, length, size, generator=seeded(length))
        cache.reserve(length)
        for at, block in enumerate(past.split(PAGE, 2)):
            if length:
                cache._held[at].tensor[layer, :, :, : block.shape[2]] = block
        pasts.append(past)
    rows = sum(news)
    given = torch.randn(rows, heads + 2 * key_heads, size, generator=seeded(9))
    angles = torch.randn(rows, size // 2, generator=seeded(10))
    turned, seen = given.clone(), torch.zeros(rows, heads, size)
    places = [cache.reserve(new) for cache, new in zip(caches, news, strict=True)]
    tables = {
        "positions": [*range(5), lengths[1]],
        "sequences": [0] * 5 + [1],
        "caches": [0, len(places[0])],
        "blocks": [*places[0], *places[1]],
        "chunk_firsts": [0, 3, 5],
        "chunk_counts": [3, 2, 1],
    }
    held = {name: torch.tensor(table) for name, table in tables.items()}
    cosines, sines, scratch = angles.cos(), angles.sin(), torch.empty(4 * (lengths[1] + 20))
    arguments = Arguments()
    arguments.set(
        rows=rows,
        number=layer,
        chunks=3,
        heads=turned.data_ptr(),
        heads_stride=turned[0].numel() * 4,
        mixed=seen.data_ptr(),
        mixed_width=heads * size,
        cosines=cosines.data_ptr(),
        sines=sines.data_ptr(),
        scratch=scratch.data_ptr(),
        **{name: table.data_ptr() for name, table in held.items()},
    )
    code.functions["both"](arguments.address)

    half = size // 2
    cos, sin = torch.cat([cosines] * 2, 1)[:, None], torch.cat([-sines, sines], 1)[:, None]
    moving = given[:, : heads + key_heads]
    moved = moving * cos + moving.roll(half, -1) * sin
    begin = 0
    for past, new in zip(pasts, news, strict=True):
        part = slice(begin, begin + new)
        begin += new
        keys = torch.cat([past[0], moved[part, heads:].transpose(0, 1)], 1)
        values = torch.cat([past[1], given[part, heads + key_heads :].transpose(0, 1)], 1)
        total = keys.shape[1]
        expected = torch.nn.functional.scaled_dot_product_attention(
            moved[part, :heads].transpose(0, 1),
            keys.repeat_interleave(heads // key_heads, 0),
            values.repeat_interleave(heads // key_heads, 0),
            attn_mask=torch.ones(new, total).tril(total - new).bool(),
        )
        assert torch.allclose(seen[part], expected.transpose(0, 1), atol=2e-6)


# --- the cache


def written(cache: PagedCache, values: list[float]) -> None:
    """Append positions whose numbers all are one of `values` each."""
    before = cache.length
    cache.reserve(len(values))
    for at, value in enumerate(values, before):
        cache._held[at // PAGE].tensor[..., at % PAGE, :] = value


def read(cache: PagedCache) -> list[float]:
    return [
        float(cache._held[at // PAGE].tensor[0, 1, 0, at % PAGE, 3]) for at in range(cache.length)
    ]


def test_copies_share_what_is_full_and_never_what_is_written() -> None:
    pool = Blocks(layers=2, key_heads=1, size=16)
    one = PagedCache(pool)
    numbers = [float(n) for n in range(2 * PAGE + 20)]
    written(one, numbers)
    two = one.fork(2 * PAGE + 10)
    assert [a is b for a, b in zip(one._held, two._held, strict=True)] == [True, True, False]
    assert one.nbytes == two.nbytes == 2 * pool.nbytes
    written(two, [-1.0] * PAGE)
    written(one, [-2.0])
    assert read(one) == [*numbers, -2.0]
    assert read(two) == [*numbers[: 2 * PAGE + 10], *[-1.0] * PAGE]
    one.crop(PAGE + 5)
    written(one, [-3.0] * 4)  # Into a block that both hold.
    assert read(one) == [*numbers[: PAGE + 5], *[-3.0] * 4]
    assert read(two) == [*numbers[: 2 * PAGE + 10], *[-1.0] * PAGE]
    three = two.fork(PAGE)
    two.crop(PAGE)
    written(two, [-4.0])
    assert read(three) == numbers[:PAGE]
    assert read(two) == [*numbers[:PAGE], -4.0]


def test_blocks_come_back_once_nobody_holds_them() -> None:
    pool = Blocks(layers=1, key_heads=1, size=16)
    one = PagedCache(pool)
    one.reserve(1)
    free = len(pool._free)
    one.reserve(3 * PAGE)
    two = one.fork(2 * PAGE)
    del one
    assert len(pool._free) == free - 1  # Of four, two are held on.
    assert two.nbytes == 2 * pool.nbytes
    two.crop(0)
    assert two.nbytes == 0
    assert len(pool._free) == free + 1


def test_a_budget_is_kept_where_caches_share_blocks() -> None:
    pool = Blocks(layers=1, key_heads=1, size=16)
    prefixes = Prefixes(lambda: PagedCache(pool))
    for other in range(3):
        prefix = prefixes.take([*range(3 * PAGE), *[-other - 1] * 2 * PAGE])
        new = 5 * PAGE - len(prefix.keys)
        prefix.cache.reserve(new)
        prefix.keys += [*range(len(prefix.keys), 3 * PAGE), *[-other - 1] * 2 * PAGE]
        prefixes.give(prefix, budget=10 * pool.nbytes)
    assert prefixes.nbytes == 9 * pool.nbytes  # Three that all share, two of each.
    prefixes.give(prefixes.take([7]), budget=6 * pool.nbytes)
    assert prefixes.nbytes == 5 * pool.nbytes


# --- the whole


SHAPES = [
    {},
    {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 16},
    {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 64},
    {"intermediate_size": 176, "vocab_size": 501},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_a_model_computes_what_transformers_computes(tmp_path, changes, monkeypatch):
    """On weights that 8 bits hold exactly, so that only the rows are rounded."""
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    model = tiny_llama.make_exact(tmp_path / "model", **changes)
    config = LlamaConfig.from_pretrained(tmp_path / "model")
    engine = load_llama(tmp_path / "model", config, name="tiny", precision="int8")
    assert engine._native is not None
    ids = torch.randint(0, 500, (600,), generator=seeded(11)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    cache = engine.new_cache()
    pieces = [engine.forward([Step(cache=cache, ids=ids[:590], wanted=590)])[0]]
    pieces += [engine.forward([Step(cache=cache, ids=[one], wanted=1)])[0] for one in ids[590:]]
    got = torch.cat(pieces)
    assert float((got - expected).norm() / expected.norm()) < 0.04
    other = engine.new_cache()
    both = engine.forward(
        [
            Step(cache=other, ids=ids, wanted=600),
            Step(cache=cache, ids=ids[:3], wanted=1),
        ]
    )
    assert torch.equal(both[0], got)


def test_a_width_that_fills_no_panel_goes_layer_by_layer_through_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    config = tiny_llama.make(folder)
    config.hidden_size, config.head_dim = 48, 24
    torch.manual_seed(1)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    engine = load_llama(folder, config, name="tiny", precision="int8")
    assert engine._native is None
    ids = list(range(5, 60))
    got = engine.forward([Step(cache=engine.new_cache(), ids=ids, wanted=len(ids))])[0]
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    assert float((got - expected).norm() / expected.norm()) < 0.05
    assert not math.isnan(float(got.sum()))


def test_threads_that_come_back_during_a_pass_find_memory_of_their_own(tmp_path, monkeypatch):
    from corral.model_runtime.local.native import model

    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    config = tiny_llama.make(tmp_path / "model")
    engine = load_llama(tmp_path / "model", config, name="tiny", precision="int8")
    ids = list(range(5, 60))
    before = torch.get_num_threads()
    seen: list[int] = []

    def more() -> None:
        torch.set_num_threads(3 * model.os.cpu_count())
        seen.append(len(engine._native._scratch))

    try:
        torch.set_num_threads(1)
        alone = engine.forward([Step(cache=engine.new_cache(), ids=ids, wanted=55)])[0]
        monkeypatch.setattr(model, "adjust", more)
        together = engine.forward([Step(cache=engine.new_cache(), ids=ids, wanted=55)])[0]
        used = engine._native._arguments.raw[Arguments.place("threads")]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)
    assert used <= min(seen)
