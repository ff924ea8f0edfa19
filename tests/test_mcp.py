"""Tools of MCP servers in an agent, and an agent's tools for MCP clients."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from processes import gone

from corral import Agent, ConfigError, RuntimeUnavailable, ToolError, TurnResult
from corral.messages import Attachment
from corral.testing import ScriptedRuntime
from corral.tools.mcp import MCPServer
from corral.tools.source import ToolSource
from corral.tools.tool import Tool, ToolContext

pytest.importorskip("mcp")

HERE = Path(__file__).parent
SERVER = [sys.executable, str(HERE / "mcp_server.py")]
PLAIN = [sys.executable, str(HERE / "mcp_plain.py")]
CALL = ToolContext(session="s", turn_id="t", call_id="c")


@asynccontextmanager
async def connected(server: MCPServer) -> AsyncIterator[dict[str, Tool]]:
    try:
        yield {tool.spec.name: tool for tool in await server.tools()}
    finally:
        await server.aclose()


async def called(tool: Tool, **arguments):
    return (await tool.call(arguments, CALL)).content


async def test_a_servers_tools_are_offered_and_called():
    server = MCPServer(command=SERVER, leave_out=["say"], needs_approval=["pid"])
    assert isinstance(server, ToolSource)
    async with connected(server) as tools:
        assert "say" not in tools and "get_weather_today" in tools
        add = tools["add"].spec
        assert add.description == "Add two numbers."
        assert add.parameters == {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 10}},
            "required": ["a"],
        }
        assert await called(tools["add"], a=1) == {"result": 11}
        weather = {"city": "Oslo", "degrees": 21.5}
        assert await called(tools["get_weather_today"], city="Oslo") == weather
        output = await tools["picture"].call({}, CALL)
        picture = Attachment(name="picture-1.png", media_type="image/png", data="iVBORyBwaWN0dXJl")
        assert output.attachments == (picture,) and output.content == "[Files: picture-1.png]"
        failed = await tools["fail"].call({"why": "no \x1b[2Jluck"}, CALL)
        assert failed.is_error and failed.content.endswith("no luck")
        assert (await tools["add"].call({"a": "x"}, CALL)).is_error
        assert [n for n, t in tools.items() if t.options.needs_approval] == ["pid"]


async def test_a_server_gets_few_variables_and_the_named_ones(monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "sesame")
    monkeypatch.setenv("OTHER_KEY", "secret")
    server = MCPServer(command=PLAIN, env=["SHOP_KEY"], only=["environment"], prefix="my_")
    async with connected(server) as tools:
        names = (await called(tools["my_environment"])).split()
        assert "SHOP_KEY" in names and "PATH" in names and "OTHER_KEY" not in names
    missing = MCPServer(command=PLAIN, env=["NO_SUCH_KEY"])
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        await missing.tools()


async def test_a_server_that_dies_costs_one_call():
    async with connected(MCPServer(command=PLAIN)) as tools:
        first = await called(tools["pid"])
        child = await called(tools["start_child"])
        with pytest.raises(ToolError, match="ended, saying: all is lost"):
            await called(tools["die"])
        second = await called(tools["pid"])
        assert first != second
        assert gone(int(child))
        os.kill(int(second), 9)
        assert gone(int(second))
        third = await called(tools["pid"])
        assert third != second
    assert gone(int(third))


async def test_a_slow_tool_costs_its_call_and_a_hanging_server_is_started_anew():
    async with connected(MCPServer(command=PLAIN, timeout=1)) as tools:
        first = await called(tools["pid"])
        with pytest.raises(ToolError, match="no answer in 1 seconds"):
            await called(tools["slow"])
        assert await called(tools["pid"]) == first
        with pytest.raises(ToolError, match="started or called anew"):
            await called(tools["freeze"])
        assert await called(tools["pid"]) != first
        assert gone(int(first))


async def test_a_call_that_is_cancelled_leaves_the_server_usable():
    async with connected(MCPServer(command=PLAIN)) as tools:
        first = await called(tools["pid"])
        with anyio.move_on_after(0.5) as scope:
            await called(tools["slow"])
        assert scope.cancelled_caught
        assert await called(tools["pid"]) == first


@pytest.mark.parametrize("tool", ["line", "lines"])
async def test_a_server_that_floods_is_ended(tool: str):
    async with connected(MCPServer(command=PLAIN, timeout=60)) as tools:
        assert len(tools[tool].spec.description) <= 1000
        with pytest.raises(ToolError, match="sent more than it may"):
            await called(tools[tool])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "https://example.com/x"}}}, "refer to"),
        ({"type": "object", "properties": {"a": {"type": "strong"}}}, "no JSON Schema"),
        ({"type": "object", "properties": {"a": {"enum": ["x" * 50_000]}}}, "bytes"),
        ({"type": "object", "properties": "none"}, "wrong answer"),
    ],
)
async def test_a_schema_that_can_not_be_trusted_is_not_offered(schema, said: str):
    server = MCPServer(command=[*PLAIN, json.dumps(schema)])
    with pytest.raises((ConfigError, RuntimeUnavailable), match=said) as caught:
        await server.tools()
    assert "except: ['line']" in str(caught.value) or said == "wrong answer"


async def test_a_servers_regular_expressions_are_not_run_here():
    slow = {"type": "string", "pattern": "^(a+)+$", "title": "A", "description": "d\x1b[1m" * 500}
    schema = {"type": "object", "properties": {"pattern": slow}}
    async with connected(MCPServer(command=[*PLAIN, json.dumps(schema)])) as tools:
        [(name, kept)] = tools["line"].spec.parameters["properties"].items()
        assert name == "pattern" and set(kept) == {"type", "description"}
        assert len(kept["description"]) <= 300 and "\x1b" not in kept["description"]


async def test_results_are_taken_as_they_are_and_not_by_the_servers_word():
    async with connected(MCPServer(command=PLAIN, timeout=30)) as tools:
        assert await called(tools["evil"]) == {"x": "a" * 60 + "!"}
        with pytest.raises(ToolError, match="wrong answer"):
            await called(tools["junk"])


async def test_what_can_not_be_reached_or_found_says_so():
    with pytest.raises(RuntimeUnavailable, match="can't be started"):
        await MCPServer(command=["no-such-program-here"]).tools()
    with pytest.raises(RuntimeUnavailable, match="It said: .*boom"):
        await MCPServer(command=[sys.executable, "-c", "raise SystemExit('boom')"]).tools()
    with pytest.raises(RuntimeUnavailable, match=r"127\.0\.0\.1:9.*Check its url"):
        await MCPServer(url="http://127.0.0.1:9/mcp").tools()
    with pytest.raises(ConfigError, match="Did you mean 'pid'"):
        await MCPServer(command=PLAIN, only=["pad"]).tools()
    with pytest.raises(ConfigError, match="needs_approval names 'ad'"):
        await MCPServer(command=PLAIN, needs_approval=["ad"]).tools()


def test_without_the_package_one_line_names_the_remedy():
    code = (
        "import sys, anyio\n"
        "sys.modules['mcp'] = None\n"
        "from corral import ConfigError\n"
        "from corral.tools.mcp import MCPServer\n"
        "try: anyio.run(MCPServer(command=['x']).tools)\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'llama-corral[mcp]'" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_loading_corral_and_describing_a_server_loads_no_mcp():
    code = (
        "import sys, corral, corral.cli, corral.agents.spec\n"
        "from corral.tools.mcp import MCPServer\n"
        "MCPServer(command=['x'])\n"
        "print([m for m in ('mcp', 'httpx', 'httpx2', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def an_agent(*script: str) -> Agent:
    server = MCPServer(command=PLAIN, only=["pid"])
    return Agent(model=ScriptedRuntime(script), tools=[server], shields="none", memory="temporary")


def results(result: TurnResult) -> list[int]:
    return [int(str(e.result.content)) for e in result.events if e.kind == "call_finished"]


async def test_an_agent_opens_in_one_task_and_closes_in_another():
    agent = an_agent("[pid()]", "done")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.open)
    result = await agent.run("Which process are you?")
    assert result.text == "done"
    [pid] = results(result)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.aclose)
    assert gone(pid)


def test_an_agent_may_be_used_from_several_event_loops():
    agent = an_agent("[pid()]", "one", "[pid()]", "two")
    pids = [pid for _ in range(2) for pid in results(agent.run_sync("Which process are you?"))]
    assert len(pids) == 2 and pids[0] == pids[1]
    anyio.run(agent.aclose)
    assert gone(pids[0])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, **env}, **quiet)


@asynccontextmanager
async def running(command: list[str], port: int, **env: str) -> AsyncIterator[None]:
    process = start(command, env)
    try:
        with anyio.fail_after(60):
            while True:
                try:
                    async with await anyio.connect_tcp("127.0.0.1", port):
                        break
                except OSError:
                    assert process.poll() is None
                    await anyio.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


async def test_a_server_at_a_url_is_used_and_found_again():
    port = free_port()
    server = MCPServer(url=f"http://127.0.0.1:{port}/mcp", only=["add", "pid"], timeout=10)
    async with running([*SERVER, "http", str(port)], port):
        tools = {tool.spec.name: tool for tool in await server.tools()}
        assert await called(tools["add"], a=1, b=2) == {"result": 3}
        first = await called(tools["pid"])
    with pytest.raises(ToolError):
        await called(tools["pid"])
    async with running([*SERVER, "http", str(port)], port):
        assert await called(tools["pid"]) != first
        await server.aclose()


@pytest.fixture
def agent_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        (folder / "notes").mkdir()
        (folder / "notes" / "a.txt").write_text("hello")
        path = folder / "agent.yaml"
        path.write_text(
            "name: offer\nmodel: cria\nshields: none\ntools:\n"
            "  - read_file: notes\n"
            "  - write_file: {folders: [notes], needs_approval: true}\n"
            "  - code_interpreter\n"
            "  - name: count\n"
            "    description: Count words.\n"
            "    parameters: {properties: {text: {type: string}}, required: [text]}\n"
            "    command: [wc, -w]\n"
            "    stdin: '{text}'\n"
            "  - name: loud\n"
            "    description: Print to the wire.\n"
            "    command: [sleep, '60']\n"
            "    timeout: 0.5\n"
        )
        yield path


def serving(agent: Path, *options: str) -> list[str]:
    code = "from corral.cli import main; main()"
    return [sys.executable, "-c", code, "mcp", "serve", str(agent), *options]


async def test_an_agents_tools_are_offered_to_the_official_client(agent_file: Path):
    from mcp import Client, StdioServerParameters

    command, *args = serving(agent_file)
    env = {k: v for k, v in os.environ.items() if k.startswith(("CORRAL", "PYTHON"))}
    with anyio.fail_after(120):
        async with Client(StdioServerParameters(command=command, args=args, env=env)) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(listed) == ["read_file", "code_interpreter", "count", "loud"]
            assert listed["read_file"].input_schema["required"] == ["path"]

            async def call(name: str, **arguments) -> tuple[str, bool]:
                result = await client.call_tool(name, arguments)
                return result.content[0].text, result.is_error

            assert await call("read_file", path="a.txt") == ("hello", False)
            assert await call("count", text="a b c") == ("3", False)
            assert await call("code_interpreter", code="print(6 * 7)") == ("42", False)
            text, failed = await call("read_file", path="../agent.yaml")
            assert failed and "'..'" in text
            text, failed = await call("read_file", path=3)
            assert failed and "is not of type 'string'" in text
            text, failed = await call("write_file", path="b", text="x")
            assert failed and "no tool" in text
            text, failed = await call("loud")
            assert failed and "0.5 seconds" in text
            text, failed = await call("code_interpreter", code="open('/etc/shadow')")
            assert failed
    assert not (agent_file.parent / "notes" / "b").exists()


async def test_our_client_uses_our_server(agent_file: Path):
    async with connected(MCPServer(command=serving(agent_file), name="own")) as tools:
        assert await called(tools["count"], text="a b") == "2"
        assert await called(tools["read_file"], path="a.txt") == "hello"


async def test_over_http_only_who_bears_the_token_is_served(agent_file: Path, monkeypatch):
    import httpx

    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    token = {"CORRAL_MCP_TOKEN": "sesame-1234"}
    async with running(serving(agent_file, "--http", str(port)), port, **token):
        monkeypatch.setenv("TOKEN", "sesame-1234")
        header = {"Authorization": "Bearer ${TOKEN}"}
        async with connected(MCPServer(url=url, headers=header)) as tools:
            assert await called(tools["count"], text="a b") == "2"
        with pytest.raises(RuntimeUnavailable):
            await MCPServer(url=url).tools()
        async with httpx.AsyncClient(headers={"Authorization": "Bearer sesame-1234"}) as client:
            other = await client.post(url, json={}, headers={"Host": "evil.example"})
            web = await client.post(url, json={}, headers={"Origin": "https://evil.example"})
        assert (other.status_code, web.status_code) == (421, 403)


def installed(program: str) -> str:
    """A server's program, of this Python or on the path."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


async def test_a_real_server_from_pypi_is_used():
    command = [installed("mcp-server-time"), "--local-timezone", "UTC"]
    async with connected(MCPServer(command=command, only=["convert_time"])) as tools:
        assert set(tools) == {"convert_time"}
        asked = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        converted = json.dumps(await called(tools["convert_time"], **asked))
        assert "21:00:00+09:00" in converted
        odd = await tools["convert_time"].call({**asked, "target_timezone": "Mars/X"}, CALL)
        assert odd.is_error and "Mars/X" in str(odd.content)


async def test_a_real_server_from_npm_is_used():
    command = [installed("mcp-server-everything"), "stdio"]
    async with connected(MCPServer(command=command, leave_out=["get-env"])) as tools:
        assert "get_env" not in tools
        assert await called(tools["echo"], message="hi") == "Echo: hi"
        picture = await tools["get_tiny_image"].call({}, CALL)
        assert picture.attachments[0].data.startswith(b"\x89PNG")
