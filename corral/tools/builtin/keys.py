"""The keys of services on the web, from the environment."""

from __future__ import annotations

import os

from corral.errors import ConfigError

__all__ = ["service_key"]


def service_key(tool: str, variable: str, *, service: str) -> str:
    """The key in an environment variable.

    Raises:
        ConfigError: It isn't set, or is no key.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"The tool {tool!r} needs a key of {service} in the environment variable {variable}. "
            "Get one there and set it, or take the tool out of the agent."
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"The environment variable {variable} holds no key. Set it again.")
    return key
