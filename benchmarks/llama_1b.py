"""Make a model of Llama 3.2 1B's exact shape with random weights, to measure runtimes with.

    python benchmarks/llama_1b.py FOLDER [--shape 1b|100m|tiny] [--copying]

FOLDER gets what Hugging Face's layout holds (config.json, bfloat16 safetensors, tokenizer.json),
and the same weights for llama.cpp as `model-q8_0.gguf`: 2.5 GB and 1.3 GB, in a minute on two
cores. A folder that is there is left alone.

The weights are seeded and scaled so that numbers pass through the layers as in a model before its
training, but for two things in which they are made to behave like one after it:

- Queries and keys are larger, so that attention picks a few tokens instead of averaging all. An
  output then depends on the whole context, and an engine that guesses tokens from earlier text has
  nothing to gain by accident.
- Tokens that are no lower-case English-looking word have half the embedding, so that the likeliest
  token is always such a word. An output that is read back as text has the tokens it was written
  with, and never ends before its time.

With `--copying` the attention's outputs are next to nothing, so that a token depends on the one
before it alone. Such a model, shown a text it wrote, writes the same again: an answer that copies.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
GGUF = "model-q8_0.gguf"
VERSION = 1
LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}
"""The shape, as meta-llama/Llama-3.2-1B-Instruct publishes it."""

SHAPES: dict[str, dict[str, int]] = {
    "1b": {},
    "100m": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 2,
    },
    "tiny": {
        "head_dim": 32,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
    },
}
"""What is different in smaller ones, for trying things out."""

_ATTENDING = 1.9
"""How much larger queries and keys are. At 1, attention is nearly an average."""

_NOTHING = 1e-20
"""So little that adding it changes no float, and yet no zero, of which no 8-bit scale can be made.
"""

_WORD = re.compile(r" [a-z]{2,}")


def make(folder: Path, *, shape: str = "1b", copying: bool = False, seed: int = 20) -> Path:
    """Make the model in `folder` unless it is there. Returns the folder.

    Raises:
        ValueError: Another model is there.
    """
    marker = folder / "made.json"
    wanted = {"shape": shape, "copying": copying, "seed": seed, "version": VERSION}
    if marker.is_file():
        if json.loads(marker.read_text()) != wanted:
            raise ValueError(
                f"{str(folder)!r} holds a model that was made otherwise: {marker.read_text()}. "
                "Name another folder, or remove this one."
            )
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = LLAMA_1B | SHAPES[shape]
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        _write_json(unfinished / "config.json", config)
        _write_json(
            unfinished / "generation_config.json",
            {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]},
        )
        words = word_ids(_write_tokenizer(unfinished))
        _write_weights(unfinished, config, words, copying=copying, seed=seed)
        _write_gguf(unfinished, f"llama-{shape}")
        _write_json(unfinished / "made.json", wanted)
        unfinished.chmod(0o755)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def word_ids(names: dict[str, int]) -> list[int]:
    """Of a vocabulary, the ids of lower-case words with the space before them."""
    return sorted(i for name, i in names.items() if _WORD.fullmatch(name.replace("Ġ", " ")))


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Write Llama 3's tokenizer. Returns its vocabulary, control tokens left out."""
    import llama_models.llama3.tokenizer as llama3
    from transformers.convert_slow_tokenizer import TikTokenConverter

    ids = llama3.Tokenizer.get_instance().special_tokens
    tokenizer: Any = TikTokenConverter(
        vocab_file=str(Path(llama3.__file__).parent / "tokenizer.model"),
        extra_special_tokens=sorted(ids, key=ids.__getitem__),
    ).converted()
    if {name: tokenizer.token_to_id(name) for name in ids} != ids:
        raise ValueError("The converted tokenizer numbers control tokens otherwise than Llama's.")
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "model_max_length": 131072,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    return tokenizer.get_vocab(with_added_tokens=False)


def _write_weights(
    folder: Path, config: dict[str, Any], words: list[int], *, copying: bool, seed: int
) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, shape, scale in _tensors(config, copying=copying):
        if len(shape) == 1:
            weights[name] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        made = torch.randn(shape, generator=generator).mul_(scale)
        if name == "model.embed_tokens.weight":
            others = torch.ones(shape[0], dtype=torch.bool)
            others[words] = False
            made[others] *= 0.5
        weights[name] = made.to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tensors(
    config: dict[str, Any], *, copying: bool
) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Name, shape and standard deviation of every weight; norms are ones."""
    wide, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    # Of an input of size 1, a matrix of this scale makes outputs of size 0.9, at any width.
    scale = 0.9 / wide**0.5
    yield "model.embed_tokens.weight", (config["vocab_size"], wide), scale
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (wide,), 1
        yield f"{at}.self_attn.q_proj.weight", (queries, wide), scale * _ATTENDING
        yield f"{at}.self_attn.k_proj.weight", (keys, wide), scale * _ATTENDING
        yield f"{at}.self_attn.v_proj.weight", (keys, wide), scale
        yield f"{at}.self_attn.o_proj.weight", (wide, queries), _NOTHING if copying else scale
        yield f"{at}.post_attention_layernorm.weight", (wide,), 1
        yield f"{at}.mlp.gate_proj.weight", (inner, wide), scale
        yield f"{at}.mlp.up_proj.weight", (inner, wide), scale
        yield f"{at}.mlp.down_proj.weight", (wide, inner), scale
    yield "model.norm.weight", (wide,), 1


def _write_gguf(folder: Path, name: str) -> None:
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from training.gguf import write_gguf

    write_gguf(folder, folder / GGUF, name=name, quantised=True)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="1b")
    parser.add_argument("--copying", action="store_true", help="answers that copy earlier text")
    parser.add_argument("--seed", type=int, default=20)
    chosen = parser.parse_args(arguments)
    print(make(chosen.folder, shape=chosen.shape, copying=chosen.copying, seed=chosen.seed))


if __name__ == "__main__":
    main()
