"""Models of an Ollama server, through the official client, with a prompt that is ours to the byte.

Raw mode because Ollama's own template for Llama 3.2 shows the tools only while the last message is
the user's, and its template for Llama Guard 3 always asks about the user. `<|begin_of_text|>` is
left out (the server adds it), and lookalikes of control tokens in texts are escaped, since the
server parses them wherever they stand.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from corral.errors import ContextOverflow, ModelError, RuntimeUnavailable
from corral.events import Usage
from corral.model_runtime.profiles import ModelProfile, profile_for
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import (
    Constraint,
    ConstraintKind,
    Finish,
    Piece,
    Sampling,
    check_constraint,
)

if TYPE_CHECKING:
    from ollama import AsyncClient

__all__ = ["OllamaRuntime"]

_STOP = ("<|eot_id|>", "<|eom_id|>", "<|start_header_id|>")
_TOP_LOGPROBS = 20
_CHARS_PER_TOKEN = 3.5
_MARGIN = 1.3


class OllamaRuntime:
    """One model of the Ollama server that `OLLAMA_HOST` names, by default on this machine."""

    def __init__(self, model: str, *, host: str | None = None, num_ctx: int = 8192) -> None:
        """Talk to `model` on `host`.

        `num_ctx` is fixed for all calls: a change would make the server load it again.
        """
        self._model = model
        self._host = host
        self._num_ctx = num_ctx
        profile = profile_for(model)
        self._profile = replace(profile, context_length=min(profile.context_length, num_ctx))

    @property
    def name(self) -> str:
        """The model string."""
        return f"ollama:{self._model}"

    @property
    def profile(self) -> ModelProfile:
        """What is known of the model."""
        return self._profile

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """Nothing yet."""
        return frozenset()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`."""
        check_constraint(self, constraint)
        await self._check_room(prompt, sampling.max_tokens)
        last: Any = None
        async with aclosing(self._stream(prompt, sampling)) as chunks:
            async for chunk in chunks:
                last = chunk
                if chunk.response:
                    yield Piece(chunk.response)
        if last is None or not last.done:
            raise ModelError(
                f"Ollama's answer from {self._model!r} broke off before its end. Try again; the "
                "server's log says why."
            )
        usage = Usage(prompt_tokens=last.prompt_eval_count or 0, output_tokens=last.eval_count or 0)
        reason = "max_tokens" if last.done_reason == "length" else "end_of_turn"
        yield Finish(reason=reason, usage=usage)

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """First-token probabilities; see `Runtime.score`.

        Tokens below the server's first twenty count as 0.
        """
        await self._check_room(prompt, 1)
        sampling = Sampling(max_tokens=1)
        found = dict.fromkeys(candidates, 0.0)
        seen = False
        async with aclosing(self._stream(prompt, sampling, logprobs=True)) as chunks:
            async for chunk in chunks:
                if not seen and chunk.logprobs:
                    seen = True
                    for top in chunk.logprobs[0].top_logprobs or ():
                        for candidate in candidates:
                            if top.token and candidate.startswith(top.token):
                                found[candidate] += math.exp(top.logprob)
        if not seen:
            raise ModelError(
                f"The Ollama server gives no probabilities for {self._model!r}. Update Ollama to "
                "0.12.11 or newer."
            )
        return found

    async def count(self, prompt: Prompt) -> int:
        """An upper estimate of the prompt's tokens: the server has no call that counts them."""
        return math.ceil(len(prompt.escaped(bos=False)) / _CHARS_PER_TOKEN * _MARGIN)

    async def aclose(self) -> None:
        """Nothing to let go: connections live as long as a call."""

    async def _check_room(self, prompt: Prompt, room: int) -> None:
        needed = await self.count(prompt) + room
        available = self._profile.context_length
        if needed > available:
            raise ContextOverflow(needed=needed, available=available)

    async def _stream(
        self, prompt: Prompt, sampling: Sampling, *, logprobs: bool = False
    ) -> AsyncGenerator[Any]:
        client = self._client()
        options: dict[str, object] = {
            "num_ctx": self._num_ctx,
            "num_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "repeat_penalty": 1.0,
            "stop": list(_STOP),
        }
        if sampling.seed is not None:
            options["seed"] = sampling.seed
        try:
            stream = cast(
                "AsyncGenerator[Any]",
                await client.generate(  # pyright: ignore[reportUnknownMemberType]
                    model=self._model,
                    prompt=prompt.escaped(bos=False),
                    raw=True,
                    stream=True,
                    options=options,
                    keep_alive="10m",
                    logprobs=logprobs,
                    top_logprobs=_TOP_LOGPROBS if logprobs else None,
                ),
            )
            async with aclosing(stream):
                async for chunk in stream:
                    yield chunk
        except Exception as error:
            self._explain(error)
        finally:
            await client._client.aclose()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]

    def _client(self) -> AsyncClient:
        try:
            import httpx
            from ollama import AsyncClient
        except ImportError as error:  # pragma: no cover - both are requirements of the distribution
            raise RuntimeUnavailable(
                f"Ollama models need the package {error.name!r}: pip install llama-corral"
            ) from error
        return AsyncClient(
            host=self._host,
            timeout=httpx.Timeout(120, connect=5, read=600),
            follow_redirects=False,
        )

    def _explain(self, error: Exception) -> NoReturn:
        import httpx
        from ollama import ResponseError

        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError)):
            where = self._host or "OLLAMA_HOST or http://127.0.0.1:11434"
            raise RuntimeUnavailable(
                f"No Ollama server answers at {where}. Start it (ollama serve), or set OLLAMA_HOST."
            ) from error
        if isinstance(error, ResponseError) and error.status_code == 404:
            raise RuntimeUnavailable(
                f"The Ollama server has no model {self._model!r}. Fetch it: ollama pull "
                f"{self._model}"
            ) from error
        if isinstance(error, (ResponseError, httpx.HTTPError, ValueError)):
            raise ModelError(f"Ollama failed on {self._model!r}: {error}") from error
        raise error
