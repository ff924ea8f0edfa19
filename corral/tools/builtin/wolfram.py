"""`wolfram_alpha`: the calculator that Llama 3.1 knows by training, on WolframAlpha's own API.

The API: `GET /v2/query?input=...&appid=...&output=json&format=plaintext`; the answer's
`queryresult` holds pods, each with subpods of text. What the model is shown has the form that Llama
Stack gave it: the query as it was understood, and the pods with their titles and texts.
"""

from __future__ import annotations

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

__all__ = ["WolframAlpha"]

_SPEC = ToolSpec(
    name="wolfram_alpha",
    description="Compute, or look up facts of science, with WolframAlpha.",
    parameters=parameters(
        ["query"],
        query={"type": "string", "minLength": 1, "description": "The question, in English."},
    ),
)
_VARIABLE = "WOLFRAM_ALPHA_APPID"
_LONGEST = 1000
_MOST_PODS = 8


class WolframAlpha(ServiceTool):
    """`wolfram_alpha`, with the AppID from `WOLFRAM_ALPHA_APPID`."""

    service = "WolframAlpha"
    variable = _VARIABLE
    seconds = 30.0

    def __init__(
        self,
        *,
        base_url: str = "https://api.wolframalpha.com",
        options: ToolOptions | None = None,
    ) -> None:
        """Ask the API at `base_url`."""
        super().__init__(_SPEC, base_url=base_url, options=options)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Ask.

        Raises:
            ToolError: The service gave no answer in time, refused, or did not understand.
        """
        asked = urlencode(
            {
                "input": str(arguments["query"]),
                "appid": self._key(),
                "format": "plaintext",
                "output": "json",
            }
        )
        return ToolOutput(content=_reduced(_result(await self._get(f"/v2/query?{asked}"))))


class _Subpod(BaseModel):
    plaintext: str | None = None


class _Pod(BaseModel):
    title: str = ""
    subpods: list[_Subpod] = Field(default_factory=list[_Subpod])


class _QueryResult(BaseModel):
    success: bool = False
    inputstring: str = ""
    pods: list[_Pod] = Field(default_factory=list[_Pod])


class _Page(BaseModel):
    queryresult: _QueryResult


def _result(answer: Answer) -> _QueryResult:
    if answer.status == 403 or "invalid appid" in answer.text.lower():
        raise ToolError(f"WolframAlpha refuses the AppID in {_VARIABLE}. Check it.")
    if answer.status != 200:
        raise ToolError(f"WolframAlpha answered {answer.status} {answer.reason}. Try again later.")
    try:
        return _Page.model_validate_json(answer.text).queryresult
    except ValidationError as error:
        raise ToolError("WolframAlpha's answer can't be read. Try again.") from error


def _reduced(result: _QueryResult) -> JsonValue:
    """The texts of the pods, in the service's order, without those that are only pictures."""
    pods: list[JsonValue] = []
    for pod in result.pods:
        texts = [
            shortened(plain(each.plaintext), _LONGEST) for each in pod.subpods if each.plaintext
        ]
        if texts and len(pods) < _MOST_PODS:
            pods.append({"title": pod.title, "text": "\n".join(texts)})
    if not result.success or not pods:
        raise ToolError("WolframAlpha did not understand the question. Put it another way.")
    return {"query": result.inputstring, "pods": pods}
