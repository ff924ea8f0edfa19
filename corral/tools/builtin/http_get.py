"""`http_get`: what stands at a web address, on the hosts that were granted."""

from __future__ import annotations

from html.parser import HTMLParser

from pydantic import JsonValue

from corral.errors import ConfigError, ToolError
from corral.messages import ToolSpec
from corral.tools.builtin.files import parameters
from corral.tools.configured import ConfiguredTool
from corral.tools.http.fetch import Request, fetch
from corral.tools.options import ToolOptions
from corral.tools.plain_text import plain, shortened
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["HttpGet"]

_SPEC = ToolSpec(
    name="http_get",
    description="Read a page of the web.",
    parameters=parameters(
        ["url"], url={"type": "string", "description": "The address, with https:// in front."}
    ),
)
_LARGEST_PAGE = 2 << 20
_LONGEST_TEXT = 32 << 10
_SECONDS = 20.0
_SILENT = ("script", "style", "template", "noscript", "svg", "head")
_BLOCKS = ("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article")


class HttpGet(ConfiguredTool):
    """`http_get`: reads pages as text; of HTML, what a reader would see."""

    def __init__(self, *hosts: str, options: ToolOptions | None = None) -> None:
        """Grant the hosts, as in `Permissions.network`; redirects too go nowhere else.

        An address that isn't public is reached only if it is itself among them.

        Raises:
            ConfigError: One is no host.
        """
        super().__init__(_SPEC, permissions=Permissions(network=hosts), options=options)

    async def ready(self) -> None:
        """See that there is a host to reach.

        Raises:
            ConfigError: There is none.
        """
        if not self._permissions.network:
            raise ConfigError("The tool 'http_get' may reach no host. Name some under hosts:.")

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Get the page.

        Raises:
            ToolError: It can't be had, or is no text.
        """
        url = str(arguments["url"])
        if not url.lower().startswith(("https://", "http://")):
            raise ToolError("The address must begin with https:// or http://.")
        answer = await fetch(
            Request(method="GET", url=url, max_bytes=_LARGEST_PAGE),
            permissions=self._permissions,
            seconds=self.options.timeout or _SECONDS,
        )
        if not 200 <= answer.status < 300:
            raise ToolError(f"The server answered {answer.status} {answer.reason}.")
        if answer.media_type in ("text/html", "application/xhtml+xml"):
            text = _readable(answer.text)
        elif answer.media_type.startswith("text/") or answer.media_type.endswith(("json", "xml")):
            text = answer.text
        else:
            raise ToolError(f"{answer.url} is {answer.media_type!r}, which is not text.")
        return ToolOutput(content=shortened(plain(text), _LONGEST_TEXT))


class _Reader(HTMLParser):
    """Keeps the text that a page shows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line at a block, and fall silent where nothing is shown."""
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End what began."""
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if not self._silent:
            self.pieces.append(data)


def _readable(page: str) -> str:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split("\n"))
    return "\n".join(line for line in lines if line)
