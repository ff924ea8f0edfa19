"""What the scheduler needs of a model: one forward pass over the next tokens of many sequences.

A sequence is what one cache holds. A pass takes a step of each: new token ids, and how many of the
last positions' logits are wanted. Steps of one pass never influence each other's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from corral.messages import ImagePart

if TYPE_CHECKING:
    import torch

__all__ = ["Engine", "KVCache", "Step"]


class KVCache(Protocol):
    """The keys and values of one sequence, one position for each of its tokens."""

    @property
    def length(self) -> int:
        """How many positions it holds."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory that it holds, in bytes."""
        ...

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        ...

    def fork(self, length: int) -> KVCache:
        """Another cache that holds the first `length` positions, and shares nothing writable."""
        ...


@dataclass(slots=True, kw_only=True)
class Step:
    """The next tokens of one sequence."""

    cache: Any
    """A cache that the same engine made. The pass appends the new positions to it."""
    ids: Sequence[int]
    """New token ids, at least one."""
    wanted: int = 0
    """Of how many of the last positions the logits are wanted, 0 to `len(ids)`."""
    images: Any = None
    """What `Engine.prepare` made of all images of the prompt, for a model that sees."""


class Engine(Protocol):
    """A model in memory. Its methods are called by one thread at a time."""

    @property
    def vocabulary(self) -> int:
        """The width of the logits."""
        ...

    @property
    def context_length(self) -> int:
        """The most positions that the model was trained for."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory that the weights take, in bytes."""
        ...

    @property
    def sees(self) -> bool:
        """Whether `prepare` takes images."""
        ...

    @property
    def summary(self) -> str:
        """Device, precision and kernel, for people: `cpu, int8 (corral)`."""
        ...

    def new_cache(self) -> KVCache:
        """An empty cache."""
        ...

    def prepare(self, images: Sequence[ImagePart]) -> Any:
        """The images of a prompt as the model takes them, in the order of their tokens.

        Raises:
            ModelError: The model sees none, or one can't be read.
        """
        ...

    def forward(self, steps: Sequence[Step]) -> list[torch.Tensor]:
        """Append each step's tokens to its cache and compute the logits that it wants.

        Returns one float32 tensor for each step, on the model's device, of shape
        (wanted, vocabulary). When it raises, caches of the steps may be left half grown: they
        are of no use any more.
        """
        ...
