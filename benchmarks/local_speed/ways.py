"""The ways to run a model that are measured: Corral, transformers' `generate`, and llama.cpp."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from corral.errors import CorralError
from corral.model_runtime import open_runtime
from corral.model_runtime.prompt import Segment
from corral.model_runtime.runtime import Constraint, Finish, Runtime, Sampling
from local_speed.elsewhere import Elsewhere
from local_speed.options import Options
from local_speed.prompts import Prompts, as_prompt
from local_speed.turns import log, say

GREEDY = Sampling(temperature=0.0)


@dataclass
class Answer:
    """What a way wrote, and when."""

    began: float
    times: list[float] = field(default_factory=list[float])
    """When each token came, as far as the way tells them apart."""
    text: str = ""
    tokens: int = 0
    cached: int = 0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return (self.times[0] if self.times else self.ended) - self.began

    def rate(self, skip: int = 0) -> float:
        """Tokens a second from one to the last, `skip` behind the first: decoding alone."""
        skip = min(skip, max(len(self.times) - 2, 0))
        if len(self.times) == self.tokens > skip + 1:
            return (self.tokens - 1 - skip) / (self.times[-1] - self.times[skip])
        return (self.tokens - 1) / max(self.ended - self.began - self.first, 1e-9)


class Way(Protocol):
    """One way to run the model of a folder."""

    name: str

    async def answer(self, segments: Sequence[Segment], tokens: int) -> Answer:
        """Go on greedily from a prompt."""
        ...

    async def aclose(self) -> None: ...


class CorralWay:
    """Corral's own runtime, as an agent uses it."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.runtime = runtime
        self.name = name

    async def answer(
        self,
        segments: Sequence[Segment],
        tokens: int,
        *,
        constraint: Constraint | None = None,
    ) -> Answer:
        sampling = Sampling(temperature=0.0, max_tokens=tokens)
        answer = Answer(time.perf_counter())
        pieces = self.runtime.generate(
            as_prompt(segments), sampling=sampling, constraint=constraint
        )
        text: list[str] = []
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Finish):
                    answer.tokens = piece.usage.output_tokens
                    answer.cached = piece.usage.cached_tokens
                else:
                    answer.times.append(time.perf_counter())
                    text.append(piece.text)
        answer.ended = time.perf_counter()
        answer.text = "".join(text)
        return answer

    async def aclose(self) -> None:
        await self.runtime.aclose()


class Other(Protocol):
    """Another library's way, which blocks while it answers."""

    def answer(self, segments: Sequence[Segment], tokens: int) -> Answer: ...

    def close(self) -> None: ...


class OtherWay:
    """Another library's way, in this process or in one of its own."""

    def __init__(self, other: Other | Elsewhere, name: str) -> None:
        self.name = name
        self._other = other

    async def answer(self, segments: Sequence[Segment], tokens: int) -> Answer:
        if isinstance(self._other, Elsewhere):
            return self._other.call("answer", segments, tokens)
        return self._other.answer(segments, tokens)

    async def aclose(self) -> None:
        self._other.close()


class Transformers:
    """transformers, loaded and asked as its documentation shows."""

    def __init__(self, folder: Path, prompts: Prompts, *, dtype: str = "", lookup: int = 0) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        options: dict[str, Any] = {"dtype": dtype} if dtype else {}
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(folder), **options)
        self._prompts = prompts
        self._options: dict[str, Any] = {"prompt_lookup_num_tokens": lookup} if lookup else {}

    def answer(self, segments: Sequence[Segment], tokens: int) -> Answer:
        import torch

        ids = as_prompt(segments).encode(self._prompts.tokenizer)
        watch = _Watch()
        inputs = torch.tensor([ids])
        answer = Answer(time.perf_counter(), watch.times)
        out = self._model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            streamer=watch,
            **self._options,
        )
        answer.ended = time.perf_counter()
        made = out[0, len(ids) :].tolist()
        answer.tokens = len(made)
        answer.text = self._prompts.text_of(made)
        return answer

    def close(self) -> None:
        self._model = None


