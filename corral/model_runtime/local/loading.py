"""From a folder of a Llama model to an engine: where it goes, whether it fits, and what it is."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import RuntimeUnavailable
from corral.model_runtime.local.adapters import (
    Adapter,
    adapted,
    outputs_of,
    read_adapter,
)
from corral.model_runtime.local.attention import Shape
from corral.model_runtime.local.checkpoint import Checkpoint
from corral.model_runtime.local.kernels import (
    BYTES,
    Kernel,
    Linear,
    Precision,
    choose_kernel,
    prepared,
)
from corral.model_runtime.local.llama import Layer, LlamaEngine
from corral.model_runtime.local.weights import (
    EMBEDDING,
    MATRICES,
    Converted,
    Exact,
    Told,
    prepare_all,
)

if TYPE_CHECKING:
    import torch

__all__ = ["available_memory", "check_memory", "load_llama", "place"]

_SLACK = 1.1
"""Beside the weights: what a pass takes, and the beginning of a cache."""


def place(device: str | None = None) -> str:
    """The device that a model goes to: the one named, else CUDA, else MPS, else the CPU.

    Raises:
        RuntimeUnavailable: The one named isn't here.
    """
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device is None:
        return next(name for name, there in present.items() if there)
    if not present.get(device.partition(":")[0], False):
        here = ", ".join(name for name, there in present.items() if there)
        raise RuntimeUnavailable(f"This machine has no device {device!r}. It has: {here}.")
    return device


def load_llama(
    folder: Path,
    config: Any,
    *,
    name: str,
    device: str | None = None,
    precision: Precision | None = None,
    adapter: Path | None = None,
    tell: Told | None = None,
) -> LlamaEngine:
    """Load a Llama model. Blocking: seconds, and the first time in int8 perhaps a minute.

    Weights that another engine holds in the same way are taken from there, whatever adapter it has.

    Args:
        folder: Holds the `*.safetensors`.
        config: The model's `LlamaConfig`.
        name: What errors call the model.
        device: `cpu`, `cuda` or `mps`; by default the best there is.
        precision: By default the fastest on the device; see `choose_kernel`.
        adapter: The folder of a LoRA adapter, as `peft` writes it.
        tell: Told of the progress.

    Raises:
        ConfigError: The adapter's folder holds none.
        RuntimeUnavailable: The weights are damaged, incomplete, of another kind or quantised by
            another program, don't fit into memory, or there is no kernel for them.
    """
    shape = _shape(config, name)
    checkpoint = Checkpoint(folder)
    placed = place(device)
    kernel = choose_kernel(placed.partition(":")[0], precision)
    change = None if adapter is None else read_adapter(adapter, shape)
    key = (str(folder), checkpoint.digest, placed, kernel.name, kernel.precision)
    held = _held.get(key)
    if held is None:
        held = _held[key] = _read(checkpoint, shape, name, placed, kernel, tell)
    return _engine(held, shape, config, f"{placed}, {kernel.precision} ({kernel.name})", change)


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class _Held:
    """A model's weights in memory."""

    kernel: Kernel
    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Linear
    like: torch.Tensor
    nbytes: int
    tied: bool


_held: weakref.WeakValueDictionary[object, _Held] = weakref.WeakValueDictionary()
"""What engines hold: those of one model and several adapters share it."""


