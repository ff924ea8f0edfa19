"""A tiny Llama 3.2 Vision with random weights, in the layout of Meta's folders on Hugging Face.

The shape is the 11B's in small: tiles, two vision encoders, cross-attention layers between the
others, 8 rows more in the embedding than in the head, `<|image|>` in the first of them. A token is
a byte. To make one by hand:

    python tests/tiny_mllama.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TILE = 28
PATCH = 14


CONTROL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
"""Llama 3's control tokens, in their order (llama-models, models/llama3/tokenizer.py)."""

VOCABULARY = 256 + len(CONTROL)
IMAGE_TOKEN = VOCABULARY
PAD = 256 + CONTROL.index("<|finetune_right_pad_id|>")


def write_tokenizer(folder: Path) -> None:
    """A vocabulary of single bytes and Llama 3's control tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE(vocab={sign: at for at, sign in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in (*CONTROL, "<|image|>")])
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model(folder: Path, *, seed: int = 0) -> None:
    """Random weights. The gates are open, so that an image shows in every logit."""
    import torch
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    config = MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_global_layers": 2,
            "attention_heads": 2,
            "intermediate_size": 48,
            "intermediate_layers_indices": [0, 2],
            "vision_output_dim": 96,
            "image_size": TILE,
            "patch_size": PATCH,
            "max_num_tiles": 4,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "cross_attention_layers": [1, 3],
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "bos_token_id": 256,
            "eos_token_id": None,
            "pad_token_id": PAD,
        },
        image_token_index=IMAGE_TOKEN,
    )
    generator = torch.Generator().manual_seed(seed)
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name and parameter.numel() == 1:
                parameter.fill_(1.0)
            elif parameter.ndim > 1:
                width = parameter[0].numel() if "embed" not in name else 1
                parameter.normal_(0.0, 1.5 * width**-0.5, generator=generator)
    model.save_pretrained(folder)


def write_processor(folder: Path) -> None:
    """The image processor's settings, those of Meta's folders but for the tile's size."""
    settings = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "MllamaImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_image_tiles": 4,
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": TILE, "width": TILE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make(folder: Path, *, seed: int = 0) -> Path:
    """Write all of it into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    write_model(folder, seed=seed)
    write_processor(folder)
    return folder


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
