"""The engine in this process: exact in every company, right against transformers, kept on disk."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path

import pytest
import tiny_llama
import torch
from benchmark_scripts import load_benchmark
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from corral.errors import RuntimeUnavailable
from corral.model_runtime.cria.build import adapter_path
from corral.model_runtime.cria.fetch import ensure_base, ensure_merged
from corral.model_runtime.local import kernels, loading
from corral.model_runtime.local.checkpoint import Checkpoint
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.kernels import (
    Kernel,
    choose_kernel,
    quantise,
)
from corral.model_runtime.local.kernels import _is_right as is_right
from corral.model_runtime.local.loading import check_memory, load_llama
from corral.model_runtime.local.prefixes import Prefixes, common_length
from corral.model_runtime.local.weights import converted_path, prepare_all

LONG = list(range(40, 340))


@pytest.fixture(scope="module", params=["int8", "int8 by torch", "fp32"])
async def engine(request):
    """cria: as it is taken here, as where Corral has no machine code of its own, and exact."""
    folder = await ensure_base()
    precision, _, by_torch = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patched:
        if by_torch:
            right = next(
                one for one in kernels._CPU["int8"] if one.name != "corral" if is_right(one)
            )
            patched.setattr(loading, "choose_kernel", lambda *about: right)
        engine = load_llama(
            folder,
            AutoConfig.from_pretrained(folder),
            name="cria",
            precision=precision,
            adapter=adapter_path("cria"),
        )
    assert (engine._native is None) or not by_torch
    return engine


def logits(engine, *steps: tuple[object, list[int]]) -> list[torch.Tensor]:
    wanted = [Step(cache=cache, ids=ids, wanted=len(ids)) for cache, ids in steps]
    return engine.forward(wanted)


def test_a_prompt_in_pieces_gives_the_same_numbers_as_in_one(engine):
    whole = logits(engine, (engine.new_cache(), LONG))[0]
    cache = engine.new_cache()
    cuts = [0, 1, 3, 64, 65, 70, 200, 201, len(LONG)]
    parts = [logits(engine, (cache, LONG[a:b]))[0] for a, b in zip(cuts, cuts[1:], strict=False)]
    assert cache.length == len(LONG)
    same(engine, torch.cat(parts), whole)


def test_a_token_gives_the_same_numbers_among_others_as_alone(engine):
    lengths = [1, 40, 255, 256, 299]
    alone, together = [], []
    for n in lengths:
        for caches in (alone, together):
            caches.append(engine.new_cache())
            logits(engine, (caches[-1], LONG[:n]))
    by_itself = [logits(engine, (c, [LONG[n]]))[0] for c, n in zip(alone, lengths, strict=True)]
    packed = logits(engine, *[(c, [LONG[n]]) for c, n in zip(together, lengths, strict=True)])
    same(engine, torch.cat(packed), torch.cat(by_itself))


def test_the_number_of_threads_changes_no_number(engine):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            cache = engine.new_cache()
            parts = [LONG[:128], LONG[128:131], LONG[131:290], LONG[290:291], LONG[291:]]
            found.append(torch.cat([logits(engine, (cache, part))[0] for part in parts]))
    finally:
        torch.set_num_threads(before)
    same(engine, found[1], found[0])
    same(engine, found[2], found[0])


def same(engine, got: torch.Tensor, expected: torch.Tensor) -> None:
    """To the bit in int8; in float32 as close as its products of one and of many rows are."""
    assert torch.equal(got.argmax(-1), expected.argmax(-1))
    if "int8" in engine.summary:
        assert torch.equal(got, expected)
    else:
        assert torch.allclose(got, expected, atol=1e-3)


def test_a_cache_that_was_cropped_or_copied_goes_on_as_if_nothing_had_been(engine):
    cache = engine.new_cache()
    expected = logits(engine, (cache, LONG))[0][100:]
    fork = cache.fork(100)
    cache.crop(100)
    logits(engine, (fork, [7, 8, 9]))  # writes to the copy alone
    same(engine, logits(engine, (cache, LONG[100:]))[0], expected)
    fork.crop(100)
    same(engine, logits(engine, (fork, LONG[100:]))[0], expected)
    assert cache.nbytes > 0
    cache.crop(0)
    assert cache.nbytes == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 8, "head_dim": 32},
        {"tie_word_embeddings": False},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ],
    ids=["grouped", "ungrouped", "own head", "scaled positions"],
)
def test_it_computes_what_transformers_computes(tmp_path: Path, changes):
    given = {
        "vocab_size": 500,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    config = LlamaConfig(**(given | changes))
    torch.manual_seed(3)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    engine = load_llama(
        tmp_path, AutoConfig.from_pretrained(tmp_path), name="tiny", precision="fp32"
    )
    ids = torch.randint(0, 500, (90,)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    assert torch.allclose(logits(engine, (engine.new_cache(), ids))[0], expected, atol=1e-4)


async def test_torchs_own_attention_as_on_a_gpu_gives_the_same(monkeypatch):
    """Without a GPU its way of attention runs here on the CPU."""
    from corral.model_runtime.local import attention

    folder = await ensure_merged("cria")
    engine = load_llama(folder, AutoConfig.from_pretrained(folder), name="c", precision="fp32")

    def computed() -> torch.Tensor:
        one, other = engine.new_cache(), engine.new_cache()
        logits(engine, (one, LONG[:50]))
        first = logits(engine, (one, LONG[50:51]), (other, LONG[:30]))
        return torch.cat([*first, *logits(engine, (one, LONG[51:60]), (other, LONG[30:31]))])

    exact = computed()
    monkeypatch.setattr(attention, "_exact", attention._fused)
    assert torch.allclose(computed(), exact, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
async def test_other_precisions_agree_as_far_as_they_can(precision):
    folder = await ensure_merged("cria")
    config = AutoConfig.from_pretrained(folder)
    exact = load_llama(folder, config, name="cria", precision="fp32")
    other = load_llama(folder, config, name="cria", precision=precision)
    a = logits(exact, (exact.new_cache(), LONG[:60]))[0]
    b = logits(other, (other.new_cache(), LONG[:60]))[0]
    assert float(torch.dist(a, b)) < 0.1 * float(torch.linalg.vector_norm(a))


def test_a_kernel_that_overflows_or_forgets_rows_is_not_taken():
    def saturating(weight):
        """As processors do that add two products of unsigned and signed bytes in 16 bits."""
        values = weight.values.int()

        def linear(x):
            largest = x.abs().amax(-1, keepdim=True).clamp_min(1e-30)
            rounded = (x / largest * 127).round().int() + 128
            pairs = rounded[:, None, 0::2] * values[:, 0::2]
            pairs = (pairs + rounded[:, None, 1::2] * values[:, 1::2]).clamp(-32768, 32767)
            return (pairs.sum(-1) - 128 * values.sum(-1)) * largest / 127 * weight.scales

        return linear

    def per_tensor(weight):
        """With one scale for all rows, so that an outlier in one drowns the others."""
        exact = weight.values.float() * weight.scales[:, None]

        def linear(x):
            step = x.abs().max() / 127
            return (x / step).round() * step @ exact.t()

        return linear

    for prepare in (saturating, per_tensor):
        assert not is_right(Kernel(name="wrong", precision="int8", prepare=prepare))
    assert is_right(choose_kernel("cpu", "int8"))


def test_rows_with_outliers_lose_nothing_of_the_rest():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    linear = choose_kernel("cpu", "int8").prepare(quantise(weight))
    row = torch.randn(1, 512, generator=torch.Generator().manual_seed(2))
    outlying = row.clone()
    outlying[0, 7] = 400.0
    difference = linear(outlying) - linear(row)
    expected = (outlying - row) @ weight.t()
    assert float(torch.dist(difference, expected)) < 0.02 * float(torch.dist(expected, row[:, :64]))


def test_int8_costs_less_than_one_percent_of_perplexity():
    # the whole figure, over 20,000 tokens, comes from benchmarks/perplexity.py
    perplexity = load_benchmark("perplexity")
    exact, rounded = (perplexity.measure(p, tokens=1500) for p in ("fp32", "int8"))
    assert exact < rounded * 1.01 and rounded < exact * 1.01


def test_packing_in_threads_leaves_the_warnings_filters_as_they_were(monkeypatch):
    class Weights:
        def matrix(self, name: str):
            return weight

    weight = quantise(torch.randn(128, 128))
    kernel = choose_kernel("cpu", "int8")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    before = list(warnings.filters)
    for _ in range(10):
        assert len(prepare_all(kernel, Weights(), [str(n) for n in range(40)])) == 40
        assert warnings.filters == before


async def test_converted_weights_are_kept_and_made_anew_when_the_files_change(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    config = tiny_llama.make(tmp_path / "model")
    told: list[tuple[int, int]] = []

    def load():
        told.clear()
        return load_llama(
            tmp_path / "model",
            config,
            name="tiny",
            precision="int8",
            tell=lambda done, steps: told.append((done, steps)),
        )

    def answer(engine) -> torch.Tensor:
        return logits(engine, (engine.new_cache(), LONG[:20]))[0]

    first = answer(load())
    assert told[-1][0] == told[-1][1]
    kept = list((tmp_path / "cache" / "int8").iterdir())
    assert [path.suffix for path in kept] == [".safetensors"]
    assert torch.equal(answer(load()), first)
    assert told == []  # nothing was converted

    kept[0].write_bytes(kept[0].read_bytes()[:200])  # a damaged file is made anew
    assert torch.equal(answer(load()), first)
    assert told

    tiny_llama.make(tmp_path / "model", seed=2)
    assert not torch.equal(answer(load()), first)
    assert told


async def test_a_full_disk_costs_the_next_start_time_and_nothing_else(tmp_path: Path, monkeypatch):
    config = tiny_llama.make(tmp_path / "model")
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="CORRAL_CACHE to another folder"):
        engine = load_llama(tmp_path / "model", config, name="tiny", precision="int8")
    assert logits(engine, (engine.new_cache(), [1, 2]))[0].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised by another"),
        ({"attention_bias": True}, "biases"),
        ({"vocab_size": 399}, "don't belong together"),
    ],
)
def test_what_it_can_not_run_is_said_before_it_runs(tmp_path: Path, changes, said):
    tiny_llama.make(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    config = LlamaConfig.from_pretrained(tmp_path)
    with pytest.raises(RuntimeUnavailable, match=said):
        load_llama(tmp_path, config, name="odd", precision="fp32")


def test_weights_that_are_not_whole_are_named(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    config = tiny_llama.make(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeUnavailable, match=r"layers\.1\.mlp\.up_proj"):
        load_llama(tmp_path, config, name="torn", precision="fp32")


def test_a_model_that_is_too_large_says_what_would_fit():
    with pytest.raises(RuntimeUnavailable, match=r"needs 9313\.2 GiB.*it would need 1 GiB"):
        check_memory(10**13 // 11 * 10, "big", "cpu", smaller="With int8 it would need 1 GiB. ")


def test_a_device_that_is_not_here_is_said(tmp_path: Path):
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnavailable, match="no device 'cuda'. It has: .*cpu"):
            load_llama(tmp_path, tiny_llama.make(tmp_path), name="tiny", device="cuda")


class Counted:
    """A cache that counts its bytes as its tokens."""

    def __init__(self, length: int = 0) -> None:
        self.length = length

    @property
    def nbytes(self) -> int:
        return self.length

    def crop(self, length: int) -> None:
        self.length = min(length, self.length)

    def fork(self, length: int) -> Counted:
        return Counted(length)


def filled(prefixes: Prefixes, keys: list[int], *, budget: int = 10**6):
    prefix = prefixes.take(keys)
    known = len(prefix.keys)
    prefix.cache.length = len(keys)
    prefix.keys[:] = keys
    prefixes.give(prefix, budget=budget)
    return known


def test_the_longest_beginning_is_found_and_conversations_stay_apart():
    prefixes = Prefixes(Counted)
    opening = list(range(100))
    one, other = [*opening, *range(1000, 1200)], [*opening, *range(2000, 2300)]
    assert filled(prefixes, one) == 0
    assert filled(prefixes, other) == 100  # copied, so that both are there
    assert filled(prefixes, [*one, 5]) == 300
    assert filled(prefixes, [*other, 5]) == 400
    assert filled(prefixes, [*one, 5]) == 300  # one is left to compute


def test_a_short_end_is_cut_off_and_a_cache_in_use_is_copied():
    prefixes = Prefixes(Counted)
    policy = list(range(700))
    filled(prefixes, [*policy, *range(1000, 1150)])
    used = prefixes.take([*policy, 9])
    assert len(used.keys) == 700
    assert prefixes.nbytes == 700  # no second copy
    beside = prefixes.take([*policy, 8])
    assert beside is not used and len(beside.keys) == 700


def test_the_least_recently_used_goes_first_and_the_budget_is_kept():
    prefixes = Prefixes(Counted)
    talks = [[n, *range(n * 1000, n * 1000 + 99)] for n in range(1, 6)]
    for talk in talks:
        filled(prefixes, talk, budget=300)
    assert prefixes.nbytes == 300
    assert [len(prefixes.take([*talk, 1]).keys) for talk in talks] == [0, 0, 100, 100, 100]


@pytest.mark.parametrize("at", [0, 1, 2, 499, 500, 999, 1000])
def test_common_beginnings_are_counted_exactly(at):
    a = list(range(1000))
    b = [*a[:at], -1, *a[at + 1 :]][:1000]
    assert common_length(a, b) == at
    assert common_length(a, a[:at]) == at


def test_a_file_changed_in_place_is_another_checkpoint(tmp_path: Path):
    tiny_llama.make(tmp_path)
    before = converted_path(Checkpoint(tmp_path))
    assert converted_path(Checkpoint(tmp_path)) == before
    tiny_llama.make(tmp_path, seed=5)
    assert converted_path(Checkpoint(tmp_path)) != before


def test_converted_weights_that_nobody_uses_make_room(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))

    def loaded(seed: int) -> Path:
        folder = tmp_path / f"model-{seed}"
        if not folder.exists():
            tiny_llama.make(folder, seed=seed)
        load_llama(folder, AutoConfig.from_pretrained(folder), name="x", precision="int8")
        return converted_path(Checkpoint(folder))

    old, used, fresh = loaded(1), loaded(2), loaded(3)
    left, other = old.with_name(".left.part"), old.with_name("notes.txt")
    left.touch()
    other.touch()
    for path, days in {old: 31, used: 31, fresh: 29, left: 2, other: 400}.items():
        then = time.time() - days * 86_400
        os.utime(path, (then, then))
    assert loaded(2) == used  # which is a use
    assert set(old.parent.iterdir()) == {old, used, fresh, left, other}
    newest = loaded(4)
    assert set(old.parent.iterdir()) == {used, fresh, other, newest}
