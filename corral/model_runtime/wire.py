"""What the runtimes that speak HTTP have in common: patience, retries, and streams read strictly.

A stream that is lost before its first item is asked for again, a little later each time; one that
is lost afterwards is an error, because what was already told can't be taken back. Every wait has
an end.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import math
import random
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import anyio
from pydantic import JsonValue

from corral.errors import CorralError, ModelError, RuntimeUnavailable

if TYPE_CHECKING:
    import httpx

__all__ = [
    "BUSY",
    "PATIENT",
    "Lost",
    "Patience",
    "client_options",
    "is_loopback",
    "json_object",
    "lost_on_the_way",
    "patient",
    "patient_call",
    "read_lines",
    "retry_after",
    "server_sent",
]

BUSY = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that a later try may not meet."""

_LONGEST_LINE = 64 * 1024 * 1024
"""Bytes. A model's whole vocabulary comes in one line of some 10 MB."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask it.

    Attributes:
        connect: For the connection.
        first: For the first piece of an answer, while the server loads the model and reads the
            prompt.
        between: From one piece to the next.
        overall: For a whole answer.
        attempts: How often a request is made in all, as long as it is lost before its first piece.
        wait: Before the second attempt; each later wait is twice as long.
        longest_wait: A server that asks for a longer pause than this is not waited for.
    """

    connect: float = 5.0
    first: float = 600.0
    between: float = 120.0
    overall: float = 1800.0
    attempts: int = 4
    wait: float = 0.5
    longest_wait: float = 60.0


PATIENT: Final = Patience()
"""The patience of those who ask for none in particular."""


class Lost(Exception):
    """A request that came to nothing and may be made again; `error` is for when it may not.

    `pause` is how many seconds the server asked to be left alone.
    """

    def __init__(self, error: CorralError, *, pause: float | None = None) -> None:
        """Carry the error that is raised if no attempt is left."""
        self.error = error
        self.pause = pause
        super().__init__(str(error))


async def patient(
    begin: Callable[[], AsyncGenerator[_T]], *, patience: Patience, who: str
) -> AsyncGenerator[_T]:
    """The items of a stream that `begin` opens, which is opened again when lost before its first.

    `who` names the server in errors.

    Raises:
        ModelError: An item took too long, or the whole did.
        CorralError: What `begin`'s stream raises; of a `Lost` one, its `error`.
    """
    ends = time.monotonic() + patience.overall
    attempt = 0
    while True:
        attempt += 1
        begun = False
        try:
            async with aclosing(begin()) as items:
                while True:
                    item = await _next(items, patience, begun=begun, ends=ends, who=who)
                    if item is None:
                        return
                    begun = True
                    yield item
        except Lost as lost:
            if begun:
                raise lost.error from lost.__cause__
            pause = _pause(lost, attempt, patience)
            if pause is None or time.monotonic() + pause > ends:
                raise lost.error from lost.__cause__
        await anyio.sleep(pause)


async def _next(
    items: AsyncGenerator[_T], patience: Patience, *, begun: bool, ends: float, who: str
) -> _T | None:
    limit = patience.between if begun else patience.first
    left = ends - time.monotonic()
    try:
        with anyio.fail_after(max(0.0, min(limit, left))):
            return await anext(items, None)
    except TimeoutError:
        if left <= limit:
            raise ModelError(
                f"{who} was not done after {patience.overall:g} seconds. Ask for less at a time, "
                "or use a smaller model."
            ) from None
        raise ModelError(
            f"{who} said nothing for {limit:g} seconds, so it was given up. See whether it still "
            "runs; if it is only slow, use a smaller model or a shorter prompt."
        ) from None


def _pause(lost: Lost, attempt: int, patience: Patience) -> float | None:
    """Seconds to wait before the next attempt; None if there is to be none."""
    if attempt >= patience.attempts:
        return None
    if lost.pause is not None:
        return lost.pause if lost.pause <= patience.longest_wait else None
    # Spread a little, so that clients that were dropped together don't all return together.
    wait = patience.wait * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)
    return min(wait, patience.longest_wait)


