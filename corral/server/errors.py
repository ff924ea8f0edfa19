"""What goes wrong with a request, as an HTTP status and a body in the interface's own form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from corral.errors import (
    ConfigError,
    ContextOverflow,
    CorralError,
    InputError,
    ModelBusy,
    RuntimeUnavailable,
    SandboxUnavailable,
    SessionBusy,
    StoreError,
)

__all__ = ["ApiError", "error_body", "error_response", "from_corral", "from_validation"]

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A request that is refused or that failed.

    `code` is a word for programs, `param` the request's field that is to blame, and `retry_after`
    the seconds after which the client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Refuse with an HTTP `status` and a `message` for people."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    @property
    def kind(self) -> str:
        """OpenAI's name for this sort of error."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return _KINDS.get(self.status, default)


def from_corral(error: CorralError) -> ApiError:
    """The answer to a request that met one of Corral's errors.

    What concerns the server's own disk is not told to clients.
    """
    text = str(error)
    if isinstance(error, SessionBusy):
        return ApiError(409, text, code="session_busy", retry_after=1)
    if isinstance(error, ContextOverflow):
        return ApiError(400, text, code="context_length_exceeded", param="messages")
    if isinstance(error, (InputError, ConfigError)):
        return ApiError(400, text, code="invalid_input")
    if isinstance(error, StoreError):
        told = (
            "The server can't read or write its conversations. Its operator finds why in its log."
        )
        return ApiError(500, told, code="store_error")
    if isinstance(error, (RuntimeUnavailable, SandboxUnavailable)):
        return ApiError(503, text, code="unavailable", retry_after=5)
    if isinstance(error, ModelBusy):
        return ApiError(429, text, code="model_busy", retry_after=1)
    return ApiError(500, text, code="model_error")


def from_validation(error: ValidationError) -> ApiError:
    """The answer to a request whose body is not of the right form: names the first wrong field."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return ApiError(
        400, f"{place or 'the body'}: {first['msg']}. Mend the request.", param=place or None
    )


def error_body(error: ApiError, *, path: str) -> dict[str, Any]:
    """The body that clients of the interface at `path` read: Ollama's, or OpenAI's."""
    if path.startswith("/api/"):
        return {"error": error.message}
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: ApiError, *, path: str) -> Response:
    """The whole answer for an error that came before anything was sent."""
    assert HTTPStatus(error.status)
    return JSONResponse(
        error_body(error, path=path), status_code=error.status, headers=error.headers
    )
