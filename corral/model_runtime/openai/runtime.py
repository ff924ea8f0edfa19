"""The runtime: prompts to a completions server, pieces from it."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
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
from corral.model_runtime.openai.chat import Chat
from corral.model_runtime.openai.completions import Completions
from corral.model_runtime.openai.connection import Connection, NoSuchEndpoint, PromptTooLong
from corral.model_runtime.openai.dialect import Asked, Dialect, Heard, number
from corral.model_runtime.openai.generate import Generate
from corral.model_runtime.openai.servers import KINDS, ServerKind, kind_of
from corral.model_runtime.parser import pieces_from_text
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
from corral.model_runtime.tokenizer import LlamaTokenizer
from corral.model_runtime.wire import PATIENT, Patience

__all__ = ["OpenAIRuntime"]

_DEFAULT_CONTEXT = 8192
_DIALECTS = {"completions": Completions, "generate": Generate, "chat": Chat}


class OpenAIRuntime:
    """One model of a server that speaks completions. Fulfils `Runtime`."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        server: str | None = None,
        tokenizer: str | Path | None = None,
        context: int | None = None,
        key_env: str | None = None,
        profile: ModelProfile | None = None,
        patience: Patience = PATIENT,
        name: str | None = None,
    ) -> None:
        """Talk to `model` on the server at `base_url`. Nothing is sent yet.

        Args:
            model: Its name on the server.
            base_url: The server's address with its `/v1`; by default that in `OPENAI_BASE_URL`.
            server: What kind of server it is, a key of `KINDS`; by default it is asked.
            tokenizer: A folder with the model's `tokenizer.json`. With it prompts are counted
                exactly, and sent as token ids where the server takes them. Needs the package
                `tokenizers`, which `llama-corral[local]` brings.
            context: The context in tokens; by default what the server says, else 8192 at most.
            key_env: The environment variable that holds the key; by default `OPENAI_API_KEY`,
                which is never sent unencrypted to another machine.
            profile: What the model is, where its name doesn't say.
            patience: How long to wait, and how often to try.
            name: The model string that events show, by default `openai:MODEL`.

        Raises:
            ConfigError: There is no address, no such kind of server, or no key in `key_env`.
        """
        url = base_url or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ConfigError(
                f"Where is the server of {model!r}? Write openai:{model}@http://HOST:PORT/v1, or "
                "set OPENAI_BASE_URL."
            )
        if server is not None and server not in KINDS:
            raise ConfigError(
                f"There is no kind of server {server!r}. There are: {', '.join(KINDS)}."
            )
        self._model = model
        self._name = name or f"openai:{model}"
        self._connection = Connection(url, model=model, key_env=key_env, patience=patience)
        self._kind: ServerKind | None = None
        self._wanted = KINDS[server] if server else None
        self._folder = Path(tokenizer).expanduser() if tokenizer is not None else None
        self._tokenizer: LlamaTokenizer | None = None
        self._context = context
        profile = profile or profile_for(model)
        self._profile = replace(
            profile, context_length=context or min(profile.context_length, _DEFAULT_CONTEXT)
        )
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
        """A JSON Schema, where the server takes one. Known once the server has been asked."""
        kind = self._kind or self._wanted
        return frozenset({"json"}) if kind is not None and kind.schema else frozenset()

    @property
    def server(self) -> ServerKind | None:
        """What kind of server it is, once it has been asked."""
        return self._kind

    async def prepare(self) -> None:
        """Ask the server what it is, unless that is done. The first call does it as well.

        Raises:
            RuntimeUnavailable: It doesn't answer, refuses the key, or hasn't the model.
        """
        async with self._preparing:
            if self._kind is None:
                if self._folder is not None and self._tokenizer is None:
                    load = _load_tokenizer
                    self._tokenizer = await anyio.to_thread.run_sync(load, self._folder)
                self._kind = await self._examine()
                if not self._kind.shows_specials:
                    # Code is told from text by a control token, which such a server leaves out.
                    self._profile = replace(self._profile, code_interpreter=False)

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt; see `Runtime.generate`.

        Raises:
            ContextTruncated: The server read less of the prompt than was sent. What has been
                yielded answers another question.
            RuntimeUnavailable: The server is gone, refuses the key, or hasn't the model.
        """
        await self._ready()
        check_constraint(self, constraint)
        sent = await self._measure(prompt, sampling.max_tokens)
        schema = constraint.json_schema if constraint is not None else None
        asked = self._asked(prompt, sampling, sent)
        if schema is not None:
            asked = replace(asked, schema=schema)
        end = _End()
        async with aclosing(self._ask(asked)) as answer:
            async for heard in answer:
                end.hear(heard)
                for piece in self._pieces(heard.text):
                    yield piece
        yield end.finish(sent=sent, prompt=prompt, exact=asked.ids is not None, who=self._name)

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """First-token probabilities; see `Runtime.score`.

        Tokens below those that the server tells of count as 0.

        Raises:
            ScoreUnavailable: The server gives none.
        """
        kind = await self._ready()
        sent = await self._measure(prompt, 1)
        if not kind.logprobs:
            raise ScoreUnavailable(
                f"{self._connection.who} gives no probabilities. Use one of kind "
                f"{', '.join(k.name for k in KINDS.values() if k.logprobs)}."
            )
        asked = replace(
            self._asked(prompt, Sampling(max_tokens=1), sent), top_logprobs=kind.logprobs
        )
        end = _End()
        async with aclosing(self._ask(asked)) as answer:
            async for heard in answer:
                end.hear(heard)
        end.finish(sent=sent, prompt=prompt, exact=asked.ids is not None, who=self._name)
        if not end.odds:
            raise ScoreUnavailable(
                f"{self._connection.who} gave no probabilities for {self._model!r}. "
                "(llama-cpp-python gives them when started with --logits_all true.)"
            )
        return {candidate: self._probability(candidate, end.odds) for candidate in candidates}

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens: exact with a tokenizer, else estimated from above."""
        if self._folder is not None:
            await self._ready()
        if self._tokenizer is not None:
            return len(prompt.encode(self._tokenizer))
        return most_tokens(prompt)

    async def aclose(self) -> None:
        """Nothing to let go: connections live as long as a call."""

    # -- asking

    def _asked(self, prompt: Prompt, sampling: Sampling, length: int) -> Asked:
        kind, tokenizer = self._kind, self._tokenizer
        assert kind is not None
        ids = None
        if kind.takes_ids and tokenizer is not None and not prompt.images:
            ids = prompt.encode(tokenizer)
        if prompt.images and kind.api == "completions":
            raise ConfigError(
                f"A server of kind {kind.name!r} takes no images with a prompt. Use SGLang, or "
                "the chat API (?server=chat)."
            )
        return Asked(
            model=self._model,
            prompt=prompt,
            length=length,
            ids=ids,
            stops=tokenizer.stops if tokenizer is not None else {},
            sampling=sampling,
        )

    async def _ask(self, asked: Asked) -> AsyncGenerator[Heard]:
        """The answer; over chat, where it turns out that there are no completions."""
        kind = self._kind
        assert kind is not None
        dialect: Dialect = _DIALECTS[kind.api](asked, kind)
        try:
            events = self._connection.events(dialect.path(), dialect.body())
            async with aclosing(events) as told:
                async for event in told:
                    yield dialect.hear(event)
            return
        except PromptTooLong as error:
            needed = asked.length + asked.sampling.max_tokens
            raise ContextOverflow(
                needed=needed,
                available=min(self._profile.context_length, needed - 1),
                what=f"The server refused the prompt ({error}), which with room for an answer",
            ) from error
        except NoSuchEndpoint as error:
            if kind.name != "completions" or asked.prompt.source is None:
                raise RuntimeUnavailable(
                    f"{self._connection.who} has no such API: {dialect.path()} ({error}). Check "
                    "the address, which ends in /v1 as a rule."
                ) from error
        self._kind = KINDS["chat"]
        async with aclosing(self._ask(replace(asked, ids=None))) as answer:
            async for heard in answer:
                yield heard

    def _pieces(self, text: str) -> Sequence[Piece]:
        if not text:
            return ()
        kind = self._kind
        shown = kind is not None and kind.shows_specials
        return pieces_from_text(text) if shown else (Piece(text),)

    def _probability(self, candidate: str, odds: Mapping[str, float]) -> float:
        if self._tokenizer is not None:
            first = self._tokenizer.encode_text(candidate)[:1]
            begins = b"".join(map(self._tokenizer.token_bytes, first)).decode("utf-8", "replace")
            return math.exp(odds[begins]) if begins in odds else 0.0
        found = (math.exp(p) for token, p in odds.items() if token and candidate.startswith(token))
        return min(1.0, sum(found))

    async def _measure(self, prompt: Prompt, room: int) -> int:
        count = await self.count(prompt)
        if count + room > self._profile.context_length:
            raise ContextOverflow(needed=count + room, available=self._profile.context_length)
        return count

    # -- the server

    async def _ready(self) -> ServerKind:
        if self._kind is None:
            await self.prepare()
        assert self._kind is not None
        return self._kind

    async def _examine(self) -> ServerKind:
        listed = await self._connection.get("models")
        models = listed.get("data") if listed is not None else None
        cards = [
            card for card in (models if isinstance(models, list) else []) if isinstance(card, dict)
        ]
        kind = self._wanted
        if kind is None and cards:
            owner = str(cards[0].get("owned_by", ""))
            version, increments = "", False
            if owner == "vllm":
                version = str((await self._connection.get("../version") or {}).get("version", ""))
            if owner == "sglang":
                about = await self._connection.get("../get_server_info") or {}
                increments = bool(about.get("stream_output"))
            kind = kind_of(owner, version=version, increments=increments)
        kind = kind or KINDS["completions"]
        mine = next((card for card in cards if card.get("id") == self._model), None)
        if mine is None and cards and kind.names_itself:
            names = ", ".join(repr(card.get("id")) for card in cards[:8])
            raise RuntimeUnavailable(
                f"{self._connection.who} has no model {self._model!r}. It has: {names}."
            )
        self._narrow(mine or {})
        return kind

    def _narrow(self, card: dict[str, JsonValue]) -> None:
        """Take the context length that the server tells of, where it does."""
        told = number(card, "max_model_len") or number(card.get("meta"), "n_ctx")
        if told is not None:
            context = min(self._context or told, told)
            self._profile = replace(self._profile, context_length=context)


