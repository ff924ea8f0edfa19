"""Llama Guard 3 as a shield: Meta's prompt, a strict reading of the verdict, and its probability.

Source: Meta's model cards of Llama Guard 3 (1B, 8B): the first line is `safe` or `unsafe`, the
second a comma-separated list of categories; the probability of the first token is the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias

from corral.errors import ConfigError, ContextOverflow, ScoreUnavailable, ShieldError
from corral.events import Verdict
from corral.messages import StopReason
from corral.model_runtime.formats.guard import (
    CATEGORIES,
    GUARD_1B,
    GUARD_8B,
    GuardVariant,
    Label,
    render_guard,
)
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Finish, Runtime, Sampling
from corral.safety.shield import Said

__all__ = ["Action", "LlamaGuard", "read_verdict"]

Action: TypeAlias = Literal["block", "warn", "allow"]
"""What a category's finding does: stop the text, pass it with the finding on record, or not count
at all.
"""

_VERDICT_TOKENS = 64
_OWN_WORD = 0.5
"""The threshold that asks for no more than what the guard says in words."""

_CONTEXT_TURNS = 6


class LlamaGuard:
    """A shield on a Llama Guard 3 model, on any runtime."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        policy: Mapping[str, Action] | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Judge with the guard model that `runtime` runs.

        Args:
            runtime: Where the guard model runs; its profile must be a guard's.
            policy: What to do about a category, by code (`{"S6": "warn"}`); by default `block`.
            threshold: The probability of `unsafe`, 0 to 1, from which a text that the guard calls
                safe is unsafe all the same.

        Raises:
            ConfigError: The model is no guard, a code is none of Llama Guard's, or the threshold
                is no probability.
        """
        variant = runtime.profile.guard
        if variant is None:
            raise ConfigError(
                f"The model {runtime.name!r} is no guard model. Use cria-guard, "
                "'ollama:llama-guard3:1b' or "
                "'transformers:meta-llama/Llama-Guard-3-1B'."
            )
        self._variant: GuardVariant = GUARD_8B if variant == "8b" else GUARD_1B
        known = [code for code in CATEGORIES if code != "S14" or self._variant == GUARD_8B]
        for code in policy or {}:
            if code not in known:
                raise ConfigError(
                    f"The shield policy names {code!r}, which {runtime.name!r} doesn't know. Its "
                    f"categories: {', '.join(known)}."
                )
        if not 0 < threshold <= 1:
            raise ConfigError(
                f"The shield's threshold is {threshold!r}. Give a probability above 0 and up to 1."
            )
        self._runtime = runtime
        self._policy = dict(policy or {})
        self._threshold = threshold
        self._categories = {code: CATEGORIES[code] for code in known}

    @property
    def name(self) -> str:
        """The guard model's string."""
        return self._runtime.name

    async def check(self, conversation: Sequence[Said]) -> Verdict:
        """Judge the last of `conversation`; see `Shield.check`.

        Up to six turns before it are shown to the guard as context.

        Raises:
            ShieldError: The guard's answer can't be read.
            ContextOverflow: What is to be judged is longer than the guard's context.
        """
        prompt = await self._prompt(list(conversation[-_CONTEXT_TURNS - 1 :]))
        score = await self._score(prompt)
        output, reason = await self._answer(prompt)
        verdict = read_verdict(output, stopped=reason, categories=self._categories)
        if verdict.safe and score is not None and score >= self._threshold:
            return Verdict(safe=False, score=score, reason="the score is over the threshold")
        return verdict.model_copy(update={"score": score})

    async def _score(self, prompt: Prompt) -> float | None:
        """The probability of unsafe; None where the runtime has none and none is needed.

        Raises:
            ScoreUnavailable: The runtime has none, and the threshold is stricter than the guard's
                own word.
        """
        try:
            odds = await self._runtime.score(prompt, ("safe", "unsafe"))
        except ScoreUnavailable:
            if self._threshold < _OWN_WORD:
                raise
            return None
        total = odds["safe"] + odds["unsafe"]
        return odds["unsafe"] / total if total > 0 else None

    def blocks(self, verdict: Verdict) -> bool:
        """Whether the policy stops a text: an unsafe one, unless all it was found for may pass."""
        if verdict.safe:
            return False
        actions = [self._policy.get(code, "block") for code in verdict.categories]
        return not actions or "block" in actions

    async def _prompt(self, conversation: list[Said]) -> Prompt:
        """The guard's prompt, with as many of the earlier turns as its context has room for."""
        while True:
            labelled: list[tuple[Label, str]] = [
                ("User" if said.who == "user" else "Agent", said.text) for said in conversation
            ]
            prompt = render_guard(labelled, categories=self._categories, variant=self._variant)
            needed = await self._runtime.count(prompt) + _VERDICT_TOKENS
            available = self._runtime.profile.context_length
            if needed <= available:
                return prompt
            if len(conversation) == 1:
                raise ContextOverflow(
                    needed=needed, available=available, what="What the shield is to judge"
                )
            del conversation[0]

    async def _answer(self, prompt: Prompt) -> tuple[str, StopReason]:
        text: list[str] = []
        sampling = Sampling(temperature=0, max_tokens=_VERDICT_TOKENS)
        async with aclosing(self._runtime.generate(prompt, sampling=sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return "".join(text), piece.reason
                text.append(piece.text)
        raise ShieldError(f"The guard {self.name!r} ended without saying why. Try again.")


def read_verdict(output: str, *, stopped: StopReason, categories: Mapping[str, str]) -> Verdict:
    """Read a guard's answer: `safe`, or `unsafe` and a line of known categories.

    White space around it is let pass.

    Raises:
        ShieldError: It is anything else, or was cut off. Nothing is guessed.
    """
    lines = output.strip().split("\n")
    if stopped in ("end_of_turn", "end_of_message"):
        if lines == ["safe"]:
            return Verdict(safe=True)
        if len(lines) == 2 and lines[0] == "unsafe":
            codes = tuple(code.strip() for code in lines[1].split(","))
            if all(code in categories for code in codes):
                return Verdict(safe=False, categories=codes)
    raise ShieldError(
        f"The guard answered {output[:80]!r}, which is no verdict. Check that the shield's model "
        "is a Llama Guard 3."
    )
