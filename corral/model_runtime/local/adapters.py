"""LoRA adapters: small trained changes of a Llama's matrices, computed beside its weights.

A matrix W becomes W + B A, with A of shape (rank, in) and B of shape (out, rank): Hu et al. 2021,
https://arxiv.org/abs/2106.09685. The weights themselves stay as they are, so that any number of
adapters shares one model in memory. Read from a folder in the layout of Hugging Face's `peft`:
`adapter_config.json` and `adapter_model.safetensors`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from corral.errors import ConfigError, RuntimeUnavailable
from corral.model_runtime.local.attention import Shape
from corral.model_runtime.local.kernels import Linear
from corral.model_runtime.local.weights import MATRICES

if TYPE_CHECKING:
    import torch

__all__ = [
    "NORM",
    "ROWS",
    "SETTINGS",
    "STEM",
    "WEIGHTS",
    "Adapted",
    "Adapter",
    "OwnRows",
    "adapted",
    "adapter_digest",
    "outputs_of",
    "read_adapter",
]

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter's folder."""
STEM = "base_model.model."
"""What `peft` puts before the names of a model's tensors."""
NORM = "model.norm.weight"
ROWS = "model.embed_tokens.token_adapter.trainable_tokens_delta"
"""The vectors that take the place of some tokens' own."""
_MULTIPLE = 16
"""What a rank is filled up to a multiple of, with zeros: kernels want rows of such a length."""
_PLAIN = frozenset(
    "auto_mapping base_model_name_or_path ensure_weight_tying eva_config exclude_modules "
    "inference_mode layers_pattern layers_to_transform loftq_config lora_dropout lora_ga_config "
    "megatron_core modules_to_save peft_version qalora_group_size r rank_pattern revision "
    "runtime_config target_modules target_parameters task_type".split()
)
"""Settings of `peft` under which an adapter stays plain LoRA. Any other that is set refuses it."""
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to begin training that leave the model's own matrices as they were."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Vectors of some tokens that take the place of the model's own."""

    ids: Sequence[int]
    vectors: torch.Tensor
    """Of shape (tokens, width), 32-bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter as its file has it, 32-bit and with the scale in B."""

    maps: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    """A and B, by the matrix's name: `model.layers.3.self_attn.q_proj`."""
    rows: OwnRows | None
    norm: torch.Tensor | None
    """The last norm's weight, of shape (width,), in place of the model's own."""

    def nbytes(self, bytes_of_a_value: int) -> int:
        """What it takes beside the model, by the bytes of a value in the products' precision."""
        return sum(a.numel() + b.numel() for a, b in self.maps.values()) * bytes_of_a_value

    def joined(self, layer: int, part: str, sizes: Mapping[str, int]) -> _LowRank | None:
        """A and B of matrices that are multiplied as one; None if it changes none of them.

        Args:
            layer: The layer's number.
            part: Which matrices: see `MATRICES`.
            sizes: How many outputs each matrix has, by the last part of its name.
        """
        import torch

        names = MATRICES[part]
        found = [self.maps.get(f"model.layers.{layer}.{name}") for name in names]
        some = [pair for pair in found if pair is not None]
        if not some:
            return None
        rank = sum(a.shape[0] for a, _ in some)
        padded = -(-rank // _MULTIPLE) * _MULTIPLE
        outs = [sizes[name.rpartition(".")[2]] for name in names]
        a = torch.zeros(padded, some[0][0].shape[1])
        b = torch.zeros(sum(outs), padded)
        at = begin = 0
        for pair, out in zip(found, outs, strict=True):
            if pair is not None:
                end = at + pair[0].shape[0]
                a[at:end] = pair[0]
                b[begin : begin + out, at:end] = pair[1]
                at = end
            begin += out
        return _LowRank(a, b)


@dataclass(frozen=True, slots=True)
class _LowRank:
    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class Adapted:
    """A product to which an adapter's is added."""

    own: Linear
    narrow: Linear
    """With A, to the rank."""
    wide: Linear
    """With B, from there."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ (W + B A).T`; see `kernels.Linear`."""
        return self.own(x) + self.wide(self.narrow(x))


class _Settings(BaseModel, extra="allow"):
    """What `adapter_config.json` says that matters here; the rest is in `model_extra`."""

    peft_type: str
    lora_alpha: float
    use_rslora: bool = False
    alpha_pattern: dict[str, float] | None = None
    bias: str = "none"
    init_lora_weights: bool | str | None = True
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None

    def scale(self, matrix: str, rank: int) -> float:
        """What B A is multiplied with in a matrix."""
        alpha = self.lora_alpha
        for pattern, other in (self.alpha_pattern or {}).items():
            if matrix == pattern or matrix.endswith(f".{pattern}"):
                alpha = other
        return alpha / (rank**0.5 if self.use_rslora else rank)

    def tokens(self) -> Sequence[int]:
        """The ids of the tokens whose vectors are changed."""
        named = self.trainable_token_indices or []
        return next(iter(named.values())) if isinstance(named, dict) else named

    def refused(self) -> Iterator[tuple[str, object]]:
        """The settings, with what they are, under which this is more than plain LoRA."""
        if self.peft_type != "LORA":
            yield "peft_type", self.peft_type
        if self.bias != "none":
            yield "bias", self.bias
        if self.init_lora_weights not in _INITS:
            yield "init_lora_weights", self.init_lora_weights
        for name, given in (self.model_extra or {}).items():
            if given and name not in _PLAIN:
                yield name, given


def adapter_digest(folder: Path) -> str:
    """Sixteen hexadecimal digits that change with an adapter's files."""
    digest = hashlib.sha256()
    for path in _files(folder):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def read_adapter(folder: Path, shape: Shape | None = None) -> Adapter:
    """Read an adapter, for a model of that shape if one is given.

    Raises:
        ConfigError: The folder holds no adapter.
        RuntimeUnavailable: It is damaged, of another kind, or for another model.
    """
    from safetensors import SafetensorError, safe_open

    settings_path, weights_path = _files(folder)
    opened: Any = safe_open
    try:
        settings = _Settings.model_validate_json(settings_path.read_text(encoding="utf-8"))
        with opened(str(weights_path), framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        _check_settings(settings, folder)
        maps = _maps(tensors, settings)
        rows, norm = _rows(tensors, settings), tensors.pop(STEM + NORM, None)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RuntimeUnavailable(
            f"The adapter {str(folder)!r} is damaged: {type(error).__name__}: {error}. "
            "Fetch or save it again."
        ) from error
    if tensors:
        raise RuntimeUnavailable(
            f"The adapter {str(folder)!r} changes {min(tensors).removeprefix(STEM)!r}, which "
            "Corral can't add to a model while it runs. Merge it into the model with peft's "
            "merge_and_unload, and name the merged folder."
        )
    adapter = Adapter(maps=maps, rows=rows, norm=norm)
    if shape is not None:
        _check_shapes(adapter, shape, folder)
    return adapter


def _files(folder: Path) -> tuple[Path, Path]:
    paths = folder / SETTINGS, folder / WEIGHTS
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"The folder {str(folder)!r} holds no {path.name}, so it is no adapter. Name a "
                "folder as peft's save_pretrained writes it: "
                f"{SETTINGS} and {WEIGHTS}."
            )
    return paths


def _check_settings(settings: _Settings, folder: Path) -> None:
    for name, given in settings.refused():
        raise RuntimeUnavailable(
            f"The adapter {str(folder)!r} has {name} = {given!r}, and Corral computes plain LoRA "
            "beside a model. Merge it into the model with peft's merge_and_unload, and name the "
            "merged folder."
        )


def _maps(
    tensors: dict[str, torch.Tensor], settings: _Settings
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Take the matrices' pairs out of the tensors."""
    known = {name for names in MATRICES.values() for name in names}
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        stem = name.removesuffix(".lora_A.weight")
        matrix = stem.removeprefix(STEM)
        if ".".join(matrix.split(".")[3:]) not in known:
            continue  # of another layer, and refused for it
        a, b = tensors.pop(name), tensors.pop(f"{stem}.lora_B.weight")
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
            raise ValueError(f"A and B of {matrix!r} don't fit each other.")
        found[matrix] = a, b * settings.scale(matrix, a.shape[0])
    return found


def _rows(tensors: dict[str, torch.Tensor], settings: _Settings) -> OwnRows | None:
    vectors = tensors.pop(STEM + ROWS, None)
    if vectors is None:
        return None
    ids = settings.tokens()
    if len(ids) != len(vectors):
        raise ValueError(f"It has {len(vectors)} vectors for {len(ids)} tokens.")
    return OwnRows(ids, vectors)


def _check_shapes(adapter: Adapter, shape: Shape, folder: Path) -> None:
    inputs, outputs = _inputs(shape), outputs_of(shape)
    wrong = ""
    for name, (a, b) in adapter.maps.items():
        layer, kind = int(name.split(".")[2]), name.rpartition(".")[2]
        if layer >= shape.layers or (a.shape[1], b.shape[0]) != (inputs[kind], outputs[kind]):
            wrong = name
    rows, norm = adapter.rows, adapter.norm
    if rows is not None and (
        rows.vectors.shape[1:] != (shape.width,)
        or not all(0 <= one < shape.vocabulary for one in rows.ids)
    ):
        wrong = "the tokens' vectors"
    if norm is not None and norm.shape != (shape.width,):
        wrong = NORM
    if wrong:
        raise RuntimeUnavailable(
            f"The adapter {str(folder)!r} was made for another model: {wrong} doesn't fit this "
            "one. Name the model that its adapter_config.json has as base_model_name_or_path."
        )


def outputs_of(shape: Shape) -> Mapping[str, int]:
    """How many outputs each matrix of a layer has, by the last part of its name."""
    of_keys = shape.kv_heads * shape.head_size
    return {
        "q_proj": shape.heads * shape.head_size,
        "k_proj": of_keys,
        "v_proj": of_keys,
        "o_proj": shape.width,
        "gate_proj": shape.inner,
        "up_proj": shape.inner,
        "down_proj": shape.width,
    }


def _inputs(shape: Shape) -> Mapping[str, int]:
    others = {"o_proj": shape.heads * shape.head_size, "down_proj": shape.inner}
    return {name: others.get(name, shape.width) for name in outputs_of(shape)}


def adapted(
    own: Linear, low_rank: _LowRank | None, prepare: Callable[[torch.Tensor], Linear]
) -> Linear:
    """A product with an adapter's beside it, or alone where the adapter has none for it."""
    if low_rank is None:
        return own
    return Adapted(own, prepare(low_rank.a), prepare(low_rank.b))
