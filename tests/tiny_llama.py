"""A tiny Llama with random weights, as a folder of Hugging Face's."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corral.model_runtime.local.kernels import quantise


def make(folder: Path, *, seed: int = 1, tokenizer: Path | None = None) -> LlamaConfig:
    """Write it into `folder`, which is emptied, with a copy of the tokenizer's file if given."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    shutil.rmtree(folder, ignore_errors=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    if tokenizer is not None:
        shutil.copy(tokenizer, folder / "tokenizer.json")
    return LlamaConfig.from_pretrained(folder)


def make_exact(folder: Path, **changes: object) -> LlamaForCausalLM:
    """Write one with random weights that 8 bits hold exactly, and return it."""
    given = {
        "vocab_size": 500,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**(given | changes))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                held = quantise(weight * 3)
                weight.copy_(held.values * held.scales[:, None])
    model.save_pretrained(folder)
    return model
