"""URLs with `{argument}` placeholders in the path and the query, and nowhere else.

What a placeholder stands for is percent-encoded whole, so it can neither end its part of the URL
nor begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import JsonValue

from corral.errors import ConfigError, ToolError
from corral.tools.template import Template, as_text, parse_template

__all__ = ["UrlTemplate"]

_URL = re.compile(r"(https?)://([^/?#\\@{}\s]+)(/[^?#\\\s]*)?(?:\?([^#\\\s]*))?\Z", re.I)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """A parsed template.

    Attributes:
        origin: Scheme, host and port, always literal.
        host: The host alone, in lower case, without brackets.
        port: The port.
        path: The path's segments.
        query: The query's pairs, name and value.
    """

    origin: str
    host: str
    port: int
    path: tuple[Template, ...]
    query: tuple[tuple[Template, Template | None], ...]

    @classmethod
    def parse(cls, text: str, *, tool: str, names: frozenset[str]) -> UrlTemplate:
        """Read a template.

        Args:
            text: Such as `https://api.example.com/cities/{city}?days={days}`.
            tool: The tool's name, for messages.
            names: The parameters that placeholders may name.

        Raises:
            ConfigError: It is no URL, or has placeholders where none may be.
        """
        where = f"the url of the tool {tool!r}"
        found = _URL.match(text)
        if found is None:
            raise ConfigError(
                f"{text!r}, {where}, can't be used. Write http:// or https://, a host without "
                "placeholders, a path and a query; no user name and no fragment."
            )
        scheme, authority, path, query = found.groups()
        host, port = _host_and_port(authority.lower(), where)
        pairs = query.split("&") if query else ()
        return cls(
            origin=f"{scheme.lower()}://{authority.lower()}",
            host=host,
            port=port or _PORTS[scheme.lower()],
            path=tuple(
                parse_template(part, where=where, names=names) for part in (path or "/").split("/")
            ),
            query=tuple(_pair(pair, where, names) for pair in pairs),
        )

    @property
    def names(self) -> frozenset[str]:
        """Every argument that it may use."""
        return self.path_names.union(
            *(part.names for pair in self.query for part in pair if part is not None)
        )

    @property
    def path_names(self) -> frozenset[str]:
        """The arguments that it can't do without."""
        return frozenset[str]().union(*(part.names for part in self.path))

    def fill(self, arguments: Mapping[str, JsonValue]) -> str:
        """The URL. A pair of the query whose argument isn't there is left out.

        A list in the query gives one pair for each item.

        Raises:
            ToolError: An argument is empty or made of dots, and would change which path is meant.
        """
        segments = [_segment(part, arguments) for part in self.path]
        pairs: list[str] = []
        for name, value in self.query:
            if name.lacks(arguments) or (value is not None and value.lacks(arguments)):
                continue
            written = name.fill(arguments, _encoded)
            if value is None:
                pairs.append(written)
                continue
            pairs.extend(f"{written}={each}" for each in _values(value, arguments))
        return f"{self.origin}{'/'.join(segments)}{'?' if pairs else ''}{'&'.join(pairs)}"


def _host_and_port(authority: str, where: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", authority)
    port = int(found[2]) if found and found[2] else None
    if found is None or port == 0 or (port or 0) > 65_535:
        raise ConfigError(f"{authority!r}, in {where}, is no host. Write it like api.example.com.")
    return found[1].strip("[]"), port


def _pair(pair: str, where: str, names: frozenset[str]) -> tuple[Template, Template | None]:
    name, equals, value = pair.partition("=")
    return (
        parse_template(name, where=where, names=names),
        parse_template(value, where=where, names=names) if equals else None,
    )


def _segment(part: Template, arguments: Mapping[str, JsonValue]) -> str:
    for name in part.names:
        if as_text(arguments[name]) == "":
            raise ToolError(f"{name} is empty. Give a value.")
    filled = part.fill(arguments, _encoded)
    if part.names and filled in (".", ".."):
        raise ToolError(f"{filled!r} can't be a part of the address. Give another value.")
    return filled


def _values(part: Template, arguments: Mapping[str, JsonValue]) -> Sequence[str]:
    value = arguments.get(part.alone or "")
    if part.alone and isinstance(value, list):
        return [_encoded(each) for each in value]
    return [part.fill(arguments, _encoded)]


def _encoded(value: JsonValue) -> str:
    return quote(as_text(value), safe="")
