"""What an Ollama server's failures mean, and what to do about each."""

from __future__ import annotations

import json

import httpx
from ollama import ResponseError

from corral.errors import ContextOverflow, ModelError, RuntimeUnavailable
from corral.model_runtime.ollama.client import OllamaStatus
from corral.model_runtime.wire import BUSY, Lost, lost_on_the_way, retry_after

__all__ = ["VISION_REMEDY", "explain"]

VISION_REMEDY = (
    "Ollama from 0.30 on can't run Llama 3.2 Vision, 0.24 was the last that could. Run it in this "
    "process (transformers:meta-llama/Llama-3.2-11B-Vision-Instruct), or on SGLang "
    "(openai:MODEL@http://HOST:30000/v1)."
)

_MEMORY = (
    "more system memory",
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "unable to allocate",
    "failed to allocate",
    "cudamalloc failed",
    "cannot allocate memory",
)
_TOO_LONG = ("exceeds the available context", "exceeds the context", "exceeds maximum context",
             "prompt too long", "input length exceeds", "context length exceeded")  # fmt: skip


def explain(error: Exception, *, model: str, url: str, num_ctx: int) -> Exception:
    """The error to raise for one that the client met: a `CorralError`, or a `Lost` one.

    What is none of the server's doing comes back as it is.
    """
    who = f"The Ollama server at {url}"
    if isinstance(error, httpx.TransportError):
        return lost_on_the_way(
            error,
            who=who,
            url=url,
            remedy="Start it (ollama serve), or say where it is (OLLAMA_HOST).",
        )
    if isinstance(error, ResponseError):
        return _explain_status(error, model=model, who=who, num_ctx=num_ctx)
    if isinstance(error, json.JSONDecodeError) or isinstance(error, httpx.HTTPError):
        return ModelError(f"{who} sent what can't be read: {error}. Check what answers there.")
    return error


def _explain_status(error: ResponseError, *, model: str, who: str, num_ctx: int) -> Exception:
    said, status = str(error.error), error.status_code
    low = said.lower()
    if "mllama" in low:
        return RuntimeUnavailable(f"{who} can't load {model!r}: {said}. {VISION_REMEDY}")
    if status == 404:
        return RuntimeUnavailable(
            f"{who} has no model {model!r}. Fetch it: corral models pull ollama:{model}"
        )
    if any(sign in low for sign in _MEMORY):
        return RuntimeUnavailable(
            f"{who} has too little memory for {model!r} with a context of {num_ctx} tokens: "
            f"{said}. Use a smaller model, or a smaller context "
            f"(ollama:{model}?num_ctx={max(2048, num_ctx // 2)})."
        )
    if any(sign in low for sign in _TOO_LONG):
        return ContextOverflow(
            needed=num_ctx + 1, available=num_ctx, what=f"By the server's count ({said}) the prompt"
        )
    if status in BUSY:
        return Lost(
            ModelError(f"{who} is busy: {said}. Try again later, or ask it fewer things at once."),
            pause=retry_after(error.headers) if isinstance(error, OllamaStatus) else None,
        )
    if status in (401, 403):
        return RuntimeUnavailable(
            f"{who} refuses access: {said}. Set OLLAMA_API_KEY, or ask who runs it."
        )
    if "unknown model architecture" in low:
        return RuntimeUnavailable(
            f"{who} is too old for {model!r}: {said}. Update Ollama, or use another model."
        )
    return ModelError(f"{who} failed on {model!r}: {said}. The server's log says why.")
