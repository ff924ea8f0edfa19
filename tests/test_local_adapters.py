"""LoRA adapters beside a model's weights, against what `peft` itself computes and writes."""

import gc
import json
import math
from pathlib import Path

import pytest

for package in ("peft", "torch", "transformers"):
    pytest.importorskip(package)

import peft  # noqa: E402
import tiny_llama  # noqa: E402
import tiny_mllama  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from corral.errors import ConfigError, RuntimeUnavailable  # noqa: E402
from corral.model_runtime import check_model_string, open_runtime  # noqa: E402
from corral.model_runtime.cria.build import adapter_path  # noqa: E402
from corral.model_runtime.cria.fetch import ensure_base  # noqa: E402
from corral.model_runtime.local import kernels, loading  # noqa: E402
from corral.model_runtime.local.engine import Step  # noqa: E402
from corral.model_runtime.local.loading import load_llama  # noqa: E402
from corral.model_runtime.local.sharing import LocalOptions, acquire  # noqa: E402
from corral.model_runtime.prompt import Prompt, Special  # noqa: E402
from corral.model_runtime.runtime import Piece, Sampling  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = [5, 3, 9, 7, *range(20, 70), 3, 9]
OWN = kernels._CPU["int8"][0]
BY_TORCH = next(one for one in kernels._CPU["int8"][1:] if kernels._is_right(one))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))


def a_model(folder: Path, **changes: object) -> LlamaConfig:
    tiny_llama.make_exact(folder, **changes)
    return LlamaConfig.from_pretrained(folder)


def an_adapter(model: Path, folder: Path, *, seed: int = 1, **changes: object) -> torch.Tensor:
    """Have peft write an adapter that changes something; its logits for IDS."""
    given = {"r": 5, "lora_alpha": 12, "target_modules": EVERY, "task_type": "CAUSAL_LM"}
    plain = LlamaForCausalLM.from_pretrained(model).eval()
    adapted = peft.get_peft_model(plain, peft.LoraConfig(**(given | changes))).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                size = 0.05 if "lora" in name else 0.3
                parameter.add_(torch.randn_like(parameter) * size)
    adapted.save_pretrained(folder)
    with torch.inference_mode():
        return adapted(torch.tensor([IDS])).logits[0]


def logits(engine, ids=IDS) -> torch.Tensor:
    return engine.forward([Step(cache=engine.new_cache(), ids=ids, wanted=len(ids))])[0]


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


CHANGES = [
    {},
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["k_proj", "up_proj"], "r": 20, "use_rslora": True},
    {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"o_proj": 3, "layers.1.mlp.up_proj": 30}},
    {"trainable_token_indices": [3, 7, 9], "modules_to_save": ["model.norm"]},
    {"layers_to_transform": [1]},
    {"r": 120, "lora_alpha": 60},  # joined, more than the model is wide
]


@pytest.mark.parametrize("changes", CHANGES)
def test_an_adapter_changes_what_it_changes_in_peft(tmp_path: Path, changes):
    config = a_model(tmp_path / "model")
    wanted = an_adapter(tmp_path / "model", tmp_path / "adapter", **changes)
    plain = load_llama(tmp_path / "model", config, name="tiny", precision="fp32")
    engine = load_llama(
        tmp_path / "model", config, name="tiny", precision="fp32", adapter=tmp_path / "adapter"
    )
    assert off(logits(engine), wanted) < 1e-5
    assert off(logits(plain), wanted) > 0.05
    assert engine.nbytes > plain.nbytes