class _Watch:
    """A streamer that notes when tokens come, and does nothing else."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if self._prompt_seen:
            self.times += [time.perf_counter()] * value.numel()
        self._prompt_seen = True

    def end(self) -> None:
        pass


class LlamaCpp:
    """llama.cpp in this process, on the same weights as Q8_0. It keeps its last prompt's cache."""

    def __init__(
        self,
        file: Path,
        prompts: Prompts,
        *,
        threads: int,
        context: int,
        lookup: int = 0,
    ) -> None:
        import llama_cpp
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        drafts = LlamaPromptLookupDecoding(num_pred_tokens=lookup) if lookup else None
        self._llama: Any = llama_cpp.Llama(
            model_path=str(file),
            n_ctx=context,
            n_threads=threads,
            n_threads_batch=threads,
            draft_model=drafts,
            logits_all=lookup > 0,  # guesses are checked by the logits of all of them
            verbose=False,
        )
        self._prompts = prompts
        self._ends = set(prompts.tokenizer.stops)

    def answer(self, segments: Sequence[Segment], tokens: int) -> Answer:
        ids = as_prompt(segments).encode(self._prompts.tokenizer)
        answer = Answer(time.perf_counter())
        made: list[int] = []
        going = self._llama.generate(ids, temp=0.0)
        for token in going:
            answer.times.append(time.perf_counter())
            made.append(token)
            if token in self._ends or len(made) == tokens:
                break
        going.close()
        answer.ended = time.perf_counter()
        answer.tokens = len(made)
        answer.text = self._prompts.text_of(made)
        return answer

    def close(self) -> None:
        self._llama.close()


DEFAULT = "corral"
PRECISIONS = ("int8", "fp16", "bf16", "fp32")
ALTERNATIVES = ("transformers", "transformers fp32", "llama.cpp Q8_0")


@asynccontextmanager
async def opened(
    names: Sequence[str],
    options: Options,
    prompts: Prompts,
    *,
    folder: Path | None = None,
    apart: bool = True,
) -> AsyncIterator[list[Way]]:
    """The ways of these names, on a folder. What can't be had here is said and left out.

    Other libraries get a process each, or with `apart=False` share this one.
    """
    ways: list[Way] = []
    try:
        for name in names:
            if options.without and name in options.without:
                continue
            began = time.perf_counter()
            try:
                way = await _open(name, folder or options.folder, options, prompts, apart=apart)
            except (CorralError, ImportError) as error:
                why = "not installed" if isinstance(error, ImportError) else str(error)
                say(f"Not measured: {name}: {why}\n")
                continue
            log(f"{name}: open after {time.perf_counter() - began:.1f} s")
            if isinstance(way, CorralWay):
                say(f"{name} runs on {getattr(way.runtime, 'summary', 'what it finds')}.\n")
            ways.append(way)
        yield ways
    finally:
        for way in ways:
            await way.aclose()


async def _open(name: str, folder: Path, options: Options, prompts: Prompts, *, apart: bool) -> Way:
    if name == DEFAULT:
        return CorralWay(await open_runtime(f"transformers:{folder}"), name)
    if name.removeprefix("corral ") in PRECISIONS:
        model = f"transformers:{folder}?precision={name.removeprefix('corral ')}"
        return CorralWay(await open_runtime(model), name)
    if name.startswith("llama.cpp") and importlib.util.find_spec("llama_cpp") is None:
        raise ImportError("llama_cpp")
    if apart:
        return OtherWay(Elsewhere(other, name, folder, options), name)
    return OtherWay(other(name, folder, options, prompts), name)


def other(name: str, folder: Path, options: Options, prompts: Prompts | None = None) -> Other:
    """Another library's way by its name."""
    import torch

    torch.set_num_threads(options.threads)
    prompts = prompts or Prompts(options.folder)
    makers: dict[str, Callable[[], Other]] = {
        "transformers": lambda: Transformers(folder, prompts),
        "transformers fp32": lambda: Transformers(folder, prompts, dtype="float32"),
        "transformers with lookup": lambda: Transformers(folder, prompts, lookup=10),
        "llama.cpp Q8_0": lambda: _llama_cpp(folder, options, prompts, lookup=0),
        "llama.cpp Q8_0 with lookup": lambda: _llama_cpp(
            folder, options, prompts, lookup=options.draft
        ),
    }
    return makers[name]()


def _llama_cpp(folder: Path, options: Options, prompts: Prompts, *, lookup: int) -> LlamaCpp:
    return LlamaCpp(
        folder / "model-q8_0.gguf",
        prompts,
        threads=options.threads,
        # With guesses it keeps the logits of every position: half a gigabyte for a thousand.
        context=min(options.context, 1024) if lookup else options.context,
        lookup=lookup,
    )
