"""Tools in an agent's YAML file: what may stand there, and what is said when it can't."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import Reply, web_server

from corral import Agent, ConfigError, ToolError
from corral.agents.spec import load_tools
from corral.agents.tools import CanClose, close_all
from corral.tools.options import options_of
from corral.tools.tool import ToolContext

CALL = ToolContext(session="s", turn_id="t", call_id="c")
HEAD = "model: cria\nshields: none\nmemory: temporary\n"
OWN = '''
def double(n: int) -> int:
    """Double a number."""
    return 2 * n
'''
COMMAND = """\
  - name: count
    description: Count words.
    parameters:
      type: object
      properties:
        text: {type: string}
      required: [text]
    command: [wc, -w]
    stdin: "{text}"
    permissions: {wall_seconds: 5}
    needs_approval: true
    timeout: 3
"""
HTTP = """\
  - name: weather
    description: Tell the weather.
    parameters:
      properties:
        city: {type: string}
      required: [city]
    url: https://api.example.com/days/{city}
    headers: {X-Key: "${WEATHER_KEY}"}
    answer: current.days[0]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        (folder / "own.py").write_text(OWN)
        (folder / "notes").mkdir()
        (folder / "notes" / "a.txt").write_text("hello")
        yield folder


def written(folder: Path, tools: str, head: str = HEAD) -> Path:
    path = folder / "agent.yaml"
    path.write_text(f"{head}tools:\n{tools}")
    return path


def tools_of(path: Path):
    _, given = load_tools(path)
    return {tool.spec.name: tool for tool in given.own}


EVERYTHING = f"""\
  - code_interpreter
  - now: {{needs_approval: true}}
  - own.py:double: {{timeout: 2}}
  - read_file: notes
  - list_files: [notes]
  - search_files: {{folders: [notes], timeout: 9}}
  - write_file: {{folders: [notes], needs_approval: true}}
  - brave_search: {{results: 5}}
  - wolfram_alpha
  - http_get: [docs.example.com, "*.example.org:443"]
{COMMAND}{HTTP}"""


async def test_every_kind_of_tool_can_stand_in_a_file(folder: Path):
    path = written(folder, EVERYTHING)
    Agent.from_file(path)
    tools = tools_of(path)
    assert list(tools) == [
        *("code_interpreter", "now", "double", "read_file", "list_files", "search_files"),
        *("write_file", "brave_search", "wolfram_alpha", "http_get", "count", "weather"),
    ]
    asking = [name for name, tool in tools.items() if options_of(tool).needs_approval]
    assert asking == ["now", "write_file", "count"]
    timeouts = {name: options_of(tool).timeout for name, tool in tools.items()}
    assert {n: t for n, t in timeouts.items() if t} == {"double": 2, "search_files": 9, "count": 3}
    assert tools["read_file"].permissions.read == (folder / "notes",)
    assert tools["write_file"].permissions.write == (folder / "notes",)
    assert tools["weather"].permissions.network == ("api.example.com:443",)
    assert (await tools["read_file"].call({"path": "a.txt"}, CALL)).content == "hello"
    assert (await tools["count"].call({"text": "a b c"}, CALL)).content == "3"
    assert (await tools["double"].call({"n": 2}, CALL)).content == 4


async def test_the_interpreter_may_be_given_a_folder_and_no_memory(folder: Path):
    tools = tools_of(written(folder, "  - code_interpreter: {data: notes, stateful: false}\n"))
    tool = tools["code_interpreter"]
    said = (await tool.call({"code": "x = 1; open('data/a.txt').read()"}, CALL)).content
    assert "hello" in said
    assert (await tool.call({"code": "x"}, CALL)).is_error


async def test_a_command_may_use_a_file_beside_the_agents(folder: Path):
    (folder / "say.py").write_text("import sys; print(sys.argv[1].upper())")
    entry = """\
  - name: say
    description: Say.
    parameters: {properties: {what: {type: string}}, required: [what]}
    command: [python3, ./say.py, "{what}"]
"""
    with pytest.raises(ConfigError, match=r"agent\.yaml:8:.*may not read"):
        Agent.from_file(written(folder, entry))
    tools = tools_of(written(folder, entry + "    permissions: {read: [say.py]}\n"))
    assert (await tools["say"].call({"what": "hi"}, CALL)).content == "HI"