@pytest.mark.parametrize("kernel", [OWN, BY_TORCH], ids=["corral", "torch"])
@pytest.mark.parametrize("changes", CHANGES)
def test_in_8_bits_it_is_right_and_the_same_in_pieces(tmp_path: Path, changes, kernel, monkeypatch):
    if kernel is OWN and not kernels._is_right(OWN):
        pytest.skip("Corral has no machine code for this processor.")
    monkeypatch.setattr(loading, "choose_kernel", lambda device, precision: kernel)
    config = a_model(tmp_path / "model")
    wanted = an_adapter(tmp_path / "model", tmp_path / "adapter", **changes)
    engine = load_llama(tmp_path / "model", config, name="tiny", adapter=tmp_path / "adapter")
    assert (engine._native is not None) == (kernel is OWN)
    got = logits(engine)
    assert off(got, wanted) < 0.04
    cache = engine.new_cache()
    pieces = [engine.forward([Step(cache=cache, ids=IDS[:40], wanted=40)])[0]]
    pieces += [engine.forward([Step(cache=cache, ids=[one], wanted=1)])[0] for one in IDS[40:]]
    assert torch.equal(torch.cat(pieces), got)
    other = engine.new_cache()
    both = engine.forward(
        [Step(cache=other, ids=IDS, wanted=len(IDS)), Step(cache=cache, ids=[4, 3], wanted=1)]
    )
    assert torch.equal(both[0], got)


def test_a_head_of_its_own_keeps_its_rows(tmp_path: Path):
    config = a_model(tmp_path / "model", tie_word_embeddings=False)
    wanted = an_adapter(tmp_path / "model", tmp_path / "adapter", trainable_token_indices=[3, 9])
    engine = load_llama(
        tmp_path / "model", config, name="tiny", precision="fp32", adapter=tmp_path / "adapter"
    )
    assert off(logits(engine), wanted) < 1e-5


# --- sharing


def test_adapters_of_one_model_share_its_weights_until_nobody_needs_them(tmp_path: Path):
    folder = tmp_path / "model"
    config = a_model(folder)
    wanted = [an_adapter(folder, tmp_path / f"{n}", seed=n) for n in (1, 2)]
    one, other, none = (
        load_llama(folder, config, name="tiny", precision="fp32", adapter=adapter)
        for adapter in (tmp_path / "1", tmp_path / "2", None)
    )
    assert one._keeps is other._keeps is none._keeps
    assert off(logits(one), wanted[0]) < 1e-5
    assert off(logits(other), wanted[1]) < 1e-5
    assert off(logits(one), wanted[1]) > 0.05
    before = len(loading._held)
    del one, other, none
    gc.collect()
    assert len(loading._held) == before - 1


async def test_models_in_memory_are_told_apart_by_their_adapters(tmp_path: Path):
    folder = tmp_path / "model"
    tokenizer = (await ensure_base()) / "tokenizer.json"
    tiny_llama.make(folder, tokenizer=tokenizer)
    an_adapter(folder, tmp_path / "one")
    options = [LocalOptions(adapter=tmp_path / "one"), LocalOptions()]
    models = [acquire(folder, name="tiny", options=one) for one in (*options, options[0])]
    assert models[0] is models[2] is not models[1]
    an_adapter(folder, tmp_path / "one", seed=2, r=7)
    models.append(acquire(folder, name="tiny", options=options[0]))
    assert models[3] is not models[0]
    for model in models:
        model.release()


async def test_the_demonstration_models_are_one_base_and_two_adapters():
    cria, guard = await open_runtime("cria"), await open_runtime("cria-guard")
    one, other = (runtime._model.scheduler._engine for runtime in (cria, guard))
    assert one._keeps is other._keeps
    await cria.aclose()
    await guard.aclose()


@pytest.mark.parametrize("name", ["cria", "cria-guard"])
async def test_peft_reads_the_demonstration_models_adapters_as_corral_does(name):
    base, folder = await ensure_base(), adapter_path(name)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    config = LlamaConfig.from_pretrained(base)
    engine = load_llama(base, config, name=name, precision="fp32", adapter=folder)
    with torch.inference_mode():
        wanted = adapted(torch.tensor([IDS])).logits[0]
    assert off(logits(engine), wanted) < 1e-4


# --- from a model string


async def test_a_model_string_names_an_adapter(tmp_path: Path):
    folder = tmp_path / "Llama-3.2-1B"
    tiny_llama.make(folder, tokenizer=(await ensure_base()) / "tokenizer.json")
    an_adapter(folder, tmp_path / "adapter")
    prompt = Prompt((Special("<|begin_of_text|>", "user"),))

    async def write(model: str) -> str:
        runtime = await open_runtime(model)
        sampling = Sampling(temperature=0.0, max_tokens=8)
        pieces = [p async for p in runtime.generate(prompt, sampling=sampling)]
        await runtime.aclose()
        return "".join(p.text for p in pieces if isinstance(p, Piece))

    plain = f"transformers:{folder}?precision=fp32"
    assert await write(plain) != await write(f"{plain}&adapter={tmp_path / 'adapter'}")