class _End:
    """What is known at the end of an answer."""

    def __init__(self) -> None:
        self.odds: Mapping[str, float] = {}
        self._stop: StopReason | None = None
        self._read: int | None = None
        self._written = 0

    def hear(self, heard: Heard) -> None:
        self.odds = self.odds or heard.odds
        self._stop = heard.stop or self._stop
        if heard.prompt_tokens is not None:
            self._read = heard.prompt_tokens
        self._written = heard.output_tokens or self._written

    def finish(self, *, sent: int, prompt: Prompt, exact: bool, who: str) -> Finish:
        """The end, if there was one and the whole prompt was read.

        Raises:
            ModelError: The answer has no end.
            ContextTruncated: The server cut the prompt.
        """
        if self._stop is None:
            raise ModelError(
                f"The answer of {who!r} broke off before its end. Try again; the server's log says "
                "why."
            )
        # An estimate from above proves nothing; that no token spans two words does.
        least = sent if exact else fewest_tokens(prompt)
        if self._read and self._read < least and not prompt.images:
            raise ContextTruncated(sent=sent, read=self._read, who=who)
        usage = Usage(prompt_tokens=self._read or 0, output_tokens=self._written)
        return Finish(reason=self._stop, usage=usage)


def _load_tokenizer(folder: Path) -> LlamaTokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise RuntimeUnavailable(
            "Token ids need the package 'tokenizers': pip install 'llama-corral[local]'"
        ) from error
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    try:
        return LlamaTokenizer(Tokenizer.from_file(str(file)), source=str(folder))
    except RuntimeUnavailable:
        raise
    except Exception as error:  # the library raises nothing more exact
        raise ConfigError(
            f"There is no tokenizer to be read at {str(file)!r}: {error}. Name the folder that "
            "holds the model's tokenizer.json."
        ) from error
