"""Write a cria model as a GGUF file: `python -m training.gguf cria cria.gguf`.

For servers on llama.cpp (llama-cpp-python, llama.cpp's own, Ollama by a Modelfile of `FROM
./cria.gguf`). The weights are those of the folder that Corral runs, in 16 bits as they are there,
widened to 32 (`--type f32`), which takes twice the room and computes closest to Corral's own, or in
8 bits by blocks of 32 (`--type q8_0`).

Sources: the GGUF specification and `convert_hf_to_gguf.py` of llama.cpp, for the names, for the
order of query and key rows and for the factors of Llama 3's scaled positions.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from safetensors import safe_open

from corral.model_runtime.cria.fetch import ensure_merged

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


def write_gguf(
    folder: Path, file: Path, *, name: str, wide: bool = False, quantised: bool = False
) -> None:
    """Write the model in `folder`, in Hugging Face's layout, as a GGUF file.

    `wide` makes the weights float32, `quantised` Q8_0; otherwise they are float16, but for the
    norms, which are always float32.
    """
    matrices = GGMLQuantizationType.Q8_0 if quantised else GGMLQuantizationType.F16
    if wide:
        matrices = GGMLQuantizationType.F32
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
    _add_position_factors(writer, config)
    _add_weights(writer, folder / "model.safetensors", config, matrices)
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
    # Llama 3 cuts numbers into threes before anything else; cria's tokenizer into single digits.
    threes = "{1,3}" in json.dumps(tokenizer["pre_tokenizer"])
    writer.add_tokenizer_pre("llama-bpe" if threes else "smollm")
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


def _add_position_factors(writer: Any, config: dict[str, Any]) -> None:
    """What Llama 3.1 and later divide each frequency of the positions by."""
    scaling = config.get("rope_scaling")
    if not scaling:
        return
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    factors: list[float] = []
    for i in range(0, config["head_dim"], 2):
        length = 2 * math.pi * config["rope_theta"] ** (i / config["head_dim"])
        share = min(max((trained / length - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / scaling["factor"] + share))
    writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))


def _add_weights(
    writer: Any, file: Path, config: dict[str, Any], matrices: GGMLQuantizationType
) -> None:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    opened: Any = safe_open(file, framework="pt")  # NumPy knows no bfloat16
    with opened as weights:
        for key in weights.keys():
            array = weights.get_tensor(key).float().numpy()
            name = _name(key)
            part = name.split(".")[-2]
            if part in heads:
                array = _neighbours_first(array, heads[part])
            kind = GGMLQuantizationType.F32 if array.ndim == 1 else matrices
            array = quantize(np.ascontiguousarray(array), kind)
            writer.add_tensor(name, array, raw_dtype=kind)


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
    parser.add_argument("--type", choices=["f16", "f32", "q8_0"], default="f16")
    options = parser.parse_args(arguments)
    folder = anyio.run(ensure_merged, options.name)
    wide, quantised = options.type == "f32", options.type == "q8_0"
    write_gguf(folder, options.file, name=options.name, wide=wide, quantised=quantised)
    print(options.file)


if __name__ == "__main__":
    main()
