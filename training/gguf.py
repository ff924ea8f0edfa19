"""Write a cria model as a GGUF file: `python -m training.gguf cria cria.gguf`.

For servers on llama.cpp (llama-cpp-python, llama.cpp's own, Ollama by a Modelfile of `FROM
./cria.gguf`). The weights are those of the folder that Corral runs, in 16 bits as they are there,
or widened to 32 (`--type f32`), which takes twice the room and computes closest to Corral's own.

Sources: the GGUF specification and `convert_hf_to_gguf.py` of llama.cpp, for the names and for the
order of query and key rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from safetensors import safe_open

from corral.model_runtime.cria.fetch import ensure

__all__ = ["main", "write_gguf"]

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_END = {"eos": "<|eot_id|>", "eot": "<|eot_id|>", "eom": "<|eom_id|>"}


def write_gguf(folder: Path, file: Path, *, name: str, wide: bool = False) -> None:
    """Write the model in `folder`, in Hugging Face's layout, as a GGUF file.

    `wide` makes the weights float32; otherwise they are float16, but for the norms.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer: Any = GGUFWriter(file, "llama")
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_vocabulary(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    _add_weights(writer, folder / "model.safetensors", config, wide=wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, tokenizer: dict[str, Any]) -> None:
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids = {**ids, **special}
    tokens = sorted(ids, key=ids.__getitem__)
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens]
    )
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(ids["<|begin_of_text|>"])
    writer.add_eos_token_id(ids[_END["eos"]])
    writer.add_eot_token_id(ids[_END["eot"]])
    writer.add_eom_token_id(ids[_END["eom"]])
    writer.add_pad_token_id(ids["<|finetune_right_pad_id|>"])
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _add_weights(writer: Any, file: Path, config: dict[str, Any], *, wide: bool) -> None:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    opened: Any = safe_open(file, framework="numpy")
    with opened as weights:
        for key in weights.keys():
            array = weights.get_tensor(key)
            name = _name(key)
            part = name.split(".")[-2]
            if part in heads:
                array = _neighbours_first(array, heads[part])
            norm = array.ndim == 1
            kind = GGMLQuantizationType.F32 if wide or norm else GGMLQuantizationType.F16
            width = np.float32 if wide or norm else np.float16
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=width), raw_dtype=kind)


def _name(key: str) -> str:
    match key.split("."):
        case ["model", "embed_tokens", "weight"]:
            return "token_embd.weight"
        case ["model", "norm", "weight"]:
            return "output_norm.weight"
        case ["model", "layers", layer, *part, "weight"]:
            return f"blk.{layer}.{_NAMES['.'.join(part)]}.weight"
        case _:
            raise ValueError(f"There is no place for {key!r} in a Llama's GGUF file.")


def _neighbours_first(array: Any, heads: int) -> Any:
    """Query and key rows in llama.cpp's order: it rotates rows (0, 1), (2, 3), ..."""
    rows, width = array.shape
    return array.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=["f16", "f32"], default="f16")
    options = parser.parse_args(arguments)
    folder = anyio.run(ensure, options.name)
    write_gguf(folder, options.file, name=options.name, wide=options.type == "f32")
    print(options.file)


if __name__ == "__main__":
    main()
