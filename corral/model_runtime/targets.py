"""What a model string says of a server: `NAME[@URL][?KEY=VALUE&...]`.

For example `llama3.2:3b`, or `llama3.2:3b@http://gpu:11434?num_ctx=16384`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import parse_qsl, urlsplit

from corral.errors import ConfigError

__all__ = ["Target", "parse_target"]

_TIME = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model of a server: its name there, where the server is if that is said, and options."""

    name: str
    url: str | None
    options: Mapping[str, str]

    def number(self, key: str) -> int | None:
        """An option that is a whole number above zero.

        Raises:
            ConfigError: It is something else.
        """
        value = self.options.get(key)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise ConfigError(
                f"In the model string, {key} is {value!r}. Give a whole number above zero."
            )
        return int(value)

    def seconds(self, key: str) -> float | None:
        """An option that is a time, such as `30s`, `10m` or `2h`, in seconds.

        Raises:
            ConfigError: It is something else.
        """
        value = self.options.get(key)
        if value is None:
            return None
        match = _TIME.fullmatch(value)
        if match is None:
            raise ConfigError(
                f"In the model string, {key} is {value!r}. Write a time such as 30s, 10m or 2h."
            )
        return float(match[1]) * _SECONDS[match[2]]


def parse_target(text: str, *, options: Collection[str], addressed: bool = True) -> Target:
    """Read the part of a model string behind its scheme; `options` are the keys that it may have.

    What is not `addressed` has no URL: an `@` in its name is one of the name.

    Raises:
        ConfigError: It has no name, another option, or a URL that can't be one.
    """
    rest, _, query = text.partition("?")
    name, at, url = rest.partition("@") if addressed else (rest, "", "")
    if not name:
        raise ConfigError(f"The model string ends in {text!r}, which names no model.")
    if at:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{url!r} is no server's address. Write one such as http://127.0.0.1:8000"
            )
        if parts.username or parts.password:
            raise ConfigError(
                "A model string is written into logs, so it may hold no password. Put the key into "
                "the environment."
            )
    found = dict(parse_qsl(query, keep_blank_values=True))
    for key in found:
        if key not in options:
            near = get_close_matches(key, options, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"A model string has no option {key!r} here.{hint} There are: "
                f"{', '.join(sorted(options))}."
            )
    return Target(name=name, url=url if at else None, options=found)
