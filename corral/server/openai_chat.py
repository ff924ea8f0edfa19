"""`/v1/chat/completions` and `/v1/models`: agents for clients of OpenAI's chat interface.

The agent's tools run on the server and are not handed to the client, so `tools` of a client's own
are refused, like everything else that an agent can't honour. Sampling parameters that only tint
the answer (penalties and the like) are taken and not used.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from corral.events import TurnFinished, Usage
from corral.messages import ImagePart
from corral.server.conversation import Line, Role, continue_from, image_part, role_of
from corral.server.errors import ApiError, error_body
from corral.server.replies import LiveReply
from corral.server.turns import Answer, Ask, answer_turn, sampled
from corral.server.wire import (
    JSON,
    SSE,
    SSE_PING,
    catalogue_of,
    json_bytes,
    new_id,
    patience_of,
    read_body,
    session_of,
    sse,
)

__all__ = ["ROLES", "ChatRequest", "ContentPart", "chat", "line_of", "model", "models", "refuse"]

_PATH = "/v1/chat/completions"


class ImageUrl(BaseModel):
    """Where an image is."""

    url: str


class ContentPart(BaseModel):
    """A part of a message's content."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[Any] | None = None


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """The fields of a request that Corral reads; `refused` are looked at to be refused."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    session: str | None = None


_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (
        (None, []),
        "An agent's tools run on the server; it takes none from clients. Leave tools out.",
    ),
    "functions": (
        (None, []),
        "An agent's tools run on the server; it takes none from clients. Leave functions out.",
    ),
    "response_format": (
        (None, {"type": "text"}),
        "An agent answers in text. Leave response_format out.",
    ),
    "text": (
        (None, {}, {"format": {"type": "text"}}),
        "An agent answers in text. Leave text.format out.",
    ),
    "n": ((None, 1), "An agent gives one answer. Leave n out."),
    "logprobs": ((None, False), "An agent's answer has no logprobs. Leave them out."),
    "top_logprobs": ((None, 0), "An agent's answer has no logprobs. Leave them out."),
    "stop": ((None, "", []), "An agent's answer ends where it ends. Leave stop out."),
    "logit_bias": ((None, {}), "An agent takes no logit_bias. Leave it out."),
    "modalities": ((None, ["text"]), "An agent answers in text. Leave modalities out."),
    "background": ((None, False), "An agent answers while the client waits. Leave it out."),
}


def refuse(body: BaseModel) -> None:
    """See that a request asks for nothing that an agent can't honour.

    Raises:
        ApiError: 400, it does.
    """
    for name, value in (body.model_extra or {}).items():
        if name in _REFUSED and value not in _REFUSED[name][0]:
            raise ApiError(400, _REFUSED[name][1], code="unsupported_parameter", param=name)


async def chat(request: Request) -> LiveReply:
    """`POST /v1/chat/completions`."""
    body = await read_body(request, ChatRequest)
    served = catalogue_of(request).find_agent(body.model)
    refuse(body)
    history, message = continue_from([_line(each) for each in body.messages])
    session = session_of(request, body.session)
    ask = Ask(
        served=served,
        message=message,
        session=session,
        history=history,
        sampling=sampled(
            served.agent.sampling,
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            seed=body.seed,
        ),
    )
    usage = bool(body.stream_options and body.stream_options.include_usage)
    reply = _Completion(served.name, usage=usage)
    return LiveReply(
        patience_of(request),
        reply.stream(ask) if body.stream else reply.whole(ask),
        media_type=SSE if body.stream else JSON,
        ping=SSE_PING if body.stream else None,
        broken=lambda error: sse(error_body(error, path=_PATH)),
    )


class _Completion:
    """One answer, whole or in chunks."""

    def __init__(self, model: str, *, usage: bool) -> None:
        self._head = {
            "id": new_id("chatcmpl-"),
            "created": int(time.time()),
            "model": model,
        }
        self._usage = usage

    async def whole(self, ask: Ask) -> AsyncGenerator[bytes]:
        """The answer as one object."""
        answer = Answer()
        async with aclosing(answer_turn(ask)) as events:
            async for event in events:
                answer.feed(event)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": None,
            "finish_reason": answer.finish,
        }
        yield json_bytes(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "usage": _usage(answer.usage),
                "corral": answer.details(ask.session),
            }
        )

    async def stream(self, ask: Ask) -> AsyncGenerator[bytes]:
        """The answer as server-sent chunks."""
        answer = Answer()
        async with aclosing(answer_turn(ask)) as events:
            async for event in events:
                if not answer.turn_id:
                    text = answer.feed(event)
                    yield self._chunk({"role": "assistant", "content": ""})
                else:
                    text = answer.feed(event)
                if text:
                    yield self._chunk({"content": text})
                if isinstance(event, TurnFinished) and event.outcome != "failed":
                    yield self._chunk({}, finish=answer.finish, corral=answer.details(ask.session))
        if self._usage:
            yield sse(
                {
                    **self._head,
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": _usage(answer.usage),
                }
            )
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**self._head, "object": "chat.completion.chunk", "choices": [choice], **extra})


async def models(request: Request) -> Response:
    """`GET /v1/models`."""
    catalogue = catalogue_of(request)
    data = [_model(name, each.created) for name, each in catalogue.agents.items()]
    data += [_model(name, each.created) for name, each in catalogue.models.items()]
    return JSONResponse({"object": "list", "data": data})


async def model(request: Request) -> Response:
    """`GET /v1/models/NAME`."""
    found = catalogue_of(request).find(request.path_params["name"])
    return JSONResponse(_model(found.name, found.created))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "corral"}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _line(message: ChatMessage) -> Line:
    role = role_of(message.role, ROLES, has_calls=bool(message.tool_calls))
    return line_of(role, message.content)


def line_of(role: Role, content: str | list[ContentPart] | None) -> Line:
    """A message with the text and the images of its content.

    Raises:
        ApiError: 400, a part is of another kind, or an image would have to be fetched.
    """
    if content is None or isinstance(content, str):
        return Line(role=role, text=content or "")
    text, images = _content(content)
    return Line(role=role, text=text, images=images)


def _content(parts: list[ContentPart]) -> tuple[str, tuple[ImagePart, ...]]:
    texts: list[str] = []
    images: list[ImagePart] = []
    for part in parts:
        if part.text is not None and part.type in ("text", "input_text", "output_text"):
            texts.append(part.text)
        elif part.image_url is not None:
            url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
            head, comma, data = url.partition(";base64,")
            if not comma or not head.startswith("data:image/"):
                raise ApiError(
                    400,
                    "The server fetches no images. Send one as data:image/png;base64,...",
                    param="messages",
                )
            images.append(image_part(data))
        else:
            raise ApiError(
                400,
                f"A part of the kind {part.type!r} can't be read. Send text or images.",
                param="messages",
            )
    return "\n".join(texts), tuple(images)
