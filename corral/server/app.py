"""The server as an ASGI application: its routes, and what becomes of errors."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from corral.errors import CorralError
from corral.server import ollama_chat, ollama_models, ollama_raw, openai_chat, openai_responses
from corral.server.catalogue import Catalogue
from corral.server.errors import ApiError, error_response, from_corral
from corral.server.front import Front
from corral.server.replies import Patience

__all__ = ["create_app"]


def create_app(catalogue: Catalogue, patience: Patience) -> Starlette:
    """An application that serves what is in `catalogue`, open already, within `patience`."""
    app = Starlette(
        routes=[
            Route("/", _alive, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            Route("/v1/models", openai_chat.models, methods=["GET"]),
            Route("/v1/models/{name:path}", openai_chat.model, methods=["GET"]),
            Route("/v1/chat/completions", openai_chat.chat, methods=["POST"]),
            Route("/v1/responses", openai_responses.responses, methods=["POST"]),
            Route("/api/chat", ollama_chat.chat, methods=["POST"]),
            Route("/api/generate", ollama_raw.generate, methods=["POST"]),
            Route("/api/tags", ollama_models.tags, methods=["GET"]),
            Route("/api/show", ollama_models.show, methods=["POST"]),
            Route("/api/version", ollama_models.version, methods=["GET"]),
            Route("/api/ps", ollama_models.loaded, methods=["GET"]),
            Route("/api/embed", ollama_models.embed, methods=["POST"]),
        ],
        middleware=[Middleware(Front, patience=patience)],
        exception_handlers={
            ApiError: _refused,
            CorralError: _failed,
            HTTPException: _unrouted,
            Exception: _broken,
        },
    )
    app.router.redirect_slashes = False
    app.state.catalogue = catalogue
    app.state.patience = patience
    return app


async def _alive(request: Request) -> Response:
    """What Ollama's clients look for is an answer, whatever it says."""
    return PlainTextResponse("Corral is running")


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, path=request.url.path)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, CorralError)
    return error_response(from_corral(error), path=request.url.path)


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        told = ApiError(405, f"{request.method} is not the method for {request.url.path}.")
    else:
        told = ApiError(
            error.status_code, f"There is nothing at {request.url.path}.", code="not_found"
        )
    return error_response(told, path=request.url.path)


async def _broken(request: Request, error: Exception) -> Response:
    # Starlette raises the error again once this is sent, and it gets into the log.
    told = ApiError(500, "The server failed. Its operator finds why in its log.")
    return error_response(told, path=request.url.path)
