"""Models in this process, on transformers: load a folder, stream pieces, stop within a token.

The decode loop is Corral's own, over the model's `forward`: each token is one hop to a worker
thread, so that a cancelled task stops before the next token, errors arrive where they belong, and
the event loop stays free. The model is held by one thread at a time.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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

    from corral.model_runtime.grammar import Grammars, Matcher

__all__ = ["TransformersRuntime"]

_PREFILL_CHUNK = 256
"""Prompt tokens computed between two chances to cancel."""

_T = TypeVar("_T")

_Read: TypeAlias = "Callable[[torch.Tensor], Sequence[int]]"
"""Makes the next tokens of a position's logits."""


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
        self._grammars: Grammars | None = None
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
        """Calls and JSON, by a grammar, where llguidance is installed."""
        installed = importlib.util.find_spec("llguidance") is not None
        return frozenset(("calls", "json")) if installed else frozenset()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`."""
        check_constraint(self, constraint)
        ids = self._encode(prompt, room=sampling.max_tokens)
        matcher = None
        if constraint is not None:
            matcher = await anyio.to_thread.run_sync(self._matcher, constraint)
        draw = _Draw(sampling, matcher)
        detokenizer = Detokenizer(self._tokenizer)
        entry = self._caches.take(ids)
        cached = len(entry.ids)
        reason: StopReason | None = None
        written = 0
        try:
            tokens = await self._prefill(entry, ids, draw)
            while True:
                for token in tokens:
                    written += 1
                    reason = self._tokenizer.stops.get(token)
                    if reason is not None:
                        break
                    for piece in detokenizer.feed(token):
                        yield piece
                    if written == sampling.max_tokens:
                        reason = "max_tokens"
                        break
                if reason is not None:
                    break
                tokens = await self._in_thread(self._advance, entry, tokens, draw)
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

    async def likeliest(self, prompt: Prompt, n: int) -> list[tuple[str, float]]:
        """The `n` likeliest first tokens, as text, with their probabilities, 0 to 1."""
        ids = self._encode(prompt, room=1)
        entry = self._caches.take(ids)
        try:
            read = _Likeliest(n)
            await self._prefill(entry, ids, read)
        finally:
            self._caches.give(entry)
        return [(self._token_text(token), probability) for token, probability in read.found]

    def _token_text(self, token: int) -> str:
        name = self._tokenizer.special_name(token)
        return name or self._tokenizer.token_bytes(token).decode("utf-8", "replace")

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""
        return len(prompt.encode(self._tokenizer))

    async def aclose(self) -> None:
        """Drop the model and its caches. What is still generating goes on to its end."""
        self._caches.clear()
        self._model = None

    def _matcher(self, constraint: Constraint) -> Matcher:
        """Follows one output. In a worker thread: the first takes the time of a set-up."""
        from corral.model_runtime.grammar import Grammars

        with self._lock:
            if self._grammars is None:
                width = int(self._model.config.vocab_size)
                self._grammars = Grammars(self._tokenizer, vocabulary=width)
            return self._grammars.matcher(constraint)

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

    async def _prefill(self, entry: CacheEntry, ids: Sequence[int], read: _Read) -> Sequence[int]:
        todo = ids[len(entry.ids) :]
        chunks = [todo[i : i + _PREFILL_CHUNK] for i in range(0, len(todo), _PREFILL_CHUNK)]
        for chunk in chunks[:-1]:
            await self._in_thread(self._advance, entry, chunk, None)
        return await self._in_thread(self._advance, entry, chunks[-1], read)

    def _advance(
        self,
        entry: CacheEntry,
        ids: Sequence[int],
        read: _Read | None,
    ) -> Sequence[int]:
        """One forward pass over new ids; `read` makes the next ones of the last one's logits.

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
                return read(out.logits[0, -1].float()) if read else ()
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
    """Draws the next token from logits, greedily or at random, and adds what must follow it."""

    def __init__(self, sampling: Sampling, matcher: Matcher | None = None) -> None:
        self._sampling = sampling
        self._matcher = matcher
        self._generator: torch.Generator | None = None

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        if self._matcher is None:
            return [self._draw(logits)]
        if self._matcher.done:
            return [self._matcher.end]
        token = self._draw(logits)
        self._matcher.advance(token)
        return [token, *self._matcher.forced()]

    def _draw(self, logits: torch.Tensor) -> int:
        import torch

        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                "The model produced numbers that are not finite. Its weights are damaged, or "
                "their precision is too low here."
            )
        if self._matcher is not None:
            logits = self._matcher.mask(logits)
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

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        import torch

        picked = torch.softmax(logits, dim=-1)[self._tokens]
        self.found = [float(p) for p in picked]
        if not all(math.isfinite(p) for p in self.found):
            raise ModelError("The model gave no probabilities: its weights are damaged.")
        return ()


class _Likeliest:
    """Reads the likeliest tokens from logits."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.found: list[tuple[int, float]] = []

    def __call__(self, logits: torch.Tensor) -> Sequence[int]:
        import torch

        top = torch.softmax(logits, dim=-1).topk(self._n)
        self.found = [
            (int(token), float(p)) for p, token in zip(top.values, top.indices, strict=True)
        ]
        return ()
