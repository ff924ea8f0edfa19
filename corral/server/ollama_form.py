"""The bodies of Ollama's interface, read and written.

Source: Ollama's `docs/api.md` and `api/types.go`. Options that Corral doesn't have are passed
over, as Ollama does with names it doesn't know.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from corral.events import Usage
from corral.server.errors import ApiError
from corral.server.wire import now

__all__ = ["Clock", "GenerateRequest", "OllamaChatRequest", "OllamaMessage", "Options", "stops_of"]


class Options(BaseModel):
    """`options`, those that Corral reads."""

    model_config = ConfigDict(extra="ignore", strict=True)

    num_ctx: int | None = Field(default=None, ge=1)
    num_predict: int | None = None
    """-1 and -2: as much as there is room for."""
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: list[str] | str | None = None


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool | None = None
    options: Options = Field(default_factory=Options)
    keep_alive: float | str | None = None
    """Taken and not used: a server's models stay loaded."""
    format: Any = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncate: bool | None = None
    shift: bool | None = None
    session: str | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is to come in pieces, which is Ollama's default."""
        return self.stream is not False


class OllamaMessage(BaseModel):
    """One message of a chat."""

    role: str
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[Any] | None = None


class OllamaChatRequest(_Asked):
    """The body of `/api/chat`."""

    messages: list[OllamaMessage] = Field(default_factory=list[OllamaMessage])
    tools: list[Any] | None = None


class GenerateRequest(_Asked):
    """The body of `/api/generate`."""

    prompt: str = ""
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    suffix: str | None = None
    raw: bool | None = None
    images: list[str] | None = None


def stops_of(options: Options) -> list[str]:
    """The stop strings that a request names."""
    stop = options.stop
    return [stop] if isinstance(stop, str) else list(stop or ())


class Clock:
    """The times and counts that an answer of Ollama ends with, and the fields all lines share."""

    def __init__(self, model: str) -> None:
        """Start now. `model` is the name as the client gave it."""
        self._model = model
        self._started = time.perf_counter_ns()
        self._first: int | None = None

    def line(self, **fields: Any) -> dict[str, Any]:
        """A line that isn't the last."""
        if self._first is None:
            self._first = time.perf_counter_ns()
        return {"model": self._model, "created_at": now(), **fields, "done": False}

    def last(self, reason: str, usage: Usage, **fields: Any) -> dict[str, Any]:
        """The last line."""
        end = time.perf_counter_ns()
        first = self._first or end
        return {
            "model": self._model,
            "created_at": now(),
            **fields,
            "done": True,
            "done_reason": reason,
            "total_duration": end - self._started,
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": first - self._started,
            "eval_count": usage.output_tokens,
            "eval_duration": end - first,
        }

    def loaded(self, **fields: Any) -> dict[str, Any]:
        """The answer to a request that only loads a model, or lets it go."""
        return {
            "model": self._model,
            "created_at": now(),
            **fields,
            "done": True,
            "done_reason": "load",
        }


def refuse_thinking(think: bool | str | None, model: str) -> None:
    """See that no thinking is asked for: no Llama 3 has any.

    Raises:
        ApiError: 400, it is.
    """
    if think:
        raise ApiError(400, f'"{model}" does not support thinking', param="think")