def _read(
    checkpoint: Checkpoint,
    shape: Shape,
    name: str,
    placed: str,
    kernel: Kernel,
    tell: Told | None,
) -> _Held:
    import torch

    kind = placed.partition(":")[0]
    tied = "lm_head.weight" not in checkpoint
    sizes = checkpoint.sizes()
    linears = sum(n for key, n in sizes.items() if key != EMBEDDING)
    if tied:
        linears += sizes.get(EMBEDDING, 0)
    needed = linears * BYTES[kernel.precision]
    if kind != "cpu":
        needed += sizes.get(EMBEDDING, 0) * BYTES[kernel.precision]
    check_memory(needed, name, kind, smaller=_smaller(kernel.precision, linears, kind))
    exact = Exact(checkpoint, layers=shape.layers, device=placed)
    source = exact if kernel.precision != "int8" else Converted(checkpoint, exact, tell=tell)
    products = prepare_all(kernel, source, exact.names())
    types = {"fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = torch.float32 if kind == "cpu" else types.get(kernel.precision, torch.float32)
    like = torch.empty(0, device=placed, dtype=dtype)

    def vector(name: str) -> torch.Tensor:
        return _shaped(checkpoint.tensor(name), (shape.width,), name).to(like)

    def layer(at: int) -> Layer:
        stem = f"model.layers.{at}"
        return Layer(
            attention_norm=vector(f"{stem}.input_layernorm.weight"),
            qkv=products[f"{at}.qkv"],
            out=products[f"{at}.out"],
            mlp_norm=vector(f"{stem}.post_attention_layernorm.weight"),
            gate_up=products[f"{at}.gate_up"],
            down=products[f"{at}.down"],
        )

    embedding = _shaped(checkpoint.tensor(EMBEDDING), (shape.vocabulary, shape.width), EMBEDDING)
    return _Held(
        kernel=kernel,
        # On a CPU the rows stay in the file, of which a pass touches a few.
        embedding=embedding if kind == "cpu" else embedding.to(like),
        layers=tuple(layer(at) for at in range(shape.layers)),
        norm=vector("model.norm.weight"),
        head=products["head"],
        like=like,
        nbytes=needed,
        tied=tied,
    )


def _engine(
    held: _Held, shape: Shape, config: Any, summary: str, change: Adapter | None
) -> LlamaEngine:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary: Any = LlamaRotaryEmbedding(config)
    layers, norm, nbytes = held.layers, held.norm, held.nbytes
    if change is not None:
        layers = _changed(held, shape, change)
        norm = norm if change.norm is None else change.norm.to(norm)
        nbytes += change.nbytes(BYTES[held.kernel.precision])
    return LlamaEngine(
        shape=shape,
        embedding=held.embedding,
        layers=layers,
        norm=norm,
        head=held.head,
        frequencies=rotary.inv_freq,
        rope_scale=float(rotary.attention_scaling),
        like=held.like,
        nbytes=nbytes,
        summary=summary,
        own_rows=None if change is None else change.rows,
        tied=held.tied,
        keeps=held,
    )


def _changed(held: _Held, shape: Shape, change: Adapter) -> tuple[Layer, ...]:
    """The layers with an adapter's products beside their own."""
    sizes = outputs_of(shape)

    def prepare(weight: torch.Tensor) -> Linear:
        return prepared(held.kernel, weight.to(held.like.device))

    def changed(at: int, layer: Layer) -> Layer:
        parts = {
            part: adapted(getattr(layer, part), change.joined(at, part, sizes), prepare)
            for part in MATRICES
        }
        return replace(layer, **parts)

    return tuple(changed(at, layer) for at, layer in enumerate(held.layers))


def check_memory(needed: int, name: str, device: str, *, smaller: str = "") -> None:
    """See that so many bytes are free on a device.

    `smaller` says what would need less.

    Raises:
        RuntimeUnavailable: They aren't.
    """
    if device == "cuda":
        import torch

        available = torch.cuda.mem_get_info()[0]
    else:
        available = available_memory()
    needed = int(needed * _SLACK)
    if available is not None and needed > available:
        raise RuntimeUnavailable(
            f"The model {name!r} needs {needed / 2**30:.1f} GiB of memory and "
            f"{available / 2**30:.1f} GiB are free. {smaller}Close other programs, use a smaller "
            "model, or run it on another machine: --model ollama:NAME@URL"
        )


def available_memory() -> int | None:
    """Bytes of memory that are free to take; None where the system doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _smaller(precision: Precision, linears: int, device: str) -> str:
    best: Precision = "int8" if device == "cpu" else "bf16"
    if BYTES[precision] <= BYTES[best]:
        return ""
    return f"With precision={best} it would need {linears * BYTES[best] / 2**30:.1f} GiB. "


def _shape(config: Any, name: str) -> Shape:
    refused = ""
    if getattr(config, "quantization_config", None):
        refused = "is quantised by another program. Name the model that it was made from"
    elif config.model_type != "llama":
        refused = f"is a {config.model_type!r}, and this runtime runs Llama. Use ollama:NAME for it"
    elif config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        refused = "has biases or an activation that Llama has not. Use ollama:NAME for it"
    if refused:
        raise RuntimeUnavailable(f"The model {name!r} {refused}.")
    heads = int(config.num_attention_heads)
    width = int(config.hidden_size)
    return Shape(
        layers=int(config.num_hidden_layers),
        width=width,
        heads=heads,
        kv_heads=int(config.num_key_value_heads or heads),
        head_size=int(getattr(config, "head_dim", None) or width // heads),
        inner=int(config.intermediate_size),
        vocabulary=int(config.vocab_size),
        context_length=int(config.max_position_embeddings),
        epsilon=float(config.rms_norm_eps),
    )


def _shaped(tensor: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    if tuple(tensor.shape) != shape:
        raise RuntimeUnavailable(
            f"In the weights, {name!r} has the shape {tuple(tensor.shape)}, and config.json says "
            f"{shape}. The files don't belong together: fetch them again."
        )
    return tensor
