"""The base of cria: SmolLM2-135M-Instruct as a Hugging Face folder, with Llama 3.2's token names.

SmolLM2 has seventeen special tokens, most of which lie idle in an assistant. Eight of them are
given the names of Llama 3.2's control tokens instead of adding new ones, so no row of the embedding
is new, and ChatML's message header, which the model knows, turns into Llama's. The rest are kept,
still special, under Llama's names for unused tokens.

The conversion reads the file with the `gguf` package alone. Sources: llama.cpp's `docs` on GGUF and
its `convert_hf_to_gguf.py` for the tensor names and for the order of the query and key rows;
SmolLM2's own `tokenizer.json` for the pre-tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import RuntimeUnavailable

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.floating[Any]]]

__all__ = [
    "LORA_MAPS",
    "RENAMED",
    "build_tokenizer",
    "config_from_gguf",
    "open_gguf",
    "read_weights",
    "write_folder",
]

RENAMED: dict[str, str] = {
    "<|endoftext|>": "<|end_of_text|>",
    "<|im_start|>": "<|start_header_id|>",
    "<|im_end|>": "<|eot_id|>",
    "<repo_name>": "<|begin_of_text|>",
    "<reponame>": "<|end_header_id|>",
    "<file_sep>": "<|eom_id|>",
    "<filename>": "<|finetune_right_pad_id|>",
    "<jupyter_code>": "<|python_tag|>",
}
"""SmolLM2's special token -> the Llama 3.2 token whose name it takes."""

LORA_MAPS: tuple[str, ...] = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The linear maps of a layer, all of which the adapters change."""

_CONTROL = 3  # gguf's token type for special tokens

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)


def open_gguf(path: Path) -> Any:
    """A `gguf.GGUFReader` over the file at `path`.

    Raises:
        RuntimeUnavailable: The package `gguf` is missing, or the file can't be read as GGUF.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Preparing cria needs the package {error.name!r}. "
            "Install it with: pip install 'llama-corral[local]'"
        ) from error
    try:
        return GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise RuntimeUnavailable(
            f"{str(path)!r} can't be read as a GGUF file ({error}). "
            "Delete it and run: corral models pull cria"
        ) from error


def _value(reader: Any, key: str) -> Any:
    return reader.fields[key].contents()


def config_from_gguf(reader: Any) -> dict[str, Any]:
    """The `config.json` of the folder, as transformers' `LlamaForCausalLM` reads it."""
    width = int(_value(reader, "llama.embedding_length"))
    heads = int(_value(reader, "llama.attention.head_count"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": _special_id(reader, "<|begin_of_text|>"),
        "eos_token_id": _end_ids(reader),
        "pad_token_id": _special_id(reader, "<|finetune_right_pad_id|>"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": int(_value(reader, "llama.feed_forward_length")),
        "max_position_embeddings": int(_value(reader, "llama.context_length")),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": int(_value(reader, "llama.block_count")),
        "num_key_value_heads": int(_value(reader, "llama.attention.head_count_kv")),
        # the file holds float32's nearest to 1e-5, written out in float64
        "rms_norm_eps": float(
            f"{float(_value(reader, 'llama.attention.layer_norm_rms_epsilon')):.6g}"
        ),
        "rope_scaling": None,
        "rope_theta": float(_value(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": len(_tokens(reader)),
    }


def read_weights(reader: Any) -> Weights:
    """Every tensor in float32, by its Hugging Face name.

    The output map is the embedding (tied), so it isn't listed.
    """
    import numpy as np
    from gguf.quants import dequantize

    heads = int(_value(reader, "llama.attention.head_count"))
    kv_heads = int(_value(reader, "llama.attention.head_count_kv"))
    weights: Weights = {}
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        name = _hf_name(tensor.name)
        if name.endswith("q_proj.weight"):
            array = _halves_first(array, heads)
        elif name.endswith("k_proj.weight"):
            array = _halves_first(array, kv_heads)
        weights[name] = array
    return weights


def _hf_name(name: str) -> str:
    match name.split("."):
        case ["token_embd", "weight"]:
            return "model.embed_tokens.weight"
        case ["output_norm", "weight"]:
            return "model.norm.weight"
        case ["blk", layer, part, "weight"] if part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"
        case _:
            raise RuntimeUnavailable(
                f"The model file holds a tensor {name!r} that SmolLM2 has no place for. "
                "Delete it and run: corral models pull cria"
            )


def _halves_first(array: NDArray[np.floating[Any]], heads: int) -> NDArray[np.floating[Any]]:
    """Undo llama.cpp's order of query and key rows.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), ...; transformers rotates row i with row i +
    half.
    """
    rows, width = array.shape
    return array.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _tokens(reader: Any) -> list[str]:
    """The vocabulary by id, special tokens under their new names."""
    tokens: list[str] = list(_value(reader, "tokenizer.ggml.tokens"))
    kinds: list[int] = list(_value(reader, "tokenizer.ggml.token_type"))
    unused = 0
    for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind != _CONTROL:
            continue
        if token in RENAMED:
            tokens[index] = RENAMED[token]
        else:
            tokens[index] = f"<|reserved_special_token_{unused}|>"
            unused += 1
    return tokens


def _special_id(reader: Any, token: str) -> int:
    return _tokens(reader).index(token)


def _end_ids(reader: Any) -> list[int]:
    tokens = _tokens(reader)
    return [tokens.index(t) for t in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")]


def build_tokenizer(reader: Any) -> tokenizers.Tokenizer:
    """SmolLM2's byte-level BPE, with its special tokens renamed and all of them still special.

    Nothing is put around a text: the prompt format says where `<|begin_of_text|>` goes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = _tokens(reader)
    kinds: list[int] = list(_value(reader, "tokenizer.ggml.token_type"))
    merges = [
        (left, right)
        for left, right in (m.split(" ") for m in _value(reader, "tokenizer.ggml.merges"))
    ]
    model: Any = models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    tokenizer: Any = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL
        ]
    )
    return tokenizer


def write_folder(reader: Any, weights: Weights, folder: Path) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, weights in float16.

    Args:
        reader: The GGUF file's reader, for the config and the tokenizer.
        weights: The tensors by their Hugging Face names, of any float type; an adapter may be
            merged into them.
        folder: An existing, empty folder.
    """
    import numpy as np
    from safetensors import numpy as safetensors_numpy

    config = config_from_gguf(reader)
    halves = {
        name: np.ascontiguousarray(array, dtype=np.float16) for name, array in weights.items()
    }
    writer: Any = safetensors_numpy  # its types are loose
    writer.save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
            "pad_token_id": config["pad_token_id"],
        },
    )
    build_tokenizer(reader).save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "pad_token": "<|finetune_right_pad_id|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
            "chat_template": _CHAT_TEMPLATE,
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
