"""The official Ollama client, extended by what it lacks, over its own connection.

It lacks the fields `truncate` and `shift`, `verbose` of `/api/show`, and the server's version; it
takes a stream that breaks off for one that ended, and splits its lines wherever Unicode knows a
line's end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import cast

import httpx
from ollama import AsyncClient, ResponseError
from pydantic import JsonValue

from corral.errors import ModelError
from corral.model_runtime.wire import (
    Patience,
    client_options,
    is_loopback,
    json_object,
    read_lines,
)

__all__ = ["OllamaClient", "open_client", "server_url"]


class OllamaClient(AsyncClient):
    """The official client, for one server."""

    async def version(self) -> str:
        """The server's version, such as `0.33.0`.

        Raises:
            ResponseError: What answers is no Ollama server.
            httpx.TransportError: Nothing answers.
        """
        answer = await self._ask("GET", "/api/version", None)
        return str(answer.get("version", ""))

    async def show_all(self, model: str) -> Mapping[str, JsonValue]:
        """All that the server knows of a model, its vocabulary included (some 10 MB).

        Raises:
            ResponseError: It has no such model (status 404), or something failed.
            httpx.TransportError: The connection failed.
        """
        return await self._ask("POST", "/api/show", {"model": model, "verbose": True})

    async def lines(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[Mapping[str, JsonValue]]:
        """The lines of a streamed answer, up to the one that says `done`.

        Raises:
            ResponseError: The server says that it failed.
            httpx.TransportError: The connection failed, or the answer broke off.
            ModelError: A line is no JSON object.
        """
        async with self._http.stream("POST", path, json=body) as response:
            if not response.is_success:
                await response.aread()
                raise _response_error(response)
            async with aclosing(read_lines(response)) as lines:
                async for line in lines:
                    if not line.strip():
                        continue
                    part = json_object(line, who="The Ollama server")
                    if error := part.get("error"):
                        raise ResponseError(str(error))
                    yield part
                    if part.get("done") is True:
                        return
        raise httpx.RemoteProtocolError("the answer has no end")

    @property
    def _http(self) -> httpx.AsyncClient:
        return cast("httpx.AsyncClient", self._client)  # pyright: ignore[reportUnknownMemberType]

    async def _ask(
        self, method: str, path: str, body: Mapping[str, object] | None
    ) -> Mapping[str, JsonValue]:
        response = await self._http.request(method, path, json=body)
        if not response.is_success:
            raise _response_error(response)
        return json_object(response.content, who="The Ollama server")


class OllamaStatus(ResponseError):
    """A status that the server answered with, and its headers, which say when to come again."""

    def __init__(self, text: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(text, status)
        self.headers = headers


def _response_error(response: httpx.Response) -> ResponseError:
    text = response.content.decode(errors="replace")
    try:
        text = str(json_object(response.content, who="").get("error", text))
    except ModelError:
        pass
    return OllamaStatus(text[:2000], response.status_code, response.headers)


def server_url(host: str | None) -> str:
    """Where the server is: `host`, else `OLLAMA_HOST`, else port 11434 of this machine."""
    from ollama._client import (
        _parse_host,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
    )

    url = str(_parse_host(host or os.environ.get("OLLAMA_HOST")))
    # An address to listen on, which people set for the server, is none to connect to.
    return url.replace("//0.0.0.0", "//127.0.0.1", 1)


@asynccontextmanager
async def open_client(url: str, patience: Patience) -> AsyncGenerator[OllamaClient]:
    """A client for the time of one exchange, so that no connection is tied to an event loop."""
    client = OllamaClient(host=url, **client_options(url, patience))
    if not is_loopback(url) and not url.startswith("https:"):
        # The official client sends OLLAMA_API_KEY wherever it goes, and here all could read it.
        client._http.headers.pop("authorization", None)  # pyright: ignore[reportPrivateUsage]
    try:
        yield client
    finally:
        await client._http.aclose()  # pyright: ignore[reportPrivateUsage]
