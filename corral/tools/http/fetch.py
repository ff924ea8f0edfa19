"""One HTTP request, within bounds: hosts, bytes, time, redirects.

httpx is loaded here and in the transport, and both only when a tool is called.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from corral.errors import ToolError
from corral.tools.sandbox import Permissions

if TYPE_CHECKING:
    import httpx

    from corral.tools.http.transport import CheckedTransport

__all__ = ["Answer", "Request", "fetch"]

_REDIRECTS = 5
_REDIRECT_CODES = (301, 302, 303, 307, 308)
_AGENT = "corral"
_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send.

    Attributes:
        method: Such as `GET`.
        url: Absolute, with `http` or `https`.
        headers: Sent to the URL's own scheme, host and port only, not where a redirect leads.
        body: What is sent along, or None.
        max_bytes: How much of the answer is read.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes | None = None
    max_bytes: int = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        status: Such as 200.
        reason: The words for it.
        media_type: The answer's type in lower case without parameters, `""` if it names none.
        body: Its bytes, at most `max_bytes` of the request.
        encoding: How its text is encoded.
        cut: Whether there was more.
        url: Where it came from, after redirects.
    """

    status: int
    reason: str
    media_type: str
    body: bytes
    encoding: str
    cut: bool
    url: str

    @property
    def text(self) -> str:
        """The body as text; bytes that aren't are shown as U+FFFD."""
        try:
            return self.body.decode(self.encoding, errors="replace")
        except LookupError:
            return self.body.decode(errors="replace")


async def fetch(
    request: Request,
    *,
    permissions: Permissions,
    seconds: float = _SECONDS,
    transport: CheckedTransport | None = None,
) -> Answer:
    """Send a request and read the answer. Redirects of GET and HEAD to allowed hosts are followed.

    Args:
        request: What to send.
        permissions: Whose `network` lists the hosts.
        seconds: How long all of it may take.
        transport: What to send it through; by default one for this request alone.

    Raises:
        ToolError: It failed: a host that may not be reached, no answer in time, a broken one.
    """
    from corral.tools.http.transport import CheckedTransport

    through = transport or CheckedTransport(permissions)
    try:
        with anyio.move_on_after(seconds):
            return await _followed(request, through)
        raise ToolError(f"The server gave no answer within {seconds:g} seconds.")
    finally:
        if transport is None:
            with anyio.CancelScope(shield=True):
                await through.aclose()


async def _followed(request: Request, transport: CheckedTransport) -> Answer:
    import httpx

    try:
        first = url = httpx.URL(request.url)
        for _ in range(_REDIRECTS + 1):
            headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
            if (url.scheme, url.host, url.port) == (first.scheme, first.host, first.port):
                headers |= request.headers
            sent = httpx.Request(request.method, url, headers=headers, content=request.body)
            response = await transport.handle_async_request(sent)
            try:
                onward = _onward(request.method, url, response)
                if onward is None:
                    return await _read(response, str(url), request.max_bytes)
                url = onward
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        what = str(error) or type(error).__name__
        raise ToolError(f"The request failed: {what}.") from error
    raise ToolError(f"The server redirects more than {_REDIRECTS} times.")


def _onward(method: str, url: httpx.URL, response: httpx.Response) -> httpx.URL | None:
    """Where a redirect leads, or None if the response is none."""
    if response.status_code not in _REDIRECT_CODES or "location" not in response.headers:
        return None
    onward = url.join(response.headers["location"])
    if method not in ("GET", "HEAD"):
        raise ToolError(f"The server redirects a {method} to {onward.host!r}; it was not repeated.")
    if onward.scheme not in ("http", "https") or (url.scheme, onward.scheme) == ("https", "http"):
        raise ToolError(
            f"The server redirects to {onward.scheme}://{onward.host}, which is not followed."
        )
    return onward.copy_with(username=None, password=None) if onward.userinfo else onward


async def _read(response: httpx.Response, url: str, limit: int) -> Answer:
    inflate = _inflater(response.headers.get("content-encoding", "identity").strip().lower())
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += inflate(chunk, limit + 1 - len(body))
        if len(body) > limit:
            break
    media, _, _ = response.headers.get("content-type", "").partition(";")
    return Answer(
        status=response.status_code,
        reason=response.reason_phrase,
        media_type=media.strip().lower(),
        body=bytes(body[:limit]),
        encoding=response.charset_encoding or "utf-8",
        cut=len(body) > limit,
        url=url,
    )


class _Inflater:
    """Unpacks what a server packed although it was asked not to, never more than is wanted."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def __call__(self, chunk: bytes, room: int) -> bytes:
        try:
            return self._unpack.decompress(chunk, max(1, room))
        except zlib.error as error:
            raise ToolError(f"The server's answer can't be unpacked: {error}.") from error


def _as_it_is(chunk: bytes, _room: int) -> bytes:
    return chunk


def _inflater(encoding: str):
    if encoding in ("", "identity"):
        return _as_it_is
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Inflater()
    raise ToolError(f"The server packed its answer as {encoding!r}, which was not asked for.")
