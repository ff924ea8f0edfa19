"""A server at a URL, spoken with over streamable HTTP; what it may send is bounded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import httpx2
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client

__all__ = ["http_transport"]

_LONGEST_MESSAGE = 16 << 20
_CONNECT_SECONDS = 30.0
_READ_SECONDS = 300.0


def http_transport(url: str, headers: Mapping[str, str]) -> Transport:
    """The server as the `mcp` package's client takes it; to be entered once.

    Redirects are followed within the URL's own scheme, host and port only, so that the headers
    never go elsewhere. Proxies of the environment are not used.
    """
    return cast("Transport", _connected(url, headers))


@asynccontextmanager
async def _connected(url: str, headers: Mapping[str, str]) -> AsyncGenerator[object]:
    client = httpx2.AsyncClient(
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_SECONDS, read=_READ_SECONDS),
        transport=_Bounded(httpx2.AsyncHTTPTransport(trust_env=False)),
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=_LONGEST_MESSAGE
        ) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncBaseTransport):
    """Breaks off answers that are too long, and refuses packed ones, whose length is not known."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        response = await self._inner.handle_async_request(request)
        packed = response.headers.get("content-encoding", "identity").lower()
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        if packed != "identity":
            await response.aclose()
            raise httpx2.StreamError(f"the server packed its answer as {packed!r}")
        if not streamed:
            # Event streams are bounded event by event.
            body = cast("httpx2.AsyncByteStream", response.stream)
            response.stream = _Counted(body)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for chunk in self._body:
            read += len(chunk)
            if read > _LONGEST_MESSAGE:
                raise httpx2.StreamError(f"the answer has more than {_LONGEST_MESSAGE} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()
