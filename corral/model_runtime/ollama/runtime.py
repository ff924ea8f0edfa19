"""The runtime: prompts to an Ollama server, pieces from it, and no cut that goes unseen.

`<|begin_of_text|>` is left out of a raw prompt (the server adds it), and lookalikes of control
tokens in texts are escaped, since the server parses them wherever they stand. A prompt is counted
with the model's own vocabulary before it is sent, and what the server says it has read is compared
with that: Ollama cuts a prompt that is too long to about half of its context and says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import anyio
from pydantic import JsonValue

from corral.errors import (
    ConfigError,
    ContextOverflow,
    ContextTruncated,
    ModelError,
    RuntimeUnavailable,
    ScoreUnavailable,
)
from corral.events import Usage
from corral.messages import StopReason
from corral.model_runtime.estimates import fewest_tokens, most_tokens
from corral.model_runtime.parser import pieces_from_text
from corral.model_runtime.profiles import PROFILES, ModelProfile, find_profile, warn_unknown
from corral.model_runtime.prompt import Prompt, Special, Text
from corral.model_runtime.runtime import (
    Constraint,
    ConstraintKind,
    Finish,
    Piece,
    Sampling,
    check_constraint,
)
from corral.model_runtime.wire import PATIENT, Lost, Patience, patient, patient_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corral.model_runtime.ollama.client import OllamaClient
    from corral.model_runtime.ollama.server import ServedModel

__all__ = ["DEFAULT_CONTEXT", "OllamaRuntime"]

DEFAULT_CONTEXT = 8192
"""Tokens. At 3B, 16-bit keys and values for so many take 0.9 GB; all of Llama 3.2's 131,072 would
take 15.
"""

_STOP = ("<|eot_id|>", "<|eom_id|>", "<|start_header_id|>")
_TOP_LOGPROBS = 20
_ALL = {"top_k": 0, "repeat_penalty": 1.0}
"""Options that leave the model's distribution as it is; the server's defaults don't."""

_T = TypeVar("_T")


