"""Ways to ask a model for the evaluation: plainly by transformers, or by Corral's runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import anyio

from corral.messages import ToolSpec
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Constraint, Piece, Runtime, Sampling
from training.trees import FolderEncoder

__all__ = ["Asker", "Plain", "Question", "Running", "ask_all"]

_END = re.compile(r"(<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>)$")


Question: TypeAlias = tuple[Prompt, Sequence[ToolSpec]]


class Asker(Protocol):
    """Goes on with a prompt, greedily; control tokens by name, the end token left out."""

    @property
    def at_once(self) -> int:
        """How many prompts it is best asked at once."""
        ...

    async def __call__(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, max_tokens: int = 96
    ) -> str: ...


async def ask_all(ask: Asker, questions: Sequence[Question], *, max_tokens: int = 96) -> list[str]:
    """The answers to many prompts and the tools they offer, in their order."""
    answers = [""] * len(questions)
    places = iter(range(len(questions)))

    async def work() -> None:
        for place in places:
            prompt, tools = questions[place]
            answers[place] = await ask(prompt, tools, max_tokens=max_tokens)

    async with anyio.create_task_group() as tasks:
        for _ in range(ask.at_once):
            tasks.start_soon(work)
    return answers


class Plain:
    """A model folder in float32 by transformers alone: the reference for everything faster."""

    at_once = 1

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.encoder = FolderEncoder(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._ids: list[int] = []
        self._cache: Any = None

    async def __call__(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, max_tokens: int = 96
    ) -> str:
        import torch
        from transformers import DynamicCache

        new = prompt.encode(self.encoder)
        shared = 0  # what the cache holds of this prompt, all but its last token at most
        for mine, theirs in zip(self._ids, new[:-1], strict=False):
            if mine != theirs:
                break
            shared += 1
        if self._cache is None or shared == 0:
            self._cache = DynamicCache()
        else:
            self._cache.crop(shared - self._cache.get_seq_length())
        ids = torch.tensor([new])
        with torch.inference_mode():
            whole = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=self._cache,
                do_sample=False,
                max_new_tokens=max_tokens,
            )[0].tolist()
        self._ids = whole[: self._cache.get_seq_length()]
        out = whole[len(new) :]
        return _END.sub("", self.encoder.tokenizer.decode(out, skip_special_tokens=False))


class Running:
    """A model on one of Corral's runtimes, at temperature 0 as an agent would have it.

    Args:
        runtime: The runtime.
        grammar: Hold the model to calls of the offered tools, or plain text.
    """

    at_once = 8
    """Greedy answers are the same as one after another."""

    def __init__(self, runtime: Runtime, *, grammar: bool) -> None:
        if grammar and "calls" not in runtime.constrains:
            raise ValueError(f"{runtime.name!r} has no grammar for calls.")
        self.runtime = runtime
        self.grammar = grammar

    async def __call__(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, max_tokens: int = 96
    ) -> str:
        # Where built-in tools are announced, calls are written in another form.
        syntax = "json" if any(tool.kind == "builtin" for tool in tools) else "pythonic"
        held = Constraint(tools=tuple(tools), syntax=syntax) if self.grammar and tools else None
        pieces = self.runtime.generate(
            prompt, sampling=Sampling(temperature=0.0, max_tokens=max_tokens), constraint=held
        )
        said = [piece.text async for piece in pieces if isinstance(piece, Piece)]
        return "".join(said)

    async def score(self, prompt: Prompt) -> float:
        """The probability of `unsafe` beside `safe`, as a shield takes it."""
        odds = await self.runtime.score(prompt, ("safe", "unsafe"))
        return odds["unsafe"] / (odds["safe"] + odds["unsafe"])
