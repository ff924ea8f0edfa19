"""Seeing, before a model is offered a tool, that the tool may reach its host at all."""

from __future__ import annotations

from urllib.parse import urlsplit

from corral.errors import ConfigError
from corral.tools.sandbox import Permissions

__all__ = ["require_host"]

_PORTS = {"http": 80, "https": 443}


def require_host(permissions: Permissions, url: str, *, tool: str) -> None:
    """See that a tool's permissions let it reach the host of its URL.

    Raises:
        ConfigError: They don't: the agent's ceiling has taken the host away, or its own list lacks
            it.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    if not permissions.allows_host(host, port):
        raise ConfigError(
            f"The tool {tool!r} goes to {host}:{port}, which its hosts or the agent's permissions "
            "don't allow. Add it under hosts: or network: there, or take the tool out."
        )
