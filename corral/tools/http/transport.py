"""An httpx transport that connects to the very address that was checked.

A name is resolved once; each of its addresses is judged; and the connection is made to one of the
judged addresses. Between check and connection there is no second look-up that a hostile name server
could answer differently. The certificate is still checked against the name.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

import anyio
import httpx

from corral.errors import ToolError
from corral.tools.http.addresses import is_public, read_address
from corral.tools.sandbox import Permissions

__all__ = ["CheckedTransport", "Resolve", "resolve"]

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port -> the addresses that it has, as text."""

_PORTS = {"http": 80, "https": 443}
_CONNECT_SECONDS = 10.0


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system for a host's addresses.

    Raises:
        OSError: It knows none.
    """
    found = await anyio.getaddrinfo(host, port)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends requests only where `permissions.network` allows, and never to a private address.

    A private address is one of this machine, of its networks, or special in any other way; such an
    address is reached only if the list names the address itself. Proxies that the environment names
    are not used, since behind one nothing could be checked.
    """

    def __init__(
        self,
        permissions: Permissions,
        *,
        resolve: Resolve = resolve,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        """Allow what `permissions` do.

        Args:
            permissions: Only `network` counts.
            resolve: How names are looked up.
            verify: Which certificates are believed; by default the ones that httpx believes.
        """
        self._permissions = permissions
        self._resolve = resolve
        self._inner = httpx.AsyncHTTPTransport(verify=verify or True, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            ToolError: Its host may not be reached.
            httpx.TransportError: The request failed.
        """
        host = request.url.raw_host.decode("ascii").lower().rstrip(".")
        port = request.url.port or _PORTS.get(request.url.scheme, 0)
        if not self._permissions.allows_host(host, port):
            allowed = ", ".join(self._permissions.network) or "none"
            raise ToolError(
                f"{_shown(host, port)} may not be reached. Hosts that may be: {allowed}."
            )
        request.extensions = {
            **request.extensions,
            "sni_hostname": host,
            "timeout": {"connect": _CONNECT_SECONDS},
        }
        failure: httpx.TransportError | None = None
        for address in await self._addresses(host, port):
            request.url = request.url.copy_with(host=str(address))
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[IPv4Address | IPv6Address]:
        """The host's addresses that may be connected to; at least one, or none at all."""
        literal = read_address(host)
        try:
            texts = [str(literal)] if literal else await self._resolve(host, port)
        except OSError as error:
            raise ToolError(f"The host {host!r} can't be found. Check the name.") from error
        addresses = [address for text in texts if (address := read_address(text)) is not None]
        # One private address among public ones is reason enough: an honest name has none.
        for address in addresses:
            if not self._may_reach(address, port):
                raise ToolError(
                    f"{_shown(host, port)} is {address}, which is not a public address. If it is "
                    f"meant to be reached, add '{_shown(str(address), port)}' to the tool's hosts."
                )
        return addresses

    def _may_reach(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        plain = address
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            plain = address.ipv4_mapped
        return is_public(plain) or self._permissions.allows_host(str(plain), port)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
