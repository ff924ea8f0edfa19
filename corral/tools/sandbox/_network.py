"""Lists of hosts that may be reached: how one entry is written, and what two lists share.

An entry is a name or an address, with a port or without: `api.example.com`, `*.example.com:443`,
`127.0.0.1:8080`, `[::1]`. Without a port, every port; `*.` in front stands for one label or more.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from corral.errors import ConfigError

__all__ = ["Host", "allows", "parsed", "shared"]

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_REMEDY = "Write a host as 'api.example.com', '*.example.com', '127.0.0.1:8080' or '[::1]:80'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One entry of a list: `name` in lower case, all names below it if `below`, one port or any."""

    name: str
    below: bool = False
    port: int | None = None

    def __str__(self) -> str:
        """The entry as it is written, in its one normal form."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{'*.' * self.below}{name}{'' if self.port is None else f':{self.port}'}"

    def _names(self, other: Host) -> bool:
        """Whether every name that `other` stands for is one of ours."""
        if self.below:
            return other.name.endswith(f".{self.name}") or (other.below and other.name == self.name)
        return not other.below and other.name == self.name

    def meet(self, other: Host) -> Host | None:
        """What both stand for, or None if that is nothing."""
        inner = other if self._names(other) else self if other._names(self) else None
        ports = {port for port in (self.port, other.port) if port is not None}
        if inner is None or len(ports) > 1:
            return None
        return Host(name=inner.name, below=inner.below, port=next(iter(ports), None))


def parsed(text: str) -> Host:
    """Read one entry.

    Raises:
        ConfigError: If it isn't one.
    """
    rest, port = _split(text)
    below = rest.startswith("*.")
    name = rest.removeprefix("*.").removesuffix(".").lower()
    address = _address(name)
    if address:
        if not below:
            return Host(name=address, port=port)
    elif _is_name(name):
        return Host(name=name, below=below, port=port)
    raise ConfigError(f"Permission network names {text!r}, which is no host. {_REMEDY}")


def _split(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text)
    plain = bracketed or re.fullmatch(r"([^:\[\]]+)(?::([0-9]{1,5}))?", text)
    port = int(plain[2]) if plain and plain[2] else None
    if plain is None or port == 0 or (port or 0) > 65_535 or (bracketed and ":" not in plain[1]):
        raise ConfigError(f"Permission network names {text!r}, which is no host. {_REMEDY}")
    return plain[1], port


def _address(name: str) -> str | None:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None


def _is_name(name: str) -> bool:
    labels = name.split(".")
    # A name that ends in a number is an address to some resolvers: `127.1`, `0x7f000001`.
    number = re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1])
    return len(name) <= 253 and not number and all(_LABEL.match(label) for label in labels)


def allows(entries: tuple[str, ...], host: str, port: int) -> bool:
    """Whether a list lets `port` of `host` be reached; what can't be read is refused."""
    bare = host.strip("[]")
    try:
        wanted = parsed(f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}")
    except ConfigError:
        return False
    if wanted.below:
        return False
    return any(parsed(entry).meet(wanted) == wanted for entry in entries)


def shared(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    """The entries that stand for what is in both lists."""
    met = (parsed(one).meet(parsed(other)) for one in ours for other in theirs)
    return tuple(dict.fromkeys(str(host) for host in met if host))
