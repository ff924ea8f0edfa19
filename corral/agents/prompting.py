"""How an agent's conversation becomes what its model is asked: the prompt and its constraint."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from corral.errors import ConfigError
from corral.memory import fit
from corral.messages import Message, SystemMessage, ToolSpec
from corral.model_runtime.formats import find_format, render_prompt
from corral.model_runtime.profiles import ModelProfile
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Constraint, Runtime, Sampling

__all__ = ["Prompting", "count_parts"]

_SPARE_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """What stays the same from prompt to prompt of an agent."""

    runtime: Runtime
    instructions: str
    tools: tuple[ToolSpec, ...]
    format: str
    sampling: Sampling
    date: datetime.date
    constraint: Constraint | None

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        *,
        instructions: str,
        tools: Sequence[ToolSpec],
        date: datetime.date,
        format: str | None = None,
        sampling: Sampling | Mapping[str, Any] | None = None,
        constrained: bool = True,
    ) -> Prompting:
        """Settle what is left open by what is known of the model.

        Args:
            runtime: The model.
            instructions: The agent's own words to it.
            tools: What it is offered.
            date: What day it is.
            format: The prompt format; by default that of the model's profile.
            sampling: How tokens are drawn, or some of its fields; what is left out is as the
                model's makers have it.
            constrained: Whether to hold the model to valid calls, where the runtime can.

        Raises:
            ConfigError: The model can't call tools, or there is no such format.
        """
        profile = runtime.profile
        chosen = find_format(format or profile.format)
        if tools and (not profile.tools or chosen.calls == "none"):
            raise ConfigError(
                f"The model {runtime.name!r} can't call tools (family {profile.family!r}, prompt "
                f"format {chosen.name!r}). Use an instruct model, or an agent without tools."
            )
        specs = tuple(_as_known(spec, profile) for spec in tools)
        constraint = None
        if constrained and specs and "calls" in runtime.constrains and chosen.calls != "none":
            constraint = Constraint(
                tools=specs, syntax=chosen.calls, parallel=profile.parallel_calls
            )
        return cls(
            runtime=runtime,
            instructions=instructions,
            tools=specs,
            format=chosen.name,
            sampling=_settled(sampling, profile),
            date=date,
            constraint=constraint,
        )

    async def prompt(self, history: Sequence[Message], *, room: int) -> Prompt:
        """The prompt for the next step, its conversation cut to what fits the model's context.

        Args:
            history: The conversation, oldest first.
            room: Tokens that the model may write.

        Raises:
            ContextOverflow: Even the last message doesn't fit.
        """

        async def count(messages: Sequence[Message]) -> int:
            return await self.runtime.count(self._render(messages))

        budget = self.runtime.profile.context_length - room - _SPARE_TOKENS
        return self._render(await fit(history, budget=budget, count=count))

    def _render(self, messages: Sequence[Message]) -> Prompt:
        system = [SystemMessage(text=self.instructions)] if self.instructions else []
        return render_prompt(
            [*system, *messages], tools=self.tools, format=self.format, date=self.date
        )


def _settled(given: Sampling | Mapping[str, Any] | None, profile: ModelProfile) -> Sampling:
    if isinstance(given, Sampling):
        return given
    makers = Sampling(temperature=profile.temperature, top_p=profile.top_p)
    return replace(makers, **(given or {}))


def _as_known(spec: ToolSpec, profile: ModelProfile) -> ToolSpec:
    """The tool as this model is to be shown it.

    A built-in that it knows by training is shown by its name alone; the code interpreter, where the
    model doesn't know it or its server hides the token that calls it, is a function like any.
    """
    if spec.kind == "code_interpreter" and not profile.code_interpreter:
        return spec.model_copy(update={"kind": "function"})
    properties = spec.parameters.get("properties")
    takes_query = isinstance(properties, dict) and properties.keys() == {"query"}
    if spec.kind == "function" and spec.name in profile.builtins and takes_query:
        return spec.model_copy(update={"kind": "builtin"})
    return spec


async def count_parts(runtime: Runtime, prompt: Prompt) -> dict[str, int]:
    """Tokens of a prompt by part (system, tools, user 1, ...), as its runtime counts them."""
    counts: dict[str, int] = {}
    before = 0
    for i, segment in enumerate(prompt.segments, start=1):
        following = prompt.segments[i : i + 1]
        name = f"{segment.part} {segment.index}" if segment.index else segment.part
        if following and (following[0].part, following[0].index) == (segment.part, segment.index):
            counts.setdefault(name, 0)
            continue
        until = await runtime.count(Prompt(prompt.segments[:i]))
        counts[name] = counts.get(name, 0) + until - before
        before = until
    return counts
