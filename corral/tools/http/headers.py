"""Header fields with `${NAME}` in them, which stands for an environment variable."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from corral.errors import ConfigError

__all__ = ["HeaderTemplates", "hidden"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# These say how the message is framed and where it goes; a tool that set them could contradict what
# was checked.
_OURS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")
_SHORTEST_SECRET = 6


class HeaderTemplates:
    """Header fields as they are written in a file."""

    def __init__(self, headers: Mapping[str, str], *, of: str) -> None:
        """Check the fields; `of` says whose they are, for messages.

        Raises:
            ConfigError: One can't be sent.
        """
        for name, text in headers.items():
            if not _TOKEN.match(name) or name.lower() in _OURS:
                raise ConfigError(f"The header {name!r} of {of} can't be set. Remove it.")
            if not text.isprintable() or not text.isascii():
                raise ConfigError(
                    f"The header {name!r} of {of} holds signs that a header can't. Use plain ASCII "
                    "on one line."
                )
        self._headers = dict(headers)
        self._of = of

    def filled(self) -> tuple[dict[str, str], list[str]]:
        """The fields as they are sent, and the values of the variables, which nobody is to see.

        Raises:
            ConfigError: A variable isn't set, or can't stand in a header.
        """
        secrets: list[str] = []

        def look_up(found: re.Match[str]) -> str:
            value = os.environ.get(found[1])
            if not value:
                raise ConfigError(
                    f"{self._of} needs the environment variable {found[1]!r}, which is not set. "
                    "Set it and start again."
                )
            if not value.isprintable() or not value.isascii():
                raise ConfigError(
                    f"The environment variable {found[1]!r} holds signs that can't stand in a "
                    f"header of {self._of}. Set it again."
                )
            secrets.append(value)
            return value

        return {name: _VARIABLE.sub(look_up, text) for name, text in self._headers.items()}, secrets


def hidden(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, which some servers send back."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[hidden]")
    return text
