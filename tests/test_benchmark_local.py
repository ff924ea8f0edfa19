"""The benchmark of the local runtime, in small: its model is right, and every table comes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_scripts import load_benchmark
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file

from training.gguf import write_gguf

llama_1b = load_benchmark("llama_1b")
local_runtime = load_benchmark("local_runtime")
options_module = load_benchmark("local_speed.options")
prompts_module = load_benchmark("local_speed.prompts")
ways = load_benchmark("local_speed.ways")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of two narrow layers with Llama 3's tokenizer."""
    return llama_1b.make(tmp_path_factory.mktemp("models") / "llama-3.2-tiny", shape="tiny")


@pytest.fixture
def small(folder):
    return options_module.Options(
        folder=folder,
        threads=torch.get_num_threads(),
        demo=f"transformers:{folder}",
        without=("transformers fp32",),
        **options_module.SMALL,
    )


def test_the_large_shape_has_as_many_weights_as_llama_3_2_1b():
    sizes = [shape for _, shape, _ in llama_1b._tensors(llama_1b.LLAMA_1B, copying=False)]
    assert sum(int(np.prod(size)) for size in sizes) == 1_235_814_400


def test_a_model_that_is_there_is_left_alone_and_never_taken_for_another(folder):
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    llama_1b.make(folder, shape="tiny")
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="made otherwise"):
        llama_1b.make(folder, shape="tiny", seed=21)


def test_both_files_hold_the_same_weights(folder, tmp_path):
    # The reader takes long over 128,256 tokens, so they are fewer here.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {n: i for n, i in tokenizer["model"]["vocab"].items() if i < 256}
    tokenizer["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    write_gguf(tmp_path, tmp_path / "model.gguf", name="tiny", quantised=True)
    weights = load_file(folder / "model.safetensors")
    tensors = {t.name: t for t in GGUFReader(tmp_path / "model.gguf").tensors}
    for name, here in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
    ):
        there = dequantize(tensors[name].data, tensors[name].tensor_type)
        wanted = weights[here].float().numpy()
        assert there.shape == wanted.shape
        assert np.abs(there - wanted).max() < np.abs(wanted).max() / 100
    # Llama 3.1's positions: fast ones as they are, slow ones stretched by the whole factor.
    factors = tensors["rope_freqs.weight"].data
    assert factors[0] == 1 and factors[-1] == 32


async def test_what_the_model_writes_is_read_back_as_it_was_written(small):
    prompts = prompts_module.Prompts(small.folder)
    way = ways.OtherWay(ways.Transformers(small.folder, prompts), "transformers")
    answer = await way.answer(prompts.user(40), 30)
    assert answer.tokens == len(answer.times) == 30
    assert len(prompts.tokenizer.encode_text(answer.text)) == 30
    assert answer.rate() > 0


def test_prompts_have_exactly_the_tokens_that_are_asked_for(folder):
    prompts = prompts_module.Prompts(folder)
    begin = prompts.preamble(30)
    assert prompts.count(begin) == 30
    assert prompts.count([*begin, *prompts.user(21, begin=False)]) == 51
    assert prompts.count(prompts.user(50, text=" which holds this")) == 50
    with pytest.raises(ValueError, match="no room"):
        prompts.user(5)


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ("speed", ["corral", "transformers"]),
        ("busy", ["corral", "transformers"]),
        ("loop", ["corral", "transformers"]),
        ("guard", ["corral: score, policy warm", "transformers: generate, cold"]),
        ("mask", ["no grammar", "inside a string of a JSON schema"]),
        ("compile", ["10 tools"]),
        ("sessions", ["llama-3.2-tiny shape"]),
        ("calls", ["6 | 6 |"]),
        ("turns", ["after 12 more"]),
    ],
)
async def test_every_table_is_printed(small, capsys, monkeypatch, section, rows):
    monkeypatch.syspath_prepend(Path(local_runtime.__file__).parent)  # for the processes it starts
    assert await local_runtime.measure(small, [section])
    printed = capsys.readouterr().out
    for row in rows:
        assert f"\n| {row}" in printed
    if section == "speed" and importlib.util.find_spec("llama_cpp") is None:
        assert "Not measured: llama.cpp Q8_0: not installed" in printed


async def test_loading_is_measured_in_a_process_of_its_own(small):
    loading = load_benchmark("local_speed.loading")
    found = loading._child("corral", small, str(small.folder.parent / "cache"))
    assert found["first token"] >= found["open"] > 0, json.dumps(found)


async def test_answers_that_copy_are_the_same_as_those_that_can_not(small, tmp_path):
    copying = tmp_path / "llama-3.2-copying"
    copying.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (copying / name).symlink_to(small.folder / name)
    config = json.loads((copying / "config.json").read_text())
    words = llama_1b.word_ids(prompts_module.Prompts(copying).vocabulary(control=False))
    llama_1b._write_weights(copying, config, words, copying=True, seed=20)
    reuse = load_benchmark("local_speed.reuse")
    prompts = prompts_module.Prompts(copying)
    way = ways.OtherWay(ways.Transformers(copying, prompts), "transformers")
    start = await reuse._start(way, prompts, small)
    found = await reuse._copied_and_not(way, prompts, small, *start)
    assert found["same"] == 1
    assert found["distinct"] > 8
