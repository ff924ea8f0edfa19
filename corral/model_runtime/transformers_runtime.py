"""Models in this process, on transformers: load a folder, stream pieces, stop within a token.

The decode loop is Corral's own, over the model's `forward`: each token is one hop to a worker
thread, so that a cancelled task stops before the next token, errors arrive where they belong, and
the event loop stays free. The model is held by one thread at a time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from corral.errors import ContextOverflow, CorralError, ModelError
from corral.events import Usage
from corral.messages import StopReason
from corral.model_runtime.prefix_cache import CacheEntry, PrefixCache, crop
from corral.model_runtime.profiles import ModelProfile
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import (
    Constraint,
    ConstraintKind,
    Finish,
    Piece,
    Sampling,
    check_constraint,
)
from corral.model_runtime.tokenizer import Detokenizer, LlamaTokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["TransformersRuntime"]

_PREFILL_CHUNK = 256
"""Prompt tokens computed between two chances to cancel."""

_T = TypeVar("_T")


class TransformersRuntime:
    """A Llama-architecture model loaded by transformers.

    Make one with `TransformersRuntime.load`.
    """

    def __init__(
        self, *, name: str, profile: ModelProfile, model: Any, tokenizer: LlamaTokenizer
    ) -> None:
        """Take over a loaded model. `name` is its model string."""
        self._name = name
        trained = int(model.config.max_position_embeddings)
        self._profile = replace(profile, context_length=min(profile.context_length, trained))
        self._model: Any = model
        self._tokenizer = tokenizer
        self._caches = PrefixCache()
        self._lock = threading.Lock()

    @classmethod
    async def load(cls, folder: Path, *, name: str, profile: ModelProfile) -> TransformersRuntime:
        """Load a folder in Hugging Face's layout (config.json, *.safetensors, tokenizer.json).

        Precision is float32 on the CPU and bfloat16 on CUDA, float16 on Apple's MPS.

        Raises:
            RuntimeUnavailable: The folder isn't such a model, it doesn't fit into memory, or an
                extra isn't installed.
        """
        from corral.model_runtime.loading import load_folder

        model, tokenizer = await anyio.to_thread.run_sync(load_folder, folder, name)
        return cls(name=name, profile=profile, model=model, tokenizer=tokenizer)

    @property
    def name(self) -> str:
        """The model string it was opened with."""
        return self._name

    @property
    def profile(self) -> ModelProfile:
        """What is known of the model."""
        return self._profile

    @property
    def tokenizer(self) -> LlamaTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """Nothing yet."""
        return frozenset()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`."""
        check_constraint(self, constraint)
        ids = self._encode(prompt, room=sampling.max_tokens)
        draw = _Draw(sampling)
        detokenizer = Detokenizer(self._tokenizer)
        entry = self._caches.take(ids)
        cached = len(entry.ids)
        reason: StopReason = "max_tokens"
        written = 0
        try:
            token = await self._prefill(entry, ids, draw)
            while written < sampling.max_tokens:
                written += 1
                if token in self._tokenizer.stops:
                    reason = self._tokenizer.stops[token]
                    break
                for piece in detokenizer.feed(token):
                    yield piece
                if written < sampling.max_tokens:
                    token = await self._in_thread(self._advance, entry, [token], draw)
            for piece in detokenizer.flush():
                yield piece
            yield Finish(
                reason=reason,
                usage=Usage(prompt_tokens=len(ids), cached_tokens=cached, output_tokens=written),
            )
        finally:
            self._caches.give(entry)

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """First-token probabilities; see `Runtime.score`.

        One forward pass, of which the shared prefix is cached.
        """
        ids = self._encode(prompt, room=1)
        first = {c: self._tokenizer.encode_text(c)[0] for c in candidates}
        entry = self._caches.take(ids)
        try:
            read = _Probabilities(list(first.values()))
            await self._prefill(entry, ids, read)
            return dict(zip(first, read.found, strict=True))
        finally:
            self._caches.give(entry)

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""
        return len(prompt.encode(self._tokenizer))

    async def aclose(self) -> None:
        """Drop the model and its caches. What is still generating goes on to its end."""
        self._caches.clear()
        self._model = None

    def _encode(self, prompt: Prompt, *, room: int) -> list[int]:
        if self._model is None:
            raise ModelError(f"The model {self._name!r} has been closed. Open it again to use it.")
        if prompt.images:
            raise ModelError(f"The model {self._name!r} sees no images. Use a vision model.")
        ids = prompt.encode(self._tokenizer)
        available = self._profile.context_length
        if len(ids) + room > available:
            raise ContextOverflow(needed=len(ids) + room, available=available)
        return ids

    async def _prefill(
        self, entry: CacheEntry, ids: Sequence[int], read: Callable[[torch.Tensor], int]
    ) -> int:
        todo = ids[len(entry.ids) :]
        chunks = [todo[i : i + _PREFILL_CHUNK] for i in range(0, len(todo), _PREFILL_CHUNK)]
        for chunk in chunks[:-1]:
            await self._in_thread(self._advance, entry, chunk, None)
        return await self._in_thread(self._advance, entry, chunks[-1], read)

    def _advance(
        self,
        entry: CacheEntry,
        ids: Sequence[int],
        read: Callable[[torch.Tensor], int] | None,
    ) -> int:
        """One forward pass over new ids; `read` makes something of the last one's logits.

        In a worker thread.
        """
        import torch

        before = len(entry.ids)
        try:
            with torch.inference_mode():
                device = self._model.device
                positions = torch.arange(before, before + len(ids), device=device)
                out = self._model(
                    input_ids=torch.tensor([list(ids)], device=device),
                    position_ids=positions[None],
                    attention_mask=torch.ones(1, before + len(ids), device=device),
                    past_key_values=entry.cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                entry.ids.extend(ids)
                return read(out.logits[0, -1].float()) if read else -1
        except Exception as error:
            # The cache may have grown in some layers and not in others: it can't be trusted any
            # more.
            crop(entry, 0)
            if isinstance(error, CorralError):
                raise
            raise ModelError(
                f"The model {self._name!r} failed: {error}. If memory ran out, use a smaller "
                "model or a shorter prompt."
            ) from error

    async def _in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        def locked() -> _T:
            with self._lock:
                return function(*args)

        return await anyio.to_thread.run_sync(locked)


class _Draw:
    """Draws the next token from logits, greedily or at random."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator: torch.Generator | None = None

    def __call__(self, logits: torch.Tensor) -> int:
        import torch

        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                "The model produced numbers that are not finite. Its weights are damaged, or "
                "their precision is too low here."
            )
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        if self._generator is None:
            self._generator = torch.Generator()
            if self._sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._sampling.seed)
        probabilities = torch.softmax(logits.cpu() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            beyond = ordered.cumsum(0) - ordered >= self._sampling.top_p
            probabilities[order[beyond]] = 0
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


class _Probabilities:
    """Reads the probabilities of a few tokens from logits."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self.found: list[float] = []

    def __call__(self, logits: torch.Tensor) -> int:
        import torch

        picked = torch.softmax(logits, dim=-1)[self._tokens]
        self.found = [float(p) for p in picked]
        if not all(math.isfinite(p) for p in self.found):
            raise ModelError("The model gave no probabilities: its weights are damaged.")
        return -1