class OllamaRuntime:
    """One model of the Ollama server that `OLLAMA_HOST` names, by default on this machine.

    Fulfils `Runtime`, and `Embedder` where the model is one that embeds.
    """

    def __init__(
        self,
        model: str,
        *,
        host: str | None = None,
        num_ctx: int | None = None,
        keep_alive: str = "10m",
        allow_cloud: bool = False,
        profile: ModelProfile | None = None,
        patience: Patience = PATIENT,
        name: str | None = None,
    ) -> None:
        """Talk to `model` on `host`. Nothing is sent yet.

        Args:
            model: Its name on the server, such as `llama3.2:3b`.
            host: Where the server is, such as `http://gpu:11434`.
            num_ctx: The context in tokens, sent with every call and always the same, since a
                change would make the server load the model again. By default 8192, or the
                model's own where that is less. Agents that share a model should share it too.
            keep_alive: How long the server keeps the model loaded after a call.
            allow_cloud: Whether the server may send prompts on to another machine.
            profile: What the model is, where its name doesn't say.
            patience: How long to wait, and how often to try.
            name: The model string that events show, by default `ollama:MODEL`.

        Raises:
            ConfigError: `num_ctx` is no possible context.
        """
        from corral.model_runtime.ollama.client import server_url

        if num_ctx is not None and num_ctx < 256:
            raise ConfigError(f"num_ctx is {num_ctx!r}. Give at least 256 tokens.")
        self._model = model
        self._url = server_url(host)
        self._keep_alive = keep_alive
        self._allow_cloud = allow_cloud
        self._patience = patience
        self._name = name or f"ollama:{model}"
        profile = profile or find_profile(model)
        self._is_known = profile is not None
        profile = profile or PROFILES["unknown"]
        self._num_ctx = num_ctx or min(profile.context_length, DEFAULT_CONTEXT)
        self._profile = replace(profile, context_length=self._num_ctx)
        self._asked: ServedModel | None = None
        self._served: ServedModel | None = None
        self._preparing = anyio.Lock()

    @property
    def name(self) -> str:
        """The model string."""
        return self._name

    @property
    def profile(self) -> ModelProfile:
        """What is known of the model."""
        return self._profile

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """A JSON Schema, which the server turns into a grammar."""
        return frozenset({"json"})

    async def prepare(self) -> None:
        """Ask the server about the model, unless that is done. The first call does it as well.

        Raises:
            RuntimeUnavailable: No server answers, it hasn't the model, or can't run it.
        """
        async with self._preparing:
            if self._served is None:
                self._served = await self._examine()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`.

        Raises:
            ContextTruncated: The server read less of the prompt than was sent. What has been
                yielded answers another question.
            RuntimeUnavailable: The server is gone, or can't run the model.
        """
        check_constraint(self, constraint)
        served = await self._ready()
        sent = await self._measure(prompt, sampling.max_tokens)
        if served.raw:
            path, body = "/api/generate", self._request(prompt, sampling)
        else:
            from corral.model_runtime.ollama.chat import chat_body

            path, body = "/api/chat", chat_body(prompt) | self._settings(sampling)
        if constraint is not None:
            body["format"] = dict(constraint.json_schema or {})
        last: Mapping[str, JsonValue] = {}
        calls: list[JsonValue] = []
        async with aclosing(self._stream(path, body)) as parts:
            async for part in parts:
                last = part
                for piece in self._pieces(part, calls, plain=not served.shows_specials):
                    yield piece
        if calls:
            from corral.model_runtime.ollama.chat import calls_piece

            yield calls_piece(calls)
        yield self._finish(last, sent, prompt)

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """First-token probabilities; see `Runtime.score`.

        Tokens below the server's first twenty count as 0.

        Raises:
            ScoreUnavailable: The server gives none.
        """
        served = await self._ready()
        if not served.raw:
            raise ScoreUnavailable(
                f"{self._name!r} goes through Ollama's chat, where the first token can't be "
                "asked for. Use a Llama 3 model."
            )
        sent = await self._measure(prompt, 1)
        body = self._request(prompt, Sampling(max_tokens=1))
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        first: JsonValue = None
        last: Mapping[str, JsonValue] = {}
        async with aclosing(self._stream("/api/generate", body)) as parts:
            async for part in parts:
                last = part
                found = part.get("logprobs")
                if first is None and isinstance(found, list) and found:
                    first = found[0]
        self._finish(last, sent, prompt)
        if not isinstance(first, dict):
            raise ScoreUnavailable(
                f"The Ollama server at {self._url} gives no probabilities for {self._model!r}: "
                "before version 0.12.11 it has none, and where a model writes nothing there are "
                "none. Update Ollama."
            )
        return _odds(first, {each: self._first_token(each) for each in candidates})

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens.

        Exact where the server gives the model's vocabulary and it is one of Llama 3's kind;
        otherwise estimated from above.
        """
        served = await self._ready()
        if served.raw and served.vocabulary is not None:
            return served.vocabulary.count(prompt, bos=served.adds_bos)
        return most_tokens(prompt)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of unit length for each text; see `Embedder`.

        Raises:
            ContextOverflow: A text is longer than the model's context. None is ever cut.
            RuntimeUnavailable: The server hasn't the model, or would send texts on to another
                machine.
        """
        if not texts:
            return []
        await self._ask()  # whether the server would send the texts on

        async def call(client: OllamaClient) -> list[list[float]]:
            answer = await client.embed(
                self._model, list(texts), truncate=False, keep_alive=self._keep_alive
            )
            return [list(vector) for vector in answer.embeddings]

        vectors = await self._call(call)
        if len(vectors) != len(texts):
            raise ModelError(
                f"The Ollama server gave {len(vectors)} vectors for {len(texts)} texts. Try again."
            )
        return vectors

    async def aclose(self) -> None:
        """Nothing to let go: connections live as long as a call."""

    # -- what is sent

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, object]:
        """A raw request: the official client's own, and the fields it lacks."""
        from ollama._types import GenerateRequest, Image

        options = self._settings(sampling)
        request = GenerateRequest(
            model=self._model,
            prompt=_with_image_marks(prompt).escaped(bos=False),
            raw=True,
            stream=True,
            images=[Image(value=bytes(image.data)) for image in prompt.images] or None,
        )
        return {**request.model_dump(exclude_none=True), **options}

    def _settings(self, sampling: Sampling) -> dict[str, object]:
        options: dict[str, object] = {
            "num_ctx": self._num_ctx,
            "num_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **_ALL,
        }
        if self._served is None or self._served.raw:
            options["stop"] = list(_STOP)
        if sampling.seed is not None:
            options["seed"] = sampling.seed
        return {
            "model": self._model,
            "stream": True,
            "options": options,
            "keep_alive": self._keep_alive,
            # A server that knows the field refuses a prompt that is too long instead of cutting
            # it. `shift` would do the same, but differing from other clients in it makes the
            # server load the model again.
            "truncate": False,
        }

    async def _measure(self, prompt: Prompt, room: int) -> int:
        """The prompt's tokens, which fit with `room` to answer.

        Raises:
            ContextOverflow: They don't.
        """
        count = await self.count(prompt)
        if count + room > self._profile.context_length:
            raise ContextOverflow(needed=count + room, available=self._profile.context_length)
        return count

    # -- what comes back

    def _pieces(
        self, part: Mapping[str, JsonValue], calls: list[JsonValue], *, plain: bool
    ) -> Sequence[Piece]:
        message = part.get("message")
        if isinstance(message, dict):
            found = message.get("tool_calls")
            calls += found if isinstance(found, list) else []
            text, plain = message.get("content"), True
        else:
            text = part.get("response")
        if not isinstance(text, str) or not text:
            return ()
        return (Piece(text),) if plain else pieces_from_text(text)

    def _finish(self, last: Mapping[str, JsonValue], sent: int, prompt: Prompt) -> Finish:
        """The end of an answer, if the server has read the whole prompt."""
        served = self._served
        assert served is not None
        read, written = _number(last, "prompt_eval_count"), _number(last, "eval_count")
        if read is not None and served.counts_prompts and not prompt.images:
            # An estimate from above proves nothing; that no token spans two words does.
            least = fewest_tokens(prompt)
            if served.raw and served.vocabulary is not None:
                least = sent - served.vocabulary.slack(prompt)
            if read < least:
                raise ContextTruncated(sent=sent, read=read, who=f"The Ollama server ({self.name})")
        reasons: dict[object, StopReason] = {"stop": "end_of_turn", "length": "max_tokens"}
        usage = Usage(prompt_tokens=read or 0, output_tokens=written or 0)
        return Finish(reason=reasons.get(last.get("done_reason"), "unknown"), usage=usage)

    def _first_token(self, text: str) -> str | None:
        served = self._served
        if served is None or served.vocabulary is None:
            return None
        return served.vocabulary.first(text)

    # -- the server

    async def _ready(self) -> ServedModel:
        if self._served is None:
            await self.prepare()
        assert self._served is not None
        return self._served

    async def _ask(self) -> ServedModel:
        from corral.model_runtime.ollama.server import examine

        async def call(client: OllamaClient) -> ServedModel:
            return await examine(
                client,
                self._model,
                profile=self._profile,
                allow_cloud=self._allow_cloud,
                url=self._url,
            )

        if self._asked is None:
            self._asked = await self._call(call)
        return self._asked

    async def _examine(self) -> ServedModel:
        served = await self._ask()
        if served.context is not None:
            self._num_ctx = min(self._num_ctx, served.context)
        profile = replace(self._profile, context_length=self._num_ctx)
        if not served.shows_specials:
            # Code is told from text by a control token, which such a server leaves out.
            profile = replace(profile, code_interpreter=False)
        self._profile = profile
        if not served.raw:
            from corral.model_runtime.ollama.chat import warn

            warn(self._name)
        elif not self._is_known:
            warn_unknown(self._model)
        return served

    async def _call(self, call: Callable[[OllamaClient], Awaitable[_T]]) -> _T:
        """One answer of the client, tried again where the connection was lost."""
        from corral.model_runtime.ollama.client import open_client

        async def once() -> _T:
            async with open_client(self._url, self._patience) as client:
                try:
                    return await call(client)
                except Exception as error:
                    if (explained := self._explained(error)) is error:
                        raise
                    raise explained from error

        return await patient_call(once, patience=self._patience, who=self._who)

    async def _stream(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[Mapping[str, JsonValue]]:
        from corral.model_runtime.ollama.client import open_client

        async def once() -> AsyncGenerator[Mapping[str, JsonValue]]:
            async with open_client(self._url, self._patience) as client:
                try:
                    async with aclosing(client.lines(path, body)) as lines:
                        async for line in lines:
                            yield line
                except Exception as error:
                    if (explained := self._explained(error)) is error:
                        raise
                    raise explained from error

        async with aclosing(patient(once, patience=self._patience, who=self._who)) as parts:
            async for part in parts:
                yield part

    @property
    def _who(self) -> str:
        return f"The Ollama server at {self._url}"

    def _explained(self, error: Exception) -> Exception:
        from corral.model_runtime.ollama.failures import explain

        if isinstance(error, (Lost, RuntimeUnavailable, ModelError)):
            return error
        return explain(error, model=self._model, url=self._url, num_ctx=self._num_ctx)


def _number(part: Mapping[str, JsonValue], key: str) -> int | None:
    value = part.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _odds(first: Mapping[str, JsonValue], wanted: Mapping[str, str | None]) -> dict[str, float]:
    """The probabilities of candidates, of which `wanted` has the first token where it is known.

    Where it isn't, every token that a candidate begins with counts.
    """
    found = dict.fromkeys(wanted, 0.0)
    tops = first.get("top_logprobs")
    for top in tops if isinstance(tops, list) else []:
        if not isinstance(top, dict):
            continue
        token, logprob = top.get("token"), top.get("logprob")
        if not isinstance(token, str) or not token or not isinstance(logprob, (int, float)):
            continue
        for candidate, begins in wanted.items():
            if token == begins or (begins is None and candidate.startswith(token)):
                found[candidate] += math.exp(logprob)
    return {candidate: min(1.0, p) for candidate, p in found.items()}


_IMAGE_MARK = re.compile(r"\[img-(?=\d+\])")


def _with_image_marks(prompt: Prompt) -> Prompt:
    """A prompt with images as the server reads it: `[img-N]` where image N stands.

    No text may look like such a mark.
    """
    if not prompt.images:
        return prompt
    segments: list[Special | Text] = []
    images = 0
    for segment in prompt.segments:
        if isinstance(segment, Text):
            segments.append(replace(segment, text=_IMAGE_MARK.sub("[img\\-", segment.text)))
        elif segment.token == "<|image|>":
            segments.append(replace(segment, token=f"[img-{images}]"))
            images += 1
        else:
            segments.append(segment)
    return Prompt(tuple(segments), prompt.images)
