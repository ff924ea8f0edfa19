"""For your own tests: a runtime that says what you tell it to, through all of the real machinery.

    runtime = ScriptedRuntime(["[get_weather(city='Oslo')]", "It is 3 degrees in Oslo."])
    agent = Agent(model=runtime, tools=[get_weather], shields="none", memory="temporary")

Prompt, parser, tools, store and gates are the real ones; only the model is yours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import anyio.lowlevel

from corral.errors import ModelError
from corral.events import Usage
from corral.messages import StopReason
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

__all__ = ["ScriptedRuntime"]

_STOPS: dict[str, StopReason] = {"<|eot_id|>": "end_of_turn", "<|eom_id|>": "end_of_message"}
_TAG = "<|python_tag|>"


class ScriptedRuntime:
    """A `Runtime` that answers the first prompt with the first output, and so on.

    An output may begin with `<|python_tag|>` and end with `<|eot_id|>` or `<|eom_id|>`, which
    become control tokens; one that ends with neither ends its turn. Text comes a character at a
    time, and to `count` a token is a character. `prompts` keeps what was asked.
    """

    def __init__(
        self,
        outputs: Sequence[str],
        *,
        name: str = "scripted",
        profile: ModelProfile | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Say `outputs`, one after another; `scores` are the probabilities that `score` gives."""
        self._outputs = list(outputs)
        self._name = name
        self._profile = profile or ModelProfile(family="scripted")
        self._scores = dict(scores or {})
        self.prompts: list[Prompt] = []

    @property
    def name(self) -> str:
        """What events call it."""
        return self._name

    @property
    def profile(self) -> ModelProfile:
        """The profile that it was given."""
        return self._profile

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """Nothing: it says what it was told to."""
        return frozenset()

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Say the next output.

        Raises:
            ModelError: There is none left.
        """
        check_constraint(self, constraint)
        self.prompts.append(prompt)
        if not self._outputs:
            raise ModelError("The script is at its end. Give ScriptedRuntime more outputs.")
        text = self._outputs.pop(0)
        reason: StopReason = "end_of_turn"
        for stop, meaning in _STOPS.items():
            if text.endswith(stop):
                text, reason = text.removesuffix(stop), meaning
        pieces = [Piece(char) for char in text.removeprefix(_TAG)]
        if text.startswith(_TAG):
            pieces.insert(0, Piece(_TAG, is_special=True))
        if len(pieces) > sampling.max_tokens:
            pieces, reason = pieces[: sampling.max_tokens], "max_tokens"
        for piece in pieces:
            await anyio.lowlevel.checkpoint()
            yield piece
        usage = Usage(prompt_tokens=len(str(prompt)), output_tokens=len(pieces))
        yield Finish(reason=reason, usage=usage)

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """The probabilities that were given, 0 for the rest."""
        return {candidate: self._scores.get(candidate, 0.0) for candidate in candidates}

    async def count(self, prompt: Prompt) -> int:
        """Characters."""
        return len(str(prompt))

    async def aclose(self) -> None:
        """Nothing to let go."""
