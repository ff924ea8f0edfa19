"""What the tools that ask a service on the web with the user's own key have in common."""

from __future__ import annotations

import os
from typing import ClassVar
from urllib.parse import urlsplit

from corral.errors import ConfigError
from corral.messages import ToolSpec
from corral.tools.configured import ConfiguredTool
from corral.tools.http.fetch import Answer, Request, fetch
from corral.tools.http.hosts import require_host
from corral.tools.options import ToolOptions
from corral.tools.sandbox import Permissions

__all__ = ["ServiceTool"]

_MOST_BYTES = 4 << 20


class ServiceTool(ConfiguredTool):
    """A tool that may reach one service, and nothing else, with a key from the environment.

    Attributes:
        service: What the service is called.
        variable: The environment variable that holds the key.
        seconds: How long a call may take where its options say nothing.
    """

    service: ClassVar[str]
    variable: ClassVar[str]
    seconds: ClassVar[float]

    def __init__(self, spec: ToolSpec, *, base_url: str, options: ToolOptions | None) -> None:
        """Ask the service whose API is at `base_url`."""
        self._base_url = base_url.rstrip("/")
        host = urlsplit(self._base_url).netloc
        super().__init__(spec, permissions=Permissions(network=(host,)), options=options)

    async def ready(self) -> None:
        """See that there is a key, and that the service may be reached.

        Raises:
            ConfigError: One of them isn't so; the message says what to do.
        """
        require_host(self._permissions, self._base_url, tool=self._spec.name)
        self._key()

    def _key(self) -> str:
        key = os.environ.get(self.variable, "").strip()
        if not key:
            raise ConfigError(
                f"The tool {self._spec.name!r} needs a key of {self.service} in the environment "
                f"variable {self.variable}. Get one there and set it, or take the tool out of the "
                "agent."
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigError(
                f"The environment variable {self.variable} holds no key. Set it again."
            )
        return key

    async def _get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """What the service answers to a GET of `path`.

        Raises:
            ToolError: It didn't in time.
        """
        request = Request(
            method="GET",
            url=f"{self._base_url}{path}",
            headers=headers or {},
            max_bytes=_MOST_BYTES,
        )
        seconds = self.options.timeout or self.seconds
        return await fetch(request, permissions=self._permissions, seconds=seconds)
