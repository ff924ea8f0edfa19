"""`/api/chat`, and `/api/generate` of agents: for clients of Ollama's interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from corral.events import TurnFinished
from corral.server.catalogue import ServedAgent
from corral.server.conversation import Line, Role, continue_from, image_part, role_of
from corral.server.errors import ApiError
from corral.server.ollama_form import (
    Clock,
    GenerateRequest,
    OllamaChatRequest,
    OllamaMessage,
    refuse_thinking,
    stops_of,
)
from corral.server.replies import LiveReply
from corral.server.turns import Answer, Ask, answer_turn, sampled
from corral.server.wire import (
    JSON,
    LINES,
    catalogue_of,
    json_line,
    patience_of,
    read_body,
    session_of,
)

__all__ = ["agent_generate", "chat"]

Shape = Callable[[str], dict[str, Any]]
"""How a stretch of the answer is put into a line."""


async def chat(request: Request) -> LiveReply:
    """`POST /api/chat`."""
    body = await read_body(request, OllamaChatRequest)
    served = catalogue_of(request).find_agent(body.model)
    if body.tools:
        raise ApiError(
            400,
            f"{body.model!r} is an agent, whose tools run on the server; it takes none from "
            "clients. Leave tools out.",
            param="tools",
        )
    if not body.messages:
        return _loaded(request, body, _message)
    lines = [_line(message) for message in body.messages]
    return _reply(request, body, served, lines, _message)


def agent_generate(request: Request, body: GenerateRequest, served: ServedAgent) -> LiveReply:
    """`POST /api/generate` for an agent: the prompt is what the user says."""
    for name in ("template", "context", "suffix"):
        if getattr(body, name):
            raise ApiError(400, f"An agent takes no {name}. Leave it out.", param=name)
    if not body.prompt:
        return _loaded(request, body, _response)
    lines = [Line(role="system", text=body.system)] if body.system else []
    images = tuple(image_part(data, param="images") for data in body.images or ())
    lines.append(Line(role="user", text=body.prompt, images=images))
    return _reply(request, body, served, lines, _response)


def _reply(
    request: Request,
    body: OllamaChatRequest | GenerateRequest,
    served: ServedAgent,
    lines: Sequence[Line],
    shape: Shape,
) -> LiveReply:
    _refuse(body)
    history, message = continue_from(lines)
    limit = body.options.num_predict
    ask = Ask(
        served=served,
        message=message,
        session=session_of(request, body.session),
        history=history,
        sampling=sampled(
            served.agent.sampling,
            temperature=body.options.temperature,
            top_p=body.options.top_p,
            max_tokens=limit if limit and limit > 0 else None,
            seed=body.options.seed,
        ),
    )
    clock = Clock(body.model)
    frames = _stream(ask, clock, shape) if body.streams else _whole(ask, clock, shape)
    return LiveReply(
        patience_of(request),
        frames,
        media_type=LINES if body.streams else JSON,
        broken=lambda error: json_line({"error": error.message}),
    )


async def _whole(ask: Ask, clock: Clock, shape: Shape) -> AsyncGenerator[bytes]:
    answer = Answer()
    async with aclosing(answer_turn(ask)) as events:
        async for event in events:
            answer.feed(event)
    yield json_line(_last(ask, clock, answer, shape(answer.text)))


async def _stream(ask: Ask, clock: Clock, shape: Shape) -> AsyncGenerator[bytes]:
    answer = Answer()
    async with aclosing(answer_turn(ask)) as events:
        async for event in events:
            if text := answer.feed(event):
                yield json_line(clock.line(**shape(text)))
            if isinstance(event, TurnFinished) and event.outcome != "failed":
                yield json_line(_last(ask, clock, answer, shape("")))


def _last(ask: Ask, clock: Clock, answer: Answer, shaped: dict[str, Any]) -> dict[str, Any]:
    corral = answer.details(ask.session)
    return clock.last(answer.finish, answer.usage, **shaped, corral=corral)


def _loaded(request: Request, body: OllamaChatRequest | GenerateRequest, shape: Shape) -> LiveReply:
    """What Ollama answers when there is nothing to answer: the model is loaded."""

    async def frames() -> AsyncGenerator[bytes]:
        yield json_line(Clock(body.model).loaded(**shape("")))

    return LiveReply(patience_of(request), frames(), media_type=JSON, broken=lambda error: b"")


def _message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, Any]:
    return {"response": text}


def _refuse(body: OllamaChatRequest | GenerateRequest) -> None:
    """See that a request asks for nothing that an agent can't honour."""
    refuse_thinking(body.think, body.model)
    if body.format:
        raise ApiError(400, "An agent answers in text. Leave format out.", param="format")
    if body.logprobs:
        raise ApiError(400, "An agent's answer has no logprobs. Leave them out.", param="logprobs")
    if stops_of(body.options):
        raise ApiError(
            400, "An agent's answer ends where it ends. Leave stop out.", param="options.stop"
        )


_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


def _line(message: OllamaMessage) -> Line:
    role = role_of(message.role, _ROLES, has_calls=bool(message.tool_calls))
    images = tuple(image_part(data) for data in message.images or ())
    return Line(role=role, text=message.content, images=images)
