"""Models in this process: load a folder, stream pieces, stop within a token.

A model belongs to one thread, its scheduler, which serves all tasks of the process together. A
task that is cancelled leaves before the next token; the event loop is never blocked.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from corral.errors import ContextOverflow, ModelError
from corral.events import Usage
from corral.model_runtime.local.drawing import Draw, Likeliest, Probabilities, Reader
from corral.model_runtime.local.jobs import Ended, Job
from corral.model_runtime.local.lookup import Lookup
from corral.model_runtime.local.mailbox import Mailbox
from corral.model_runtime.local.sharing import LocalModel, LocalOptions, acquire
from corral.model_runtime.profiles import ModelProfile
from corral.model_runtime.progress import Progress
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

__all__ = ["TransformersRuntime"]

_Written: TypeAlias = "Sequence[int] | Ended"


class TransformersRuntime:
    """A Llama model in this process, from a folder in Hugging Face's layout.

    Make one with `TransformersRuntime.load`. Several of one folder share the weights.
    """

    def __init__(self, *, name: str, profile: ModelProfile, model: LocalModel) -> None:
        """Take over one `acquire` of a model. `name` is its model string."""
        self._name = name
        trained = model.context_length
        self._profile = replace(profile, context_length=min(profile.context_length, trained))
        self._model = model
        self._release = weakref.finalize(self, model.release)

    @classmethod
    async def load(
        cls,
        folder: Path,
        *,
        name: str,
        profile: ModelProfile,
        options: LocalOptions = LocalOptions(),
        progress: Progress | None = None,
    ) -> TransformersRuntime:
        """Load a folder in Hugging Face's layout (config.json, *.safetensors, tokenizer.json).

        Raises:
            ConfigError: The folder is no model's.
            RuntimeUnavailable: It isn't a Llama model, it doesn't fit into memory, or an extra
                isn't installed.
        """
        token = anyio.lowlevel.current_token()

        def tell(done: int, steps: int) -> None:
            if progress is not None:
                what = f"Converting {name} for this machine"
                anyio.from_thread.run_sync(progress, what, done, steps, token=token)

        def get() -> LocalModel:
            return acquire(folder, name=name, options=options, tell=tell)

        return cls(name=name, profile=profile, model=await anyio.to_thread.run_sync(get))

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
        return self._model.tokenizer

    @property
    def summary(self) -> str:
        """How the model is held, for people: device, precision and kernel."""
        return self._model.summary

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """Calls and JSON, by a grammar, where llguidance is installed."""
        return frozenset(("calls", "json")) if _has_grammars() else frozenset()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`.

        Raises:
            ModelBusy: Too many requests wait already. Beside what `Runtime.generate` raises.
        """
        check_constraint(self, constraint)
        ids, keys = self._encode(prompt, room=sampling.max_tokens)
        matcher = None
        if constraint is not None:
            grammars = await anyio.to_thread.run_sync(self._model.grammars)
            matcher = await anyio.to_thread.run_sync(grammars.matcher, constraint)
        mailbox = Mailbox[_Written]()
        job = Job(
            ids=ids,
            keys=keys,
            reader=Draw(sampling, matcher),
            listener=mailbox.put,
            stops=self.tokenizer.stops,
            limit=sampling.max_tokens,
            images=prompt.images,
            # A guess may not hold an image's token, which stands for nothing in an output.
            lookup=None if prompt.images else Lookup(ids),
        )
        detokenizer = Detokenizer(self.tokenizer)
        self._model.scheduler.submit(job)
        try:
            while not isinstance(written := await mailbox.take(), Ended):
                for token in written:
                    for piece in detokenizer.feed(token):
                        yield piece
            if written.error is not None or written.reason is None:
                raise written.error or ModelError(f"{self._name!r} ended without a reason.")
            for piece in detokenizer.flush():
                yield piece
            yield Finish(
                reason=written.reason,
                usage=Usage(
                    prompt_tokens=len(ids),
                    cached_tokens=written.cached,
                    output_tokens=written.written,
                ),
            )
        finally:
            job.cancelled = True

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """First-token probabilities; see `Runtime.score`.

        One forward pass, of which the shared prefix is cached.
        """
        first = {c: self.tokenizer.encode_text(c)[0] for c in candidates}
        read = Probabilities(list(first.values()))
        await self._read(prompt, read)
        return dict(zip(first, read.found, strict=True))

    async def likeliest(self, prompt: Prompt, n: int) -> list[tuple[str, float]]:
        """The `n` likeliest first tokens, as text, with their probabilities, 0 to 1."""
        read = Likeliest(n)
        await self._read(prompt, read)
        return [(self._token_text(token), probability) for token, probability in read.found]

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""
        return len(prompt.encode(self.tokenizer))

    async def aclose(self) -> None:
        """Let the model go. What is still generating goes on to its end."""
        self._release()

    async def _read(self, prompt: Prompt, reader: Reader) -> None:
        """Have one position's logits read."""
        ids, keys = self._encode(prompt, room=1)
        mailbox = Mailbox[_Written]()
        job = Job(ids=ids, keys=keys, reader=reader, listener=mailbox.put, images=prompt.images)
        self._model.scheduler.submit(job)
        try:
            ended = await mailbox.take()
        finally:
            job.cancelled = True
        if isinstance(ended, Ended) and ended.error is not None:
            raise ended.error

    def _token_text(self, token: int) -> str:
        name = self.tokenizer.special_name(token)
        return name or self.tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _encode(self, prompt: Prompt, *, room: int) -> tuple[list[int], list[int]]:
        """The prompt's ids, and its keys: an image's token counts as the image."""
        if not self._release.alive:
            raise ModelError(f"The model {self._name!r} has been closed. Open it again to use it.")
        if prompt.images and not self._model.sees:
            raise ModelError(f"The model {self._name!r} sees no images. Use a vision model.")
        ids = prompt.encode(self.tokenizer)
        self._check_ids(ids, prompt)
        available = self._profile.context_length
        if len(ids) + room > available:
            raise ContextOverflow(needed=len(ids) + room, available=available)
        return ids, self._keys(ids, prompt) if prompt.images else ids

    def _check_ids(self, ids: list[int], prompt: Prompt) -> None:
        """See that the model can take them: in a pass, one that fails takes others with it."""
        if not ids:
            raise ModelError("The prompt is empty. Begin it with <|begin_of_text|>.")
        if self._model.sees:
            tokens = ids.count(self.tokenizer.special_id("<|image|>"))
            if tokens != len(prompt.images):
                raise ModelError(
                    f"The prompt has {tokens} <|image|> tokens and {len(prompt.images)} images. "
                    "Give each token its image."
                )

    def _keys(self, ids: list[int], prompt: Prompt) -> list[int]:
        token = self.tokenizer.special_id("<|image|>")
        images = iter(prompt.images)
        keys = list(ids)
        for at, token_id in enumerate(ids):
            if token_id == token:
                digest = hashlib.sha256(next(images).data).digest()
                keys[at] = -1 - int.from_bytes(digest[:8], "little")
        return keys


@cache
def _has_grammars() -> bool:
    return find_spec("llguidance") is not None
