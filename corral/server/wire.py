"""Bodies in, lines and events out: what both interfaces share on the wire."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from corral.server.catalogue import Catalogue
from corral.server.errors import ApiError, from_validation
from corral.server.front import CLIENT, SESSION_HEADER
from corral.server.replies import Patience
from corral.server.turns import Session, session_for

__all__ = [
    "JSON",
    "LINES",
    "SSE",
    "SSE_PING",
    "catalogue_of",
    "json_bytes",
    "json_line",
    "new_id",
    "now",
    "patience_of",
    "read_body",
    "session_of",
    "sse",
]

JSON = "application/json"
LINES = "application/x-ndjson"
SSE = "text/event-stream; charset=utf-8"

SSE_PING = b": still here\n\n"
"""A comment, which clients pass over."""

M = TypeVar("M", bound=BaseModel)


def catalogue_of(request: Request) -> Catalogue:
    """What the server that got this request serves."""
    return request.app.state.catalogue


def patience_of(request: Request) -> Patience:
    """What the replies of the server that got this request share."""
    return request.app.state.patience


async def read_body(request: Request, model: type[M]) -> M:
    """The request's body, whatever its content type says.

    Raises:
        ApiError: 400, it is no JSON object or not of the right form.
    """
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is no JSON: {error}. Send a JSON object.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object. Send one.")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise from_validation(error) from None


def session_of(request: Request, given: str | None) -> Session | None:
    """The session that a request names: by the header, else in its body.

    Raises:
        ApiError: 400, it names none and this server wants one.
        ConfigError: It can't name a session.
    """
    settings = patience_of(request).settings
    client: str | None = request.scope[CLIENT] if settings.separate_clients else None
    name = request.headers.get(SESSION_HEADER) or given
    return session_for(name, client=client, required=settings.sessions_only)


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_line(value: Any) -> bytes:
    """One line of newline-delimited JSON."""
    return json_bytes(value) + b"\n"


def sse(value: Any, *, event: str | None = None) -> bytes:
    """One server-sent event, named if it has a name."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + json_bytes(value) + b"\n\n"


def new_id(prefix: str) -> str:
    """An id that nobody has seen."""
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> str:
    """This moment as both interfaces write times."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
