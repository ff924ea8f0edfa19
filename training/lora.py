"""A Llama with a frozen base and trained low-rank adapters, computed over trees of conversations.

Written out in plain torch instead of wrapping transformers' model, because a tree (see
`training.trees`) wants its own attention: the prefix attends to itself, each branch to the prefix
and itself, and no time goes into the pairs that the mask would throw away. That the result is
transformers' own is tested, branch by branch.

Adapters follow LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): each linear map W becomes W
+ scale * B A, with A of shape (rank, in) and B of shape (out, rank). Beside them each renamed
control token has a trained change of its row of the (tied) embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corral.model_runtime.cria.base import LORA_MAPS
from training.kernels import LoraLinear, RmsNorm, Rotate, SwiGlu, TreeAttention
from training.trees import Packed

__all__ = ["LoraLlama", "Shape", "loss_on_labels"]

_GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Maps that read the same input are computed as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a Llama, by the names of its `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    rms_norm_eps: float
    rope_theta: float
    vocab_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """Pick the sizes out of a `config.json`'s contents."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads


class _Maps(nn.Module):
    """Linear maps of one input: frozen weights stacked, adapters side by side."""

    def __init__(self, weights: Sequence[Tensor], rank: int, scale: float, dtype: torch.dtype):
        super().__init__()
        self.scale = scale
        self.sizes = [w.shape[0] for w in weights]
        self.register_buffer("weight", torch.cat(list(weights)).to(dtype), persistent=False)
        width = weights[0].shape[1]
        self.a = nn.ParameterList(
            nn.Parameter(torch.randn(rank, width) / math.sqrt(width)) for _ in weights
        )
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(w.shape[0], rank)) for w in weights)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.cat(list(self.a)).to(x.dtype)
        b = torch.block_diag(*self.b).to(x.dtype)
        return LoraLinear.apply(x, self.weight, a, b, self.scale)  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        rank: int,
        scale: float,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.shape = shape
        self.groups = nn.ModuleList(
            _Maps([weights[f"{name}.weight"] for name in group], rank, scale, dtype)
            for group in _GROUPS
        )
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.register_buffer(norm, weights[f"{norm}.weight"].to(dtype), persistent=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        shape = self.shape
        qkv, out, gate_up, down = self.groups
        size = shape.head_size
        h = RmsNorm.apply(x, self.input_layernorm, shape.rms_norm_eps)
        q, k, v = (t.view(len(x), -1, size) for t in qkv(h).split(qkv.sizes, dim=1))  # type: ignore[arg-type]
        q, k = Rotate.apply(q, cos, sin), Rotate.apply(k, cos, sin)
        mixed: Any = TreeAttention.apply(q, k, v, packed.prefix, packed.branches)
        x = x + out(mixed.view(len(x), -1))
        h = RmsNorm.apply(x, self.post_attention_layernorm, shape.rms_norm_eps)
        return x + down(SwiGlu.apply(gate_up(h)))


class LoraLlama(nn.Module):
    """A frozen Llama and its adapters, which alone are parameters and are kept in float32.

    Args:
        shape: The model's sizes.
        weights: The base's tensors by their Hugging Face names; the output map is the embedding.
        control_ids: Ids of the tokens whose embedding rows are trained.
        rank: The adapters' rank.
        scale: What the adapters' product is multiplied by.
        dtype: What the base is held and computed in.
        seed: Of the adapters' first values.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        *,
        control_ids: Sequence[int],
        rank: int = 16,
        scale: float = 2.0,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape = shape
        self.rank = rank
        self.scale = scale
        self.layers = nn.ModuleList()
        for i in range(shape.num_hidden_layers):
            head = f"model.layers.{i}."
            own = {n.removeprefix(head): w for n, w in weights.items() if n.startswith(head)}
            self.layers.append(_Layer(shape, own, rank, scale, dtype))
        self.delta = nn.Parameter(torch.zeros(len(control_ids), shape.hidden_size))
        row = torch.full((shape.vocab_size,), len(control_ids), dtype=torch.long)
        row[list(control_ids)] = torch.arange(len(control_ids))
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("control_ids", torch.tensor(list(control_ids)), persistent=False)
        self.register_buffer(
            "embedding", weights["model.embed_tokens.weight"].to(dtype), persistent=False
        )
        self.register_buffer("norm", weights["model.norm.weight"].to(dtype), persistent=False)
        steps = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
        self.register_buffer("frequency", 1.0 / shape.rope_theta**steps, persistent=False)

    def forward(self, packed: Packed) -> Tensor:
        """The logits, in float32, at `packed.at`: of shape (labels, vocabulary)."""
        embedding: Tensor = self.embedding  # type: ignore[assignment]
        device = embedding.device
        ids = packed.ids.to(device)
        row: Tensor = self.row  # type: ignore[assignment]
        delta = self.delta.to(embedding.dtype)
        x = F.embedding(ids, embedding) + F.embedding(row[ids], F.pad(delta, (0, 0, 0, 1)))
        angle = packed.positions.to(device, torch.float32)[:, None] * self.frequency  # type: ignore[operator]
        cos, sin = (t.to(x.dtype)[:, None, :] for t in (angle.cos(), angle.sin()))
        for layer in self.layers:
            x = layer(x, cos, sin, packed)
        h: Any = RmsNorm.apply(x[packed.at.to(device)], self.norm, self.shape.rms_norm_eps)
        logits = h @ embedding.t()
        return logits.float().index_add(1, self.control_ids, (h @ delta.t()).float())  # type: ignore[arg-type]

    def adapter(self) -> dict[str, nn.Parameter]:
        """What is trained, under the names that `corral.model_runtime.cria` reads:
        `layers.0.self_attn.q_proj.a`, `delta`.
        """
        named: dict[str, nn.Parameter] = {"delta": self.delta}
        for i, layer in enumerate(self.layers):
            for names, maps in zip(_GROUPS, layer.groups, strict=True):  # type: ignore[arg-type]
                for name, a, b in zip(names, maps.a, maps.b, strict=True):
                    named[f"layers.{i}.{name}.a"] = a
                    named[f"layers.{i}.{name}.b"] = b
        assert {n.split(".", 2)[2].rsplit(".", 1)[0] for n in named if n != "delta"} <= set(
            LORA_MAPS
        )
        return named

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over an adapter saved under the names of `adapter()`."""
        with torch.no_grad():
            for name, parameter in self.adapter().items():
                parameter.copy_(tensors[name])


def loss_on_labels(logits: Tensor, packed: Packed) -> Tensor:
    """The summed cross-entropy (nats) of a packed tree's labels."""
    return F.cross_entropy(logits, packed.labels.to(logits.device), reduction="sum")
