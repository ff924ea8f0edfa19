"""How a server may be reached and how much it takes on."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from corral.errors import ConfigError

__all__ = ["MIN_KEY", "ClientKey", "ServerSettings", "is_loopback", "keys_from_environment"]

MIN_KEY = 16
"""The shortest key, in characters, that is taken for a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A key that clients send as `Authorization: Bearer ...`.

    `name` is the environment variable that it was read from; it tells clients apart.
    """

    name: str
    secret: str

    def __repr__(self) -> str:
        """The name alone: a secret belongs in no log."""
        return f"ClientKey(name={self.name!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where a server listens, who may use it, and its bounds. Times are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    port: int = 11435
    """0 takes any free port."""
    keys: tuple[ClientKey, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names besides this machine's own under which clients may address the server."""
    origins: tuple[str, ...] = ()
    """Web pages' origins, such as `https://chat.example.org`, that may call the server."""
    sessions_only: bool = False
    """Refuse turns without a session, so that every turn is kept in the agent's memory."""
    turns: int = 16
    """Generations that run at once; more wait in line."""
    requests: int = 256
    """Requests being answered or waiting, of all clients together."""
    client_requests: int = 128
    """The same for one client: one key, or without keys one address."""
    body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 30.0
    """How long a request's body may take to arrive."""
    request_seconds: float = 600.0
    send_seconds: float = 30.0
    """How long a client may leave what it was sent unread before it is dropped."""
    ping_seconds: float = 15.0
    """Silence in an event stream after which a comment is sent, so that proxies keep it open."""
    grace_seconds: float = 10.0
    """How long running requests may go on once the server is told to stop."""

    def __post_init__(self) -> None:
        """See that the settings can be used, and that no server is open to strangers.

        Raises:
            ConfigError: They can't, or the address is not loopback and there is no key.
        """
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"The port {self.port!r} is no port. Give a number from 0 to 65535.")
        for name in (
            "turns",
            "requests",
            "client_requests",
            "body_bytes",
            "body_seconds",
            "request_seconds",
            "send_seconds",
            "ping_seconds",
        ):
            if not getattr(self, name) > 0:
                value = getattr(self, name)
                raise ConfigError(f"The setting {name!r} is {value!r}. Give a number above 0.")
        for origin in self.origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ConfigError(
                    f"{origin!r} is no origin. Write scheme, host and port alone, such as "
                    "https://chat.example.org"
                )
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(
                f"On {self.host!r} other machines can reach the server, so it needs a key. Put one "
                "into an environment variable and name it: --key-env NAME"
            )

    @property
    def separate_clients(self) -> bool:
        """Whether each client has sessions of its own: there are several keys."""
        return len(self.keys) > 1


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def keys_from_environment(names: Sequence[str]) -> tuple[ClientKey, ...]:
    """The keys that are in these environment variables.

    Raises:
        ConfigError: One is not set, too short to be a secret, or the same as another.
    """
    keys: list[ClientKey] = []
    for name in names:
        secret = os.environ.get(name, "").strip()
        if len(secret) < MIN_KEY or not secret.isascii() or " " in secret:
            raise ConfigError(
                f"The environment variable {name!r} holds no key of {MIN_KEY} or more ASCII "
                f"characters. Make one: export {name}=$(openssl rand -hex 32)"
            )
        if any(secret == key.secret for key in keys):
            raise ConfigError(f"{name!r} holds the same key as another. Give each client its own.")
        keys.append(ClientKey(name=name, secret=secret))
    return tuple(keys)
