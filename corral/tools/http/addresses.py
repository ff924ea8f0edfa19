"""Which addresses are the public internet's, and which belong to this machine or its networks.

A name is no protection: anyone may point theirs at 127.0.0.1, or at the address where a cloud hands
out credentials. So it is the resolved address that is judged. The special ranges are those of
IANA's registries (RFC 6890 and what amends it); an IPv6 address that carries an IPv4 address inside
is judged by that one, or refused.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_network,
)

__all__ = ["is_public", "read_address"]

_SPECIAL_4 = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # Not special by the registry, but answered inside every virtual machine on Azure.
        "168.63.129.16/32",
    )
)
_GLOBAL_6 = ip_network("2000::/3")
_SPECIAL_6 = tuple(
    ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = ip_network("64:ff9b::/96")


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address in its usual spelling, with or without brackets and zone; None for anything else.

    Spellings that only some resolvers take, such as `127.1` or `0x7f000001`, are names here. They
    are judged by the address that they turn out to stand for.
    """
    try:
        return ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address lies in the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)
