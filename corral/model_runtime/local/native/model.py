"""A pass of a whole Llama model in machine code, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.lane import adjust
from corral.model_runtime.local.native.layer import Heads
from corral.model_runtime.local.native.linear import NativeLinear, Rounded
from corral.model_runtime.local.native.machine import Arguments, layer_for, products_for

if TYPE_CHECKING:
    import torch

    from corral.model_runtime.local.attention import Shape

__all__ = ["LayerLike", "NativeModel"]

_CHUNK = 8
"""Tokens of a prompt that look back as one piece of work."""
_FIRST, _LAST = "number", "down_panels"
"""The fields that change from layer to layer."""


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


class NativeModel:
    """The layers and the head of a model whose weights all are `NativeLinear`s of one kind."""

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[tuple[LayerLike, Sequence[NativeLinear]]],
        norm: torch.Tensor,
        head: NativeLinear,
    ) -> None:
        """Take over layers, each with its products qkv, out, gate_up and down in this order."""
        self._shape = shape
        self._kept = (layers, norm)
        self._head = head
        heads = Heads(shape.heads, shape.kv_heads, shape.head_size)
        self._run_layer = layer_for(head.isa, heads).functions["layer"]
        self._run_head = products_for(head.isa).functions["normed"]
        self._arguments = arguments = Arguments()
        self._rounded = Rounded()
        self._heads_stride = layers[0][1][0].packed.corrections.numel()
        self._both_stride = layers[0][1][2].packed.corrections.numel()
        self._span = arguments.span(_FIRST, _LAST)
        self._layers: list[list[int]] = []
        for number, (layer, products) in enumerate(layers):
            arguments.set(
                number=number,
                attention_norm=layer.attention_norm.data_ptr(),
                mlp_norm=layer.mlp_norm.data_ptr(),
            )
            for name, product in zip(("qkv", "out", "gate_up", "down"), products, strict=True):
                arguments.set(**product.packed.fields(f"{name}_"))
            self._layers.append(arguments.raw[self._span])
        arguments.set(
            width=shape.width,
            inner=shape.inner,
            heads_stride=self._heads_stride * 4,
            both_stride=self._both_stride * 4,
            mixed_width=shape.heads * shape.head_size,
            epsilon=_bits(shape.epsilon),
        )
        self._scratch: Any = None
        self._work: Any = None

    def layers(self, steps: Sequence[Step], rows: torch.Tensor, turn: torch.Tensor) -> None:
        """Take rows through all layers, in place.

        Args:
            steps: Whose tokens they are. Their caches grow.
            rows: Of shape (tokens, width), 32-bit and contiguous.
            turn: Cosines and sines of each token's position, of shape (2, tokens, head size / 2).
        """
        import torch

        arguments = self._arguments
        count, threads = rows.shape[0], torch.get_num_threads()
        positions: list[int] = []
        sequences: list[int] = []
        chunks: list[tuple[int, int]] = []
        caches: list[tuple[int, int, int]] = []
        longest = 0
        for at, step in enumerate(steps):
            n = len(step.ids)
            caches.append(step.cache.reserve(n))
            length = step.cache.length
            begin = len(positions)
            positions.extend(range(length - n, length))
            sequences.extend([at] * n)
            chunks.extend((begin + i, min(_CHUNK, n - i)) for i in range(0, n, _CHUNK))
            longest = max(longest, length)
        numbers = torch.tensor(
            [
                *positions,
                *sequences,
                *(one for each in zip(*caches, strict=True) for one in each),
                *(one for each in zip(*chunks, strict=True) for one in each),
            ]
        )
        first = numbers.data_ptr()
        ends = (count, count, len(caches), len(caches), len(caches), len(chunks))
        places = [first]
        for end in ends:
            places.append(places[-1] + 8 * end)
        self._reserve(arguments, count, longest, threads)
        arguments.set(
            rows=count,
            stream=rows.data_ptr(),
            cosines=turn[0].data_ptr(),
            sines=turn[1].data_ptr(),
            chunks=len(chunks),
            **dict(
                zip(
                    (
                        "positions",
                        "sequences",
                        "caches",
                        "cache_layers",
                        "cache_heads",
                        "chunk_firsts",
                        "chunk_counts",
                    ),
                    places,
                    strict=True,
                )
            ),
        )
        raw, span, run, address = arguments.raw, self._span, self._run_layer, arguments.address
        for layer in self._layers:
            adjust()
            raw[_THREADS] = torch.get_num_threads()
            raw[span] = layer
            run(address)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """The head's product with rows that it norms first; of shape (rows, vocabulary)."""
        import torch

        arguments, packed, shape = self._arguments, self._head.packed, self._shape
        count, threads = rows.shape[0], torch.get_num_threads()
        result = rows.new_empty((count, packed.corrections.numel()))
        self._reserve(arguments, count, 0, threads)
        arguments.set(
            rows=count,
            source=rows.data_ptr(),
            source_width=shape.width,
            source_stride=shape.width * 4,
            norm=self._kept[1].data_ptr(),
            result=result.data_ptr(),
            result_stride=result.shape[1] * 4,
            adds=0,
            threads=threads,
            **packed.fields(),
        )
        self._run_head(arguments.address)
        return result[:, : packed.out]

    def _reserve(self, arguments: Arguments, rows: int, longest: int, threads: int) -> None:
        import torch

        shape = self._shape
        widest = max(shape.width, shape.inner, shape.heads * shape.head_size)
        self._rounded.reserve(arguments, rows, widest)
        need = max(widest, 4 * (longest + 4))
        if self._scratch is None or self._scratch.shape[1] < need or len(self._scratch) < threads:
            self._scratch = torch.empty(threads, -(-need // 1024) * 1024)
        mixed = shape.heads * shape.head_size
        if self._work is None or len(self._work) < rows:
            self._work = torch.empty(rows, self._heads_stride + mixed + self._both_stride)
        heads = self._work.data_ptr()
        arguments.set(
            scratch=self._scratch.data_ptr(),
            scratch_size=self._scratch.shape[1] * 4,
            heads=heads,
            mixed=heads + len(self._work) * self._heads_stride * 4,
            both=heads + len(self._work) * (self._heads_stride + mixed) * 4,
        )


def _bits(real: float) -> int:
    import struct

    return struct.unpack("<i", struct.pack("<f", real))[0]


_THREADS = Arguments.place("threads")
