"""`brave_search`: the web search that Llama 3.1 knows by training, on Brave's own API.

The API: `GET /res/v1/web/search?q=...` with the key in `X-Subscription-Token`; the results are at
`web.results`. What the model is shown has the form that Llama Stack gave it: the query, and under
`top_k` the first results with title, url and description.
"""

from __future__ import annotations

from html import unescape
from urllib.parse import urlencode

from pydantic import BaseModel, Field, JsonValue, ValidationError

from corral.errors import ToolError
from corral.messages import ToolSpec
from corral.tools.builtin.files import parameters
from corral.tools.builtin.service import ServiceTool
from corral.tools.http.fetch import Answer
from corral.tools.options import ToolOptions
from corral.tools.plain_text import plain, shortened
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["BraveSearch"]

_SPEC = ToolSpec(
    name="brave_search",
    description="Search the web.",
    parameters=parameters(
        ["query"],
        query={"type": "string", "minLength": 1, "description": "What to search for."},
    ),
)
_VARIABLE = "BRAVE_SEARCH_API_KEY"
_LONGEST = 500
_LONGEST_QUERY = 400
"""Brave refuses longer ones."""


class BraveSearch(ServiceTool):
    """`brave_search`, with the key from `BRAVE_SEARCH_API_KEY`."""

    service = "the Brave Search API"
    variable = _VARIABLE
    seconds = 20.0

    def __init__(
        self,
        *,
        results: int = 3,
        base_url: str = "https://api.search.brave.com",
        options: ToolOptions | None = None,
    ) -> None:
        """Show so many results.

        Args:
            results: How many, 1 to 20.
            base_url: Where the API is.
            options: How calls are run.
        """
        self._results = max(1, min(results, 20))
        super().__init__(_SPEC, base_url=base_url, options=options)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Search.

        Raises:
            ToolError: The service gave no results in time, or refused.
        """
        query = str(arguments["query"])[:_LONGEST_QUERY]
        asked = urlencode({"q": query, "count": self._results})
        headers = {"Accept": "application/json", "X-Subscription-Token": self._key()}
        answer = await self._get(f"/res/v1/web/search?{asked}", headers)
        found = _results(answer)[: self._results]
        return ToolOutput(content={"query": query, "top_k": [_reduced(each) for each in found]})


class _Result(BaseModel):
    title: str = ""
    url: str = ""
    description: str = ""


class _Web(BaseModel):
    results: list[_Result] = Field(default_factory=list[_Result])


class _Page(BaseModel):
    web: _Web | None = None


def _results(answer: Answer) -> list[_Result]:
    if answer.status != 200:
        raise ToolError(_refusal(answer))
    try:
        page = _Page.model_validate_json(answer.text)
    except ValidationError as error:
        raise ToolError("Brave's answer can't be read. Try again.") from error
    return page.web.results if page.web else []


def _refusal(answer: Answer) -> str:
    match answer.status:
        case 401 | 403 | 422 if "TOKEN" in answer.text.upper():
            return f"Brave refuses the key in {_VARIABLE}. Check it."
        case 429:
            return "Brave allows no more searches now. Wait a moment."
        case _:
            return f"Brave answered {answer.status} {answer.reason}. Try again later."


def _reduced(result: _Result) -> dict[str, JsonValue]:
    """A result as plain text; Brave marks the hits with HTML."""
    return {
        "title": _without_marks(result.title),
        "url": shortened(plain(result.url), _LONGEST),
        "description": _without_marks(result.description),
    }


def _without_marks(text: str) -> str:
    bare = text.replace("<strong>", "").replace("</strong>", "")
    return shortened(plain(unescape(bare)), _LONGEST)
