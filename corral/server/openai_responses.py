"""`/v1/responses`: agents for clients of OpenAI's Responses interface.

A response is kept in a session, unless the client says `store: false`. Its id names the session and
the turn, so the next request goes on from it with `previous_response_id`: from the session's newest
turn only, since a session has no branches.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from corral.events import Event, TurnFinished, Usage
from corral.memory import Store
from corral.server.catalogue import ServedAgent
from corral.server.conversation import Line, continue_from
from corral.server.errors import ApiError
from corral.server.openai_chat import ROLES, ContentPart, line_of, refuse
from corral.server.replies import LiveReply
from corral.server.turns import Answer, Ask, Session, answer_turn, sampled
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

__all__ = ["responses"]

_PREFIX = "resp_"


class InputItem(BaseModel):
    """One message of the input."""

    type: str = "message"
    role: str = "user"
    content: str | list[ContentPart] | None = None


class ResponsesRequest(BaseModel):
    """The fields of a request that Corral reads; the extra ones may be refused."""

    model_config = ConfigDict(extra="allow")

    model: str
    input: str | list[InputItem]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = True
    stream: bool | None = False
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    session: str | None = None


async def responses(request: Request) -> LiveReply:
    """`POST /v1/responses`."""
    body = await read_body(request, ResponsesRequest)
    served = catalogue_of(request).find_agent(body.model)
    refuse(body)
    lines = _lines(body)
    session = await _session(request, body, served)
    told = sum(line.role != "system" for line in lines)
    if session is not None and not session.new and told > 1:
        raise ApiError(
            400,
            "A session remembers what came before. Send the user's new message alone.",
            param="input",
        )
    history, message = continue_from(lines, param="input")
    ask = Ask(
        served=served,
        message=message,
        session=session,
        history=history,
        sampling=sampled(
            served.agent.sampling,
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_output_tokens,
        ),
    )
    reply = _Response(body, ask)
    return LiveReply(
        patience_of(request),
        reply.stream() if body.stream else reply.whole(),
        media_type=SSE if body.stream else JSON,
        ping=SSE_PING if body.stream else None,
        broken=reply.broken,
    )


class _Response:
    """One response, whole or as events."""

    def __init__(self, body: ResponsesRequest, ask: Ask) -> None:
        self._ask = ask
        self._answer = Answer()
        self._item = new_id("msg_")
        self._sequence = 0
        self._head: dict[str, Any] = {
            "object": "response",
            "created_at": int(time.time()),
            "model": ask.served.name,
            "instructions": body.instructions,
            "previous_response_id": body.previous_response_id,
            "store": ask.session is not None,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "max_output_tokens": body.max_output_tokens,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": {},
            "text": {"format": {"type": "text"}},
        }
        self._id = ""

    async def whole(self) -> AsyncGenerator[bytes]:
        """The response as one object."""
        async with aclosing(answer_turn(self._ask)) as events:
            async for event in events:
                self._feed(event)
        yield json_bytes(self._ended())

    async def stream(self) -> AsyncGenerator[bytes]:
        """The response as server-sent events."""
        async with aclosing(answer_turn(self._ask)) as events:
            async for event in events:
                first = not self._id
                text = self._feed(event)
                if first:
                    for frame in self._opening():
                        yield frame
                if text:
                    yield self._text("response.output_text.delta", delta=text, logprobs=[])
                if isinstance(event, TurnFinished) and event.outcome != "failed":
                    for frame in self._closing():
                        yield frame

    def broken(self, error: ApiError) -> bytes:
        """The event of a stream that fails."""
        failed = self._object("failed", output=[])
        failed["error"] = {"code": "server_error", "message": error.message}
        return self._event("response.failed", response=failed)

    def _feed(self, event: Event) -> str:
        text = self._answer.feed(event)
        if not self._id and self._answer.turn_id:
            self._id = _response_id(self._ask.session, self._answer.turn_id)
        return text

    def _opening(self) -> list[bytes]:
        begun = self._object("in_progress", output=[])
        item: dict[str, Any] = self._message("in_progress") | {"content": []}
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=item),
            self._text("response.content_part.added", part=_part("")),
        ]

    def _closing(self) -> list[bytes]:
        whole = self._ended()
        text = self._answer.text
        return [
            self._text("response.output_text.done", text=text, logprobs=[]),
            self._text("response.content_part.done", part=_part(text)),
            self._event("response.output_item.done", output_index=0, item=whole["output"][0]),
            self._event(f"response.{whole['status']}", response=whole),
        ]

    def _ended(self) -> dict[str, Any]:
        finish = self._answer.finish
        status = "completed" if finish == "stop" else "incomplete"
        ended = self._object(status, output=[self._message(status)])
        if status == "incomplete":
            reason = "content_filter" if finish == "content_filter" else "max_output_tokens"
            ended["incomplete_details"] = {"reason": reason}
        ended["usage"] = _usage(self._answer.usage)
        ended["corral"] = self._answer.details(self._ask.session)
        return ended

    def _object(self, status: str, *, output: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": None,
        }

    def _message(self, status: str) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_part(self._answer.text)],
        }

    def _text(self, kind: str, **fields: Any) -> bytes:
        return self._event(kind, item_id=self._item, output_index=0, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return sse({"type": kind, "sequence_number": self._sequence - 1, **fields}, event=kind)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }


def _lines(body: ResponsesRequest) -> list[Line]:
    notes = [Line(role="system", text=body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*notes, Line(role="user", text=body.input)]
    lines: list[Line] = []
    for item in body.input:
        if item.type != "message" or item.role not in ROLES:
            raise ApiError(
                400,
                f"An input item of the type {item.type!r} has no place in an agent's conversation: "
                "its tools run on the server. Leave it out.",
                param="input",
            )
        lines.append(line_of(ROLES[item.role], item.content))
    return [*notes, *lines]


async def _session(request: Request, body: ResponsesRequest, served: ServedAgent) -> Session | None:
    """The session that the response belongs to; None if it isn't to be kept."""
    if body.previous_response_id:
        name, turn = _parse_id(body.previous_response_id)
        session = session_of(request, name)
        if session is None or session.name != name:
            raise ApiError(
                400,
                "X-Corral-Session and previous_response_id name two sessions. Send one of them.",
                param="previous_response_id",
            )
        await _check_newest(served.memory, session, turn)
        return session
    if request.headers.get("X-Corral-Session") or body.session or body.store is False:
        return session_of(request, body.session)
    made = session_of(request, f"resp-{secrets.token_hex(12)}")
    return replace(made, new=True) if made else None


def _response_id(session: Session | None, turn_id: str) -> str:
    """An id that leads back to the turn."""
    name = session.name if session else ""
    return f"{_PREFIX}{base64.urlsafe_b64encode(name.encode()).decode().rstrip('=')}.{turn_id}"


def _parse_id(response_id: str) -> tuple[str, str]:
    encoded, dot, turn = response_id.removeprefix(_PREFIX).rpartition(".")
    try:
        name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        name = ""
    if not response_id.startswith(_PREFIX) or not dot or not name:
        raise _unknown()
    return name, turn


async def _check_newest(memory: Store, session: Session, turn: str) -> None:
    items = await memory.items(session.key)
    turns = [item.turn_id for item in items]
    if turn not in turns:
        raise _unknown()
    if turns[-1] != turn:
        raise ApiError(
            400,
            "The conversation has gone on since that response. Go on from its newest one.",
            code="previous_response_not_newest",
            param="previous_response_id",
        )


def _unknown() -> ApiError:
    return ApiError(
        404,
        "There is no such response to go on from. It was not stored, or it has been forgotten.",
        code="previous_response_not_found",
        param="previous_response_id",
    )
