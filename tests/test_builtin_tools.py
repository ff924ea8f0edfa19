"""The built-in tools that ask services on the web, against servers that speak as those do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from web_server import Reply, Seen, Web, web_server

from corral import Agent, ConfigError, ToolError
from corral.tools.builtin import BraveSearch, WolframAlpha, now
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext

CALL = ToolContext(session="s", turn_id="t", call_id="c")
KEY = "brave-key-123"
APPID = "APPID-123"


def brave(seen: Seen) -> Reply:
    """Brave's web search, as far as a client can tell: keys, parameters, shapes, errors."""
    asked = parse_qs(urlsplit(seen.target).query)
    if seen.headers.get("x-subscription-token") != KEY:
        error = {"code": "SUBSCRIPTION_TOKEN_INVALID", "status": 422}
        return Reply(422, json.dumps({"type": "ErrorResponse", "error": error}).encode())
    match asked["q"][0]:
        case "nothing":
            return Reply(body=b'{"type": "search", "query": {"original": "nothing"}}')
        case "busy":
            return Reply(429, b'{"type": "ErrorResponse", "error": {"code": "RATE_LIMITED"}}')
        case "broken":
            return Reply(body=b'{"web": {"results": [3')
    results = [
        {
            "type": "search_result",
            "title": f"Result {i} &amp; more",
            "url": f"https://example.com/{i}",
            "description": f"About <strong>{asked['q'][0]}</strong>, number {i}",
            "page_age": "2026-01-01T00:00:00",
            "extra_snippets": ["long text"],
        }
        for i in range(int(asked["count"][0]) + 2)
    ]
    answer = {"type": "search", "query": {"original": asked["q"][0]}, "web": {"results": results}}
    return Reply(body=json.dumps(answer).encode())


def wolfram(seen: Seen) -> Reply:
    """WolframAlpha's full results, as far as a client can tell."""
    asked = {key: value[0] for key, value in parse_qs(urlsplit(seen.target).query).items()}
    assert (asked["output"], asked["format"]) == ("json", "plaintext")
    if asked["appid"] != APPID:
        error = {"success": False, "error": {"code": "1", "msg": "Invalid appid"}}
        return Reply(body=json.dumps({"queryresult": error}).encode())
    if asked["input"] == "gibberish":
        return Reply(body=b'{"queryresult": {"success": false, "error": false, "numpods": 0}}')
    pods = [
        {"title": "Input", "id": "Input", "subpods": [{"title": "", "plaintext": "2 + 3"}]},
        {"title": "Result", "primary": True, "subpods": [{"title": "", "plaintext": "5"}]},
        {"title": "Plot", "subpods": [{"title": "", "plaintext": ""}]},
    ]
    result = {"success": True, "error": False, "inputstring": asked["input"], "pods": pods}
    return Reply(body=json.dumps({"queryresult": result}).encode())


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("BRAVE_SEARCH_API_KEY", KEY)
    monkeypatch.setenv("WOLFRAM_ALPHA_APPID", APPID)
    with web_server() as server:
        server.replies = {"/res/v1/web/search": brave, "/v2/query": wolfram}
        yield server


async def ask(tool, query: str):
    await tool.ready()
    return (await tool.call({"query": query}, CALL)).content


async def test_brave_search_gives_title_url_and_description(web: Web):
    found = await ask(BraveSearch(base_url=web.url), "gold price?")
    assert found["query"] == "gold price?" and len(found["top_k"]) == 3
    assert found["top_k"][0] == {
        "title": "Result 0 & more",
        "url": "https://example.com/0",
        "description": "About gold price?, number 0",
    }
    assert len((await ask(BraveSearch(base_url=web.url, results=1), "x"))["top_k"]) == 1
    assert (await ask(BraveSearch(base_url=web.url), "nothing"))["top_k"] == []


async def test_wolfram_alpha_gives_the_texts_of_its_pods(web: Web):
    found = await ask(WolframAlpha(base_url=web.url), "2 + 3")
    pods = [{"title": "Input", "text": "2 + 3"}, {"title": "Result", "text": "5"}]
    assert found == {"query": "2 + 3", "pods": pods}
    with pytest.raises(ToolError, match="not understand"):
        await ask(WolframAlpha(base_url=web.url), "gibberish")


async def test_a_service_that_refuses_says_why_without_the_key(web: Web, monkeypatch):
    search = BraveSearch(base_url=web.url)
    with pytest.raises(ToolError, match="no more searches"):
        await ask(search, "busy")
    with pytest.raises(ToolError, match="can't be read"):
        await ask(search, "broken")
    monkeypatch.setenv("BRAVE_SEARCH_API_KEY", "wrong-key-99")
    monkeypatch.setenv("WOLFRAM_ALPHA_APPID", "wrong-id-99")
    for tool in (search, WolframAlpha(base_url=web.url)):
        with pytest.raises(ToolError, match="refuses") as caught:
            await ask(tool, "x")
        assert "-99" not in str(caught.value)


@pytest.mark.parametrize(
    ("tool", "variable"),
    [("brave_search", "BRAVE_SEARCH_API_KEY"), ("wolfram_alpha", "WOLFRAM_ALPHA_APPID")],
)
async def test_without_a_key_the_agent_says_so_when_it_is_opened(
    tool: str, variable: str, tmp_path, monkeypatch
):
    monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "agent.yaml"
    path.write_text(f"model: cria\nshields: none\nmemory: temporary\ntools: [{tool}]\n")
    agent = Agent.from_file(path)
    with pytest.raises(ConfigError, match=variable):
        await agent.open()


async def test_a_ceiling_without_the_service_is_said_when_the_agent_is_opened(web: Web):
    for tool in (BraveSearch(), WolframAlpha()):
        await tool.ready()
        with pytest.raises(ConfigError, match="the agent's permissions"):
            await tool.narrowed(Permissions()).ready()


async def test_now_tells_the_time_of_a_place():
    told = (await now.call({"time_zone": "Asia/Tokyo"}, CALL)).content
    assert told["utc_offset"] == "+0900" and told["time_zone"] == "Asia/Tokyo"
    here = (await now.call({}, CALL)).content
    read = datetime.datetime.fromisoformat(f"{here['date']}T{here['time']}{here['utc_offset']}")
    assert abs(datetime.datetime.now(datetime.UTC) - read) < datetime.timedelta(minutes=5)
    for zone in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b"):
        with pytest.raises(ToolError, match="no time zone"):
            await now.call({"time_zone": zone}, CALL)