@pytest.mark.parametrize("model", ["cria?adapter=x", "cria-guard?precision=fp32&adapter=x"])
def test_an_adapter_takes_no_other(model: str):
    with pytest.raises(ConfigError, match="is an adapter itself and takes no other"):
        check_model_string(model)


async def test_a_folder_without_an_adapter_is_named(tmp_path: Path):
    tiny_llama.make(tmp_path / "m", tokenizer=(await ensure_base()) / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"holds no adapter_config\.json.*save_pretrained"):
        await open_runtime(f"transformers:{tmp_path / 'm'}?adapter={tmp_path}")
    with pytest.raises(ConfigError, match="There is no model folder"):
        await open_runtime(f"transformers:{tmp_path / 'm'}?adapter={tmp_path / 'none'}")


async def test_a_model_that_sees_takes_none(tmp_path: Path):
    tiny_mllama.make(tmp_path / "m")
    options = LocalOptions(adapter=tmp_path / "a")
    a_model(tmp_path / "text")
    an_adapter(tmp_path / "text", tmp_path / "a")
    with pytest.raises(ConfigError, match="adds adapters to text models"):
        acquire(tmp_path / "m", name="seer", options=options)


# --- what can't be added


def refused(tmp_path: Path, **changes: object) -> str:
    config = a_model(tmp_path / "model")
    if not (tmp_path / "adapter").exists():
        an_adapter(tmp_path / "model", tmp_path / "adapter", **changes)
    with pytest.raises(RuntimeUnavailable) as caught:
        load_llama(
            tmp_path / "model", config, name="m", precision="fp32", adapter=tmp_path / "adapter"
        )
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"target_modules": [*EVERY, "lm_head"]}, "lm_head"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
    ],
)
def test_what_is_not_plain_lora_is_refused_with_what_to_do(tmp_path: Path, changes, named: str):
    said = refused(tmp_path, **changes)
    assert named in said
    assert "merge_and_unload" in said


@pytest.mark.parametrize("setting", ["peft_type", "something_new"])
def test_settings_that_nobody_knows_are_refused(tmp_path: Path, setting: str):
    a_model(tmp_path / "model")
    an_adapter(tmp_path / "model", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: "NEWER"}))
    assert f"{setting} = 'NEWER'" in refused(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1}, {"intermediate_size": 128}, {"vocab_size": 8}],
)
def test_an_adapter_of_another_model_is_refused(tmp_path: Path, changes):
    a_model(tmp_path / "other")
    an_adapter(tmp_path / "other", tmp_path / "adapter", trainable_token_indices=[3, 9])
    config = a_model(tmp_path / "model", **changes)
    with pytest.raises(RuntimeUnavailable, match="was made for another model"):
        load_llama(tmp_path / "model", config, name="m", adapter=tmp_path / "adapter")


def broken(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if not name.endswith("q_proj.lora_B.weight")}


def uneven(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t[:3] if "lora_A" in name else t for name, t in tensors.items()}


@pytest.mark.parametrize("harm", [broken, uneven, None])
def test_a_damaged_adapter_is_said_to_be(tmp_path: Path, harm):
    a_model(tmp_path / "model")
    an_adapter(tmp_path / "model", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    if harm is None:
        path.write_bytes(path.read_bytes()[:200])
    else:
        save_file({n: t.contiguous() for n, t in harm(load_file(path)).items()}, path)
    assert "is damaged" in refused(tmp_path)


def test_numbers_stay_numbers_where_an_adapter_is_all_zero(tmp_path: Path):
    config = a_model(tmp_path / "model")
    an_adapter(tmp_path / "model", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in load_file(path).items()}, path)
    engine = load_llama(tmp_path / "model", config, name="m", adapter=tmp_path / "adapter")
    plain = load_llama(tmp_path / "model", config, name="m")
    assert not math.isnan(float(logits(engine).sum()))
    assert torch.equal(logits(engine), logits(plain))
