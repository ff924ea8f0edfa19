"""Llama's forward pass over the next tokens of many sequences at once, without padding.

All tokens of a pass lie in one row of rows: norms and matrix products see them together, attention
takes each sequence by itself over its own cache. So prompts and single tokens mix freely, and
a token's numbers don't depend on its neighbours'. Source of the architecture: Meta's llama-models,
`models/llama3/model.py`, in the layout of Hugging Face's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from corral.errors import ModelError
from corral.messages import ImagePart
from corral.model_runtime.local.adapters import Adapted, OwnRows
from corral.model_runtime.local.attention import Attention, Shape
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.kernels import Linear
from corral.model_runtime.local.kv import LlamaCache
from corral.model_runtime.local.lane import adjust

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.local.native.cache import PagedCache
    from corral.model_runtime.local.native.model import NativeModel

__all__ = ["Layer", "LlamaEngine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer. `qkv` and `gate_up` are several products of the same rows, taken as one."""

    attention_norm: torch.Tensor
    qkv: Linear
    out: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class LlamaEngine:
    """A Llama model in memory. Fulfils `Engine`; made by `local.loading`."""

    sees = False

    def __init__(
        self,
        *,
        shape: Shape,
        embedding: torch.Tensor,
        layers: Sequence[Layer],
        norm: torch.Tensor,
        head: Linear,
        frequencies: torch.Tensor,
        rope_scale: float,
        like: torch.Tensor,
        nbytes: int,
        summary: str,
        own_rows: OwnRows | None = None,
        tied: bool = True,
        keeps: object = None,
    ) -> None:
        """Take over weights.

        Args:
            shape: The model's numbers.
            embedding: The tokens' vectors, of shape (vocabulary, width), of any type, perhaps
                mapped from a file.
            layers: From the first to the last.
            norm: The last norm's weight.
            head: Makes logits of the last rows.
            frequencies: Of the rotary embedding, of shape (head size / 2,), scaled as the model's
                configuration says.
            rope_scale: What the rotary embedding multiplies with.
            like: An empty tensor of the type and on the device of rows and caches.
            nbytes: What the weights take.
            summary: See `Engine.summary`.
            own_rows: Vectors of some tokens in place of those of the embedding.
            tied: Whether the head is the embedding, so that it has these vectors too.
            keeps: Held as long as the engine is there: weights that others may take from it.
        """
        import torch

        self.vocabulary = shape.vocabulary
        self.context_length = shape.context_length
        self.nbytes = nbytes
        self.summary = summary
        self._shape = shape
        self._embedding = embedding
        self._layers = tuple(layers)
        self._norm = norm
        self._keeps = keeps
        self._head = head
        self._frequencies = frequencies.float().to(like.device)
        self._rope_scale = rope_scale
        self._like = like
        self._torch: Any = torch
        self._block = like.new_empty((shape.layers, 2, 1, shape.kv_heads, 0, shape.head_size))
        still = torch.zeros(shape.kv_heads, dtype=torch.bool)
        self._native = _native(shape, self._layers, self._norm, head)
        self._own_rows = None if own_rows is None else _Rows(own_rows, shape, like, tied=tied)
        self._turned = torch.cat([~still.repeat(1 + shape.heads // shape.kv_heads), still]).to(
            like.device
        )

    def new_cache(self) -> LlamaCache | PagedCache:
        """An empty cache."""
        if self._native is not None:
            return self._native.new_cache()
        return LlamaCache(self._block)

    def prepare(self, images: Sequence[ImagePart]) -> NoReturn:
        """Refuse images: this model sees none."""
        raise ModelError(
            f"This model sees no images, and {len(images)} were given. Use a vision model such as "
            "Llama 3.2 11B Vision."
        )

    def forward(self, steps: Sequence[Step]) -> list[torch.Tensor]:
        """One pass; see `Engine.forward`."""
        if self._native is not None:
            return self._natively(self._native, steps)
        torch, shape = self._torch, self._shape
        norm, silu = torch.nn.functional.rms_norm, torch.nn.functional.silu
        size = (shape.width,)
        with torch.inference_mode():
            cos, sin = self._rotation(steps)
            ids = torch.tensor([i for step in steps for i in step.ids])
            rows = self._embedding[ids.to(self._embedding.device)].to(self._like)
            if self._own_rows is not None:
                self._own_rows.put(ids, rows)
            attention = Attention(steps, shape, self._like)
            for at, layer in enumerate(self._layers):
                adjust()
                heads = layer.qkv(norm(rows, size, layer.attention_norm, shape.epsilon))
                heads = heads.view(len(ids), -1, shape.head_size)
                # Values are turned by nothing: their cosine is 1 and their sine 0.
                turned = torch.addcmul(heads * cos, heads.roll(shape.head_size // 2, -1), sin)
                rows = rows + layer.out(attention(at, turned))
                both = layer.gate_up(norm(rows, size, layer.mlp_norm, shape.epsilon))
                inner = silu(both[:, : shape.inner]).mul_(both[:, shape.inner :])
                rows = rows + layer.down(inner)
            return self._logits(rows, steps)

    def _natively(self, native: NativeModel, steps: Sequence[Step]) -> list[torch.Tensor]:
        with self._torch.inference_mode():
            ids = self._torch.tensor([i for step in steps for i in step.ids])
            rows = self._embedding[ids].float()
            if self._own_rows is not None:
                self._own_rows.put(ids, rows)
            angles = self._torch.outer(self._positions(steps), self._frequencies)
            turn = self._torch.stack([angles.cos(), angles.sin()]).mul_(self._rope_scale)
            native.layers(steps, rows, turn)
            return self._logits(rows, steps)

    def _logits(self, rows: torch.Tensor, steps: Sequence[Step]) -> list[torch.Tensor]:
        torch = self._torch
        picked: list[int] = []
        end = 0
        for step in steps:
            end += len(step.ids)
            picked.extend(range(end - step.wanted, end))
        if not picked:
            empty = rows.new_empty((0, self.vocabulary), dtype=torch.float32)
            return [empty] * len(steps)
        if len(picked) != rows.shape[0]:
            rows = rows[torch.tensor(picked, device=rows.device)]
        own = self._own_rows
        normed: Any = None
        if self._native is None or own is not None:
            size = (self._shape.width,)
            normed = torch.nn.functional.rms_norm(rows, size, self._norm, self._shape.epsilon)
        if self._native is not None:
            logits: Any = self._native.logits(rows)
        else:
            logits = self._head(normed).float()
        if own is not None:
            own.score(normed, logits)
        return list(logits.split([step.wanted for step in steps]))

    def _rotation(self, steps: Sequence[Step]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines of each token's position, of shape (tokens, heads, size)."""
        torch = self._torch
        angles = torch.outer(self._positions(steps), self._frequencies)
        cos, sin = angles.cos() * self._rope_scale, angles.sin() * self._rope_scale
        cos, sin = torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]
        turned = self._turned[None, :, None]
        cos = torch.where(turned, cos, 1.0).to(self._like.dtype)
        return cos, torch.where(turned, sin, 0.0).to(self._like.dtype)

    def _positions(self, steps: Sequence[Step]) -> torch.Tensor:
        arange = self._torch.arange
        parts = [arange(step.cache.length, step.cache.length + len(step.ids)) for step in steps]
        return self._torch.cat(parts).to(self._frequencies)


class _Rows:
    """Vectors of some tokens, put where the embedding's own would stand."""

    def __init__(self, own: OwnRows, shape: Shape, like: torch.Tensor, *, tied: bool) -> None:
        import torch

        self._vectors = own.vectors.to(like)
        self._ids = torch.tensor(list(own.ids), device=like.device)
        self._place = torch.full((shape.vocabulary,), -1)
        self._place[list(own.ids)] = torch.arange(len(own.ids))
        self._tied = tied

    def put(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Put them into rows, of shape (tokens, width), that are the embedding's of `ids`."""
        place = self._place[ids]
        found = (place >= 0).nonzero()[:, 0]
        if found.numel():
            rows[found.to(rows.device)] = self._vectors[place[found].to(rows.device)]

    def score(self, normed: torch.Tensor, logits: torch.Tensor) -> None:
        """Put the tokens' logits into those of rows that are normed."""
        if self._tied:
            # Torch's matrix product isn't the same to the last bit for one row and for many.
            logits[:, self._ids] = (normed[:, None] * self._vectors).sum(-1).float()


def _native(
    shape: Shape, layers: Sequence[Layer], norm: torch.Tensor, head: Any
) -> NativeModel | None:
    """The layers as one program, if all products are of the kind that it is made of."""
    products: Any = [[one.qkv, one.out, one.gate_up, one.down] for one in layers]
    every = [head, *(product for some in products for product in some)]
    if not all(_is_native(product) for product in every):
        return None
    if shape.head_size % 16 or shape.width % 32:
        return None
    from corral.model_runtime.local.native.model import NativeModel

    return NativeModel(shape, list(zip(layers, products, strict=True)), norm, head)


def _is_native(product: Any) -> bool:
    parts = (product,)
    if isinstance(product, Adapted):
        parts = (product.own, product.narrow, product.wide)
    return all(hasattr(part, "packed") for part in parts)
