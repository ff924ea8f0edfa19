"""A pass of a whole Llama model in machine code, layer by layer."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.lane import adjust
from corral.model_runtime.local.native.cache import Blocks, PagedCache
from corral.model_runtime.local.native.layer import Heads
from corral.model_runtime.local.native.linear import NativeLinear, Rounded
from corral.model_runtime.local.native.machine import Arguments, layer_for, products_for

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.local.attention import Shape

__all__ = ["LayerLike", "NativeModel"]

_CHUNK = 8
"""Tokens of a prompt that look back as one piece of work."""
_FIRST, _LAST, _LAST_ADAPTED = "number", "down_panels", "down_wide_panels"
"""The fields that change from layer to layer."""
_PARTS = ("qkv", "out", "gate_up", "down")


class LayerLike(Protocol):
    """What is read of a `llama.Layer`."""

    @property
    def attention_norm(self) -> torch.Tensor:
        """Of shape (width,)."""
        ...

    @property
    def mlp_norm(self) -> torch.Tensor:
        """Of shape (width,)."""
        ...


class AdaptedLike(Protocol):
    """What is read of an `adapters.Adapted` whose products all are `NativeLinear`s."""

    @property
    def own(self) -> NativeLinear:
        """The product without the adapter."""
        ...

    @property
    def narrow(self) -> NativeLinear:
        """To the rank."""
        ...

    @property
    def wide(self) -> NativeLinear:
        """From the rank."""
        ...


class NativeModel:
    """The layers and the head of a model whose weights all are `NativeLinear`s of one kind."""

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[tuple[LayerLike, Sequence[NativeLinear | AdaptedLike]]],
        norm: torch.Tensor,
        head: NativeLinear,
    ) -> None:
        """Take over layers, each with its products qkv, out, gate_up and down in this order."""
        import torch

        self._shape = shape
        self._most_threads = max(torch.get_num_threads(), os.cpu_count() or 1)
        self._kept = (layers, norm)
        self._head = head
        heads = Heads(shape.heads, shape.kv_heads, shape.head_size)
        owned = [[_own(product) for product in products] for _, products in layers]
        self._narrowed = max(_rank_stride(product) for _, some in layers for product in some)
        adapted = self._narrowed > 0
        self._run_layer = layer_for(head.isa, heads, adapted=adapted).functions["layer"]
        self._run_head = products_for(head.isa).functions["normed"]
        self._arguments = arguments = Arguments()
        self._rounded = Rounded()
        self._blocks = Blocks(layers=shape.layers, key_heads=shape.kv_heads, size=shape.head_size)
        self._heads_stride = owned[0][0].packed.corrections.numel()
        self._both_stride = owned[0][2].packed.corrections.numel()
        self._span = arguments.span(_FIRST, _LAST_ADAPTED if adapted else _LAST)
        self._layers: list[list[int]] = []
        for number, (layer, products) in enumerate(layers):
            arguments.set(
                number=number,
                attention_norm=layer.attention_norm.data_ptr(),
                mlp_norm=layer.mlp_norm.data_ptr(),
            )
            for part, product, own in zip(_PARTS, products, owned[number], strict=True):
                arguments.set(**own.packed.fields(f"{part}_"), **_adapter_fields(part, product))
            self._layers.append(arguments.raw[self._span])
        arguments.set(
            width=shape.width,
            inner=shape.inner,
            heads_stride=self._heads_stride * 4,
            both_stride=self._both_stride * 4,
            mixed_width=shape.heads * shape.head_size,
            more_result_stride=self._narrowed * 4,
            epsilon=_bits(shape.epsilon),
        )
        self._scratch: Any = None
        self._work: Any = None

    def new_cache(self) -> PagedCache:
        """An empty cache."""
        return PagedCache(self._blocks)

    def layers(self, steps: Sequence[Step], rows: torch.Tensor, turn: torch.Tensor) -> None:
        """Take rows through all layers, in place.

        Args:
            steps: Whose tokens they are. Their caches grow.
            rows: Of shape (tokens, width), 32-bit and contiguous.
            turn: Cosines and sines of each token's position, of shape (2, tokens, head size / 2).
        """
        import torch

        arguments, count = self._arguments, rows.shape[0]
        tables = _tables(steps)
        numbers = torch.tensor([number for table in tables.values() for number in table])
        at = numbers.data_ptr()
        for name, table in tables.items():
            arguments.set(**{name: at})
            at += 8 * len(table)
        longest = max(step.cache.length for step in steps)
        self._reserve(arguments, count, longest)
        arguments.set(
            rows=count,
            stream=rows.data_ptr(),
            cosines=turn[0].data_ptr(),
            sines=turn[1].data_ptr(),
            chunks=len(tables["chunk_firsts"]),
        )
        raw, span, run, address = arguments.raw, self._span, self._run_layer, arguments.address
        for layer in self._layers:
            adjust()  # There may be more threads after it, but memory only for so many.
            raw[_THREADS] = min(torch.get_num_threads(), self._most_threads)
            raw[span] = layer
            run(address)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """The head's product with rows that it norms first; of shape (rows, vocabulary)."""
        import torch

        arguments, packed, shape = self._arguments, self._head.packed, self._shape
        count = rows.shape[0]
        result = rows.new_empty((count, packed.corrections.numel()))
        self._reserve(arguments, count, 0)
        arguments.set(
            rows=count,
            source=rows.data_ptr(),
            source_width=shape.width,
            source_stride=shape.width * 4,
            norm=self._kept[1].data_ptr(),
            result=result.data_ptr(),
            result_stride=result.shape[1] * 4,
            adds=0,
            threads=min(torch.get_num_threads(), self._most_threads),
            **packed.fields(),
        )
        self._run_head(arguments.address)
        return result[:, : packed.out]

    def _reserve(self, arguments: Arguments, rows: int, longest: int) -> None:
        import torch

        shape = self._shape
        widest = max(shape.width, shape.inner, shape.heads * shape.head_size, self._narrowed)
        self._rounded.reserve(arguments, rows, widest)
        need = max(widest, 4 * (longest + 4))
        if self._scratch is None or self._scratch.shape[1] < need:
            self._scratch = torch.empty(self._most_threads, -(-need // 1024) * 1024)
        mixed = shape.heads * shape.head_size
        if self._work is None or len(self._work) < rows:
            widths = (self._heads_stride, mixed, self._both_stride, self._narrowed)
            self._work = torch.empty(rows, sum(widths))
        heads = self._work.data_ptr()
        arguments.set(
            scratch=self._scratch.data_ptr(),
            scratch_size=self._scratch.shape[1] * 4,
            heads=heads,
            mixed=heads + len(self._work) * self._heads_stride * 4,
            both=heads + len(self._work) * (self._heads_stride + mixed) * 4,
            more_result=heads
            + len(self._work) * (self._heads_stride + mixed + self._both_stride) * 4,
        )


def _tables(steps: Sequence[Step]) -> dict[str, list[int]]:
    """What the layers are told of tokens, caches and chunks of tokens. Caches grow."""
    names = ("positions", "sequences", "caches", "blocks", "chunk_firsts", "chunk_counts")
    tables: dict[str, list[int]] = {name: [] for name in names}
    for at, step in enumerate(steps):
        n, begin = len(step.ids), len(tables["positions"])
        tables["caches"].append(len(tables["blocks"]))
        tables["blocks"] += step.cache.reserve(n)
        tables["positions"] += range(step.cache.length - n, step.cache.length)
        tables["sequences"] += [at] * n
        tables["chunk_firsts"] += range(begin, begin + n, _CHUNK)
        tables["chunk_counts"] += [min(_CHUNK, n - i) for i in range(0, n, _CHUNK)]
    return tables


def _own(product: NativeLinear | AdaptedLike) -> NativeLinear:
    return product if isinstance(product, NativeLinear) else product.own


def _rank_stride(product: NativeLinear | AdaptedLike) -> int:
    """How far apart an adapter's narrowed rows lie, in numbers; 0 where there is no adapter."""
    if isinstance(product, NativeLinear):
        return 0
    return product.narrow.packed.corrections.numel()


def _adapter_fields(part: str, product: NativeLinear | AdaptedLike) -> dict[str, int]:
    if isinstance(product, NativeLinear):
        return {f"{part}_rank": 0, f"{part}_narrow_panels": 0}
    return {
        f"{part}_rank": product.wide.packed.width,
        **product.narrow.packed.fields(f"{part}_narrow_"),
        **product.wide.packed.fields(f"{part}_wide_"),
    }


def _bits(real: float) -> int:
    return struct.unpack("<i", struct.pack("<f", real))[0]


_THREADS = Arguments.place("threads")