async def test_an_http_tool_speaks_with_a_server(folder: Path):
    with web_server() as web:
        web.replies["/days/Oslo"] = Reply(body=b'{"current": {"days": ["rain"]}}')
        entry = HTTP.replace("https://api.example.com", web.url)
        entry = entry.replace('    headers: {X-Key: "${WEATHER_KEY}"}\n', "")
        with pytest.raises(ConfigError, match=r"agent\.yaml:11:.*not a public address"):
            Agent.from_file(written(folder, entry))
        tools = tools_of(written(folder, f"{entry}    hosts: ['{web.host}']\n"))
        assert (await tools["weather"].call({"city": "Oslo"}, CALL)).content == "rain"


async def test_a_missing_variable_is_said_when_the_agent_is_opened(folder: Path, monkeypatch):
    monkeypatch.delenv("WEATHER_KEY", raising=False)
    agent = Agent.from_file(written(folder, HTTP))
    with pytest.raises(ConfigError, match="WEATHER_KEY"):
        await agent.open()


async def test_the_agents_ceiling_narrows_what_its_tools_were_given(folder: Path):
    head = f"{HEAD}permissions: {{read: [notes], wall_seconds: 2}}\n"
    tools = tools_of(written(folder, EVERYTHING, head))
    assert tools["read_file"].permissions.read == (folder / "notes",)
    assert tools["count"].permissions.wall_seconds == 2
    assert tools["weather"].permissions.network == ()
    with pytest.raises(ToolError):
        await tools["write_file"].call({"path": "b.txt", "text": "x"}, CALL)
    assert not (folder / "notes" / "b.txt").exists()


async def test_an_mcp_server_can_stand_in_a_file(folder: Path):
    pytest.importorskip("mcp")
    (folder / "server.py").write_text(
        "from mcp.server.mcpserver import MCPServer\n"
        "server = MCPServer('t')\n"
        "@server.tool()\n"
        "def add(a: int, b: int) -> int:\n"
        "    'Add.'\n"
        "    return a + b\n"
        "server.run()\n"
    )
    entry = f"""\
  - mcp:
      command: ['{sys.executable}', server.py]
      only: [add]
      prefix: sums_
      needs_approval: [add]
"""
    name, given = load_tools(written(folder, entry))
    owned: list[CanClose] = []
    try:
        tools = {tool.spec.name: tool for tool in await given.open(owned)}
        assert (await tools["sums_add"].call({"a": 2, "b": 3}, CALL)).content == {"result": 5}
        assert options_of(tools["sums_add"]).needs_approval is True
    finally:
        await close_all(owned)