async def patient_call(call: Callable[[], Awaitable[_T]], *, patience: Patience, who: str) -> _T:
    """One answer instead of a stream; otherwise as `patient`."""

    async def once() -> AsyncGenerator[tuple[_T]]:
        yield (await call(),)

    async with aclosing(patient(once, patience=patience, who=who)) as answers:
        async for (answer,) in answers:
            return answer
    raise ModelError(f"{who} gave no answer. Try again.")  # pragma: no cover - `once` yields


def lost_on_the_way(
    error: httpx.TransportError, *, who: str, url: str, remedy: str
) -> Lost | RuntimeUnavailable:
    """What a failed connection means: no server (`remedy` says what to do), or a broken answer.

    That nothing listens on this machine is said at once; another machine may only be busy.
    """
    import httpx

    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)):
        unreachable = RuntimeUnavailable(f"{who} can't be reached ({error}). {remedy}")
        return unreachable if is_loopback(url) else Lost(unreachable)
    detail = str(error) or type(error).__name__
    return Lost(
        ModelError(
            f"The connection to {who} broke off ({detail}). Try again; the server's log says why."
        )
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone (`Retry-After`, RFC 9110), if it does."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


async def read_lines(response: httpx.Response) -> AsyncGenerator[bytes]:
    r"""A response's lines as they come, without their ends, split at `\n` and nowhere else.

    (httpx's own splits wherever Unicode knows a line's end, which a JSON string may hold.)

    Raises:
        ModelError: A line has no end.
        httpx.RemoteProtocolError: The response ends in the middle of one.
    """
    import httpx

    buffer = bytearray()
    seen = 0
    async for chunk in response.aiter_bytes():
        buffer += chunk
        while (end := buffer.find(b"\n", seen)) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
            seen = 0
        seen = len(buffer)
        if seen > _LONGEST_LINE:
            raise ModelError("The server sent a line without end. Check what answers there.")
    # Some servers leave the last line's end out; what is no whole value was cut.
    if buffer and not buffer.rstrip().endswith((b"}", b"]")):
        raise httpx.RemoteProtocolError("the answer ends in the middle of a line")
    if buffer:
        yield bytes(buffer)


async def server_sent(response: httpx.Response) -> AsyncGenerator[bytes]:
    """The data of a response's server-sent events; comments and other fields are passed over."""
    data: list[bytes] = []
    async with aclosing(read_lines(response)) as lines:
        async for line in lines:
            line = line.removesuffix(b"\r")
            if not line and data:
                yield b"\n".join(data)
                data.clear()
            elif line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:").removeprefix(b" "))
    # An event without its closing empty line was cut, and is dropped.


def json_object(data: bytes, *, who: str) -> dict[str, JsonValue]:
    """A JSON object.

    Raises:
        ModelError: It is none: damaged, or not UTF-8.
    """
    try:
        value = cast("object", json.loads(data.decode()))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{who} sent what is no JSON: {data[:80]!r}. Check what answers there, and try again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{who} sent {data[:80]!r} where an object was due. Check what answers there."
        )
    return cast("dict[str, JsonValue]", value)


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def client_options(url: str, patience: Patience) -> dict[str, Any]:
    """Arguments for an `httpx.AsyncClient` that talks to `url`.

    Waiting is `patient`'s concern, but for the connection; proxies of the environment are for
    other machines; and redirects are not followed, because they would carry the prompt elsewhere.
    """
    import httpx

    secure = urlsplit(url).scheme == "https"
    return {
        "timeout": httpx.Timeout(None, connect=patience.connect),
        "follow_redirects": False,
        "trust_env": not is_loopback(url),
        # Loading the certificates takes longer than a request on this machine.
        "verify": _certificates() if secure else False,
    }


@cache
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()
