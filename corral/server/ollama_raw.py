"""`/api/generate` with `raw: true`: the client's own prompt, on a model that is served raw.

Nothing stands between the client and the model here: no agent, no shield, no tool. So a model is
served like this only where the operator says so. Unlike Ollama, a prompt is never cut: one that
doesn't fit is refused, whatever `truncate` and `shift` say.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import JsonValue
from starlette.requests import Request

from corral.events import Usage
from corral.model_runtime import Finish, Prompt, Runtime, Sampling
from corral.model_runtime.runtime import Constraint
from corral.server.catalogue import ServedAgent, ServedModel
from corral.server.errors import ApiError
from corral.server.ollama_chat import agent_generate
from corral.server.ollama_form import Clock, GenerateRequest, refuse_thinking, stops_of
from corral.server.raw_prompt import read_prompt
from corral.server.replies import LiveReply
from corral.server.stops import StopStrings
from corral.server.wire import JSON, LINES, catalogue_of, json_line, patience_of, read_body

__all__ = ["constraint_of", "fitted", "generate"]

_TEMPERATURE = 0.8
_TOP_P = 0.9
"""Ollama's defaults."""

_DEFAULT_TOP = 1


@runtime_checkable
class Likely(Protocol):
    """A runtime that can say which first tokens are the likeliest."""

    async def likeliest(self, prompt: Prompt, n: int) -> list[tuple[str, float]]:
        """The `n` likeliest first tokens with their probabilities, the likeliest first."""
        ...


async def generate(request: Request) -> LiveReply:
    """`POST /api/generate`."""
    body = await read_body(request, GenerateRequest)
    served = catalogue_of(request).find(body.model)
    if isinstance(served, ServedAgent):
        if body.raw:
            raise ApiError(
                400,
                f"{body.model!r} is an agent and takes no raw prompts, which would pass its "
                "shields and tools by. The server's operator can serve a model raw: --raw MODEL",
                code="not_raw",
                param="raw",
            )
        return agent_generate(request, body, served)
    _refuse(body)
    frames = _loaded(body) if not body.prompt else _frames(body, served)
    return LiveReply(
        patience_of(request),
        frames,
        media_type=LINES if body.streams and body.prompt else JSON,
        broken=lambda error: json_line({"error": error.message}),
    )


def _refuse(body: GenerateRequest) -> None:
    refuse_thinking(body.think, body.model)
    if not body.raw:
        raise ApiError(
            400,
            f"{body.model!r} is served raw: send the whole prompt with raw: true.",
            param="raw",
        )
    for name in ("system", "template", "context", "suffix", "images"):
        if getattr(body, name):
            raise ApiError(400, f"A raw prompt takes no {name}. Leave it out.", param=name)
    if body.logprobs and body.options.temperature != 0:
        raise ApiError(
            400,
            "Probabilities are given with temperature 0 only. Set options.temperature to 0.",
            param="logprobs",
        )


async def _loaded(body: GenerateRequest) -> AsyncGenerator[bytes]:
    yield json_line(Clock(body.model).loaded(response=""))


async def _frames(body: GenerateRequest, served: ServedModel) -> AsyncGenerator[bytes]:
    """The answer, line by line or whole."""
    clock, runtime = Clock(body.model), served.runtime
    prompt = read_prompt(body.prompt)
    sampling, tokens = await fitted(body, runtime, prompt)
    constraint = constraint_of(body.format, runtime)
    stops = StopStrings(stops_of(body.options))
    logprobs = await _logprobs(body, runtime, prompt)
    usage, reason, written, text = Usage(prompt_tokens=tokens), "stop", 0, ""
    output = runtime.generate(prompt, sampling=sampling, constraint=constraint)
    async with aclosing(output) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                usage = piece.usage
                reason = "length" if piece.reason == "max_tokens" else "stop"
                out = stops.flush()
            else:
                written += 1
                out = stops.feed(piece.text)
            text += out
            if body.streams and (out or logprobs):
                yield json_line(clock.line(response=out, **logprobs))
                logprobs = {}
            if stops.stopped:
                usage = Usage(prompt_tokens=tokens, output_tokens=written)
                break
    shown = "" if body.streams else text
    yield json_line(clock.last(reason, usage, response=shown, **logprobs))


async def fitted(body: GenerateRequest, runtime: Runtime, prompt: Prompt) -> tuple[Sampling, int]:
    """How to draw, within the context; and the prompt's tokens.

    Raises:
        ApiError: 400, the prompt leaves no room for an answer.
    """
    options = body.options
    tokens = await runtime.count(prompt)
    context = min(runtime.profile.context_length, options.num_ctx or math.inf)
    room = int(context) - tokens
    if room < 1:
        raise ApiError(
            400,
            f"the prompt's {tokens} tokens exceed the context of {int(context)}; no prompt is cut "
            "here. Shorten it.",
            code="context_length_exceeded",
            param="prompt",
        )
    wanted = options.num_predict
    return (
        Sampling(
            temperature=_TEMPERATURE if options.temperature is None else options.temperature,
            top_p=_TOP_P if options.top_p is None else options.top_p,
            max_tokens=room if wanted is None or wanted < 1 else min(room, wanted),
            seed=options.seed if options.seed is None or options.seed >= 0 else None,
        ),
        tokens,
    )


def constraint_of(format: Any, runtime: Runtime) -> Constraint | None:
    """What `format` holds an output to: any JSON object, or what a schema admits.

    Raises:
        ApiError: 400, it is neither, or the runtime can't.
    """
    if not format:
        return None
    if format == "json":
        schema: Mapping[str, JsonValue] = {"type": "object"}
    elif isinstance(format, dict):
        schema = cast("Mapping[str, JsonValue]", format)
    else:
        raise ApiError(400, "format is 'json' or a JSON Schema. Send one of them.", param="format")
    if "json" not in runtime.constrains:
        raise ApiError(
            400,
            f"{runtime.name!r} can't hold its output to a format. Leave it out.",
            param="format",
        )
    return Constraint(json_schema=schema)


async def _logprobs(body: GenerateRequest, runtime: Runtime, prompt: Prompt) -> dict[str, Any]:
    """The first token's probabilities, as the field of a line; empty where none are wanted."""
    if not body.logprobs:
        return {}
    if not isinstance(runtime, Likely):
        raise ApiError(400, f"{runtime.name!r} gives no probabilities.", param="logprobs")
    found = await runtime.likeliest(prompt, max(_DEFAULT_TOP, body.top_logprobs or 0))
    tops = [_logprob(token, probability) for token, probability in found]
    return {"logprobs": [{**tops[0], "top_logprobs": tops if body.top_logprobs else []}]}


def _logprob(token: str, probability: float) -> dict[str, Any]:
    logprob = math.log(max(probability, 1e-30))
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}
