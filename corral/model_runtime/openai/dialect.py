"""What the three dialects have in common: what is asked, and what is heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from corral.errors import ModelError
from corral.messages import StopReason
from corral.model_runtime.openai.servers import ServerKind
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Sampling

__all__ = ["STOPS", "Asked", "Dialect", "Heard", "first_choice", "number", "stop_reason"]

STOPS: Mapping[str, StopReason] = {
    "<|eot_id|>": "end_of_turn",
    "<|eom_id|>": "end_of_message",
    "<|start_header_id|>": "unknown",
}
"""Tokens that end an answer, for servers that are told so by text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One generation: a prompt, its length in tokens, and its token ids where those are sent."""

    model: str
    prompt: Prompt
    length: int
    ids: list[int] | None
    stops: Mapping[int, StopReason]
    sampling: Sampling
    schema: Mapping[str, JsonValue] | None = None
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one event of an answer says.

    `stop` is set by the event that says why the model stopped; `odds` are log probabilities of
    the first token, by its text.
    """

    text: str = ""
    stop: StopReason | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    odds: Mapping[str, float] = field(default_factory=dict[str, float])


class Dialect(Protocol):
    """How one kind of API is spoken, for one generation."""

    def path(self) -> str:
        """The endpoint, from the base URL."""
        ...

    def body(self) -> dict[str, JsonValue]:
        """The request."""
        ...

    def hear(self, event: Mapping[str, JsonValue]) -> Heard:
        """Read one event of the answer.

        Raises:
            ModelError: It says that something failed.
        """
        ...


def first_choice(event: Mapping[str, JsonValue]) -> Mapping[str, JsonValue] | None:
    """The only choice of an event, if it has one."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def number(of: JsonValue, key: str) -> int | None:
    """A whole number in an object, if that is what is there."""
    value = of.get(key) if isinstance(of, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def stop_reason(
    finish: JsonValue, matched: JsonValue, stops: Mapping[int, StopReason]
) -> StopReason:
    """Why a model stopped: `finish` is the API's word for it, `matched` the token or its text.

    Raises:
        ModelError: The host's own filter stopped it, or the server gave up.
    """
    if finish == "length":
        return "max_tokens"
    if finish in ("content_filter", "abort", "error"):
        raise ModelError(
            f"The server stopped the answer itself ({finish}). Its log, or its host, says why."
        )
    if isinstance(matched, int):
        return stops.get(matched, "end_of_turn")
    if isinstance(matched, str):
        return STOPS.get(matched, "end_of_turn")
    return "end_of_turn" if finish in ("stop", "eos", "tool_calls", "function_call") else "unknown"


def sampling_fields(sampling: Sampling, kind: ServerKind) -> dict[str, JsonValue]:
    """How tokens are drawn, and what this kind of server wants to be told besides."""
    fields = dict(kind.fields)
    fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    return fields
