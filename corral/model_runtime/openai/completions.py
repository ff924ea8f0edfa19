"""`/v1/completions`: a prompt as it is, as token ids or as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from corral.model_runtime.openai.dialect import (
    STOPS,
    Asked,
    Heard,
    first_choice,
    number,
    sampling_fields,
    stop_reason,
)
from corral.model_runtime.openai.servers import ServerKind

__all__ = ["Completions", "top_odds"]


class Completions:
    """One generation over `/v1/completions`. Fulfils `Dialect`."""

    def __init__(self, asked: Asked, kind: ServerKind) -> None:
        """Ask a server of this kind."""
        self._asked = asked
        self._kind = kind

    def path(self) -> str:
        """The endpoint."""
        return "completions"

    def body(self) -> dict[str, JsonValue]:
        """The request."""
        asked, kind = self._asked, self._kind
        body = sampling_fields(asked.sampling, kind)
        body |= {
            "model": asked.model,
            "prompt": cast("JsonValue", asked.ids)
            if asked.ids is not None
            else asked.prompt.escaped(bos=not kind.adds_bos),
            "max_tokens": asked.sampling.max_tokens,
            "stream": True,
            "stop": list[JsonValue](STOPS),
        }
        if asked.ids is not None and kind.name == "vllm":
            body["stop_token_ids"] = list[JsonValue](asked.stops)
        if kind.tells_usage and not kind.strict_fields:
            body["stream_options"] = {"include_usage": True}
        if asked.top_logprobs:
            body["logprobs"] = asked.top_logprobs
        if asked.schema is not None:
            body |= _schema_field(kind, dict(asked.schema))
        return body

    def hear(self, event: Mapping[str, JsonValue]) -> Heard:
        """Read one event."""
        usage = event.get("usage")
        choice = first_choice(event)
        if choice is None:
            return Heard(
                prompt_tokens=number(usage, "prompt_tokens"),
                output_tokens=number(usage, "completion_tokens"),
            )
        text, finish = choice.get("text"), choice.get("finish_reason")
        return Heard(
            text=text if isinstance(text, str) else "",
            stop=stop_reason(finish, choice.get("stop_reason"), self._asked.stops)
            if finish
            else None,
            prompt_tokens=number(usage, "prompt_tokens"),
            output_tokens=number(usage, "completion_tokens"),
            odds=top_odds(choice.get("logprobs")),
        )


def _schema_field(kind: ServerKind, schema: JsonValue) -> dict[str, JsonValue]:
    match kind.schema:
        case "structured_outputs":
            return {"structured_outputs": {"json": schema}}
        case "guided_json" | "json_schema":
            return {kind.schema: schema}
        case _:
            return {}


def top_odds(logprobs: JsonValue) -> dict[str, float]:
    """Log probabilities of the first token, by text, in either of the two shapes in use.

    The older has one object of tokens a position (`top_logprobs: [{"a": -0.1}]`), the newer a
    list of objects (`content: [{"top_logprobs": [{"token": "a", "logprob": -0.1}]}]`).
    """
    if not isinstance(logprobs, dict):
        return {}
    older, newer = logprobs.get("top_logprobs"), logprobs.get("content")
    if isinstance(older, list) and older and isinstance(older[0], dict):
        return {
            token: float(value)
            for token, value in older[0].items()
            if isinstance(value, (int, float))
        }
    found: dict[str, float] = {}
    first = newer[0] if isinstance(newer, list) and newer else None
    tops = first.get("top_logprobs") if isinstance(first, dict) else None
    for top in tops if isinstance(tops, list) else []:
        if not isinstance(top, dict):
            continue
        token, value = top.get("token"), top.get("logprob")
        if isinstance(token, str) and isinstance(value, (int, float)):
            found[token] = float(value)
    return found