WRONG = [
    ("  - 5\n", 5, "is no tool"),
    ("  - red_file: notes\n", 5, "Did you mean 'read_file'?"),
    ("  - read_file\n", 5, "needs a folder"),
    ("  - read_file: {folder: notes}\n", 5, "Did you mean 'folders'?"),
    ("  - read_file: {folders: []}\n", 5, "tools.0.read_file.folders"),
    ("  - read_file: /proc/self\n", 5, "belongs to the system"),
    ("  - http_get\n", 5, "needs hosts"),
    ("  - http_get: ['https://x.example.com']\n", 5, "is no host"),
    ("  - now: {timeout: 0}\n", 5, "tools.0.now.timeout"),
    ("  - now: {permissions: {}}\n", 5, "unknown key 'tools.0.now.permissions'"),
    ("  - brave_search: {results: 50}\n", 5, "tools.0.brave_search.results"),
    ("  - own.py:double: {needs_aproval: true}\n", 5, "Did you mean 'needs_approval'?"),
    ("  - own.py:treble: {timeout: 1}\n", 5, "no function 'treble'"),
    ("  - code_interpreter: {data: nowhere}\n", 5, "nowhere"),
    ("  - code_interpreter: {stateful: 3}\n", 5, "code_interpreter.stateful"),
    ("  - {name: x, description: y}\n", 5, "command: or url:"),
    ("  - mcp\n", 5, "needs a server"),
    ("  - mcp: {}\n", 5, "either a command or a url"),
    ("  - mcp: {command: [x], url: 'http://x'}\n", 5, "either a command or a url"),
    ("  - mcp: {url: 'ftp://x'}\n", 5, "no URL"),
    ("  - mcp: {url: 'http://x', env: [A]}\n", 5, "env is for"),
    ("  - mcp: {command: [x], onyl: [a]}\n", 5, "Did you mean 'only'?"),
    (COMMAND.replace("command: [wc, -w]", "command: wc -w"), 12, "command"),
    (COMMAND.replace("command: [wc, -w]", "command: []"), 12, "command"),
    (COMMAND.replace("command: [wc, -w]", 'command: ["{text}"]'), 12, "without placeholders"),
    (COMMAND.replace("command: [wc, -w]", 'command: [wc, "{txet}"]'), 12, "{txet}"),
    (COMMAND.replace('"{text}"', '"{txet}"'), 13, "{txet}"),
    (COMMAND.replace("type: object", "type: array"), 7, "must be an object"),
    (COMMAND.replace("{type: string}", "{type: strong}"), 7, "properties.text.type"),
    (COMMAND.replace("count", "count words"), 5, "can't be a tool's name"),
    (COMMAND.replace("wall_seconds: 5", "wall_second: 5"), 14, "Did you mean 'wall_seconds'?"),
    (COMMAND.replace("wall_seconds: 5", "wall_seconds: -5"), 14, "wall_seconds"),
    (COMMAND.replace("wall_seconds: 5", "read: [/proc]"), 14, "belongs to the system"),
    (COMMAND.replace("needs_approval: true", "needs_approval: maybe"), 15, "needs_approval"),
    (COMMAND.replace("    description: Count words.\n", ""), 5, "description' is missing"),
    (HTTP.replace("https://api", "https://{city}"), 11, "without placeholders"),
    (HTTP.replace("{city}\n", "{town}\n"), 11, "{town}"),
    (HTTP.replace("days[0]", "days[x]"), 13, "no path into JSON"),
    (HTTP.replace("X-Key", "Host"), 12, "can't be set"),
    (HTTP + "    method: FETCH\n", 14, "can't send"),
    (HTTP + "    body: {a: '{nope}'}\n", 14, "{nope}"),
]


@pytest.mark.parametrize(("tools", "line", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_line(folder: Path, tools: str, line: int, said: str):
    path = written(folder, tools)
    with pytest.raises(ConfigError) as caught:
        Agent.from_file(path)
    assert f"{path}:{line}:" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("permissions", "said"),
    [
        ("{red: [notes]}", "Did you mean 'read'?"),
        ("{read: [/proc]}", "belongs to the system"),
        ("{network: ['a b']}", "is no host"),
        ("none", "permissions"),
    ],
)
def test_a_ceiling_that_can_not_be_says_so(folder: Path, permissions: str, said: str):
    path = written(folder, "  - now\n", f"{HEAD}permissions: {permissions}\n")
    with pytest.raises(ConfigError) as caught:
        Agent.from_file(path)
    assert f"{path}:4:" in str(caught.value) and said in str(caught.value)


async def test_the_notes_example_reads_searches_and_counts(examples: Path):
    name, given = load_tools(examples / "notes.yaml")
    tools = {tool.spec.name: tool for tool in await given.open([])}
    assert name == "notes"
    found = (await tools["search_files"].call({"text": "herbs"}, CALL)).content
    assert [line.partition(":")[0] for line in found.splitlines()] == ["garden.md", "shopping.md"]
    text = (await tools["read_file"].call({"path": "shopping.md"}, CALL)).content
    counted = (await tools["count_words"].call({"text": text}, CALL)).content
    assert counted == str(len(text.split()))
    asking = [tool.spec.name for tool in tools.values() if options_of(tool).needs_approval]
    assert asking == ["write_file"]
