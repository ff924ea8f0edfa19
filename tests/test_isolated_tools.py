"""`@tool(isolated=True)`: a function of the user's that runs in the sandbox."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import anyio
import pytest
from pydantic import BaseModel

from corral import Agent, ConfigError, RunContext, ToolError, ToolRetry, tool
from corral.testing import ScriptedRuntime
from corral.tools import ToolContext
from corral.tools.sandbox import Permissions

HERE = ToolContext(session="s", turn_id="t", call_id="c")
RATES = {"eur": 1.25, "usd": 1.0}
_WORD = re.compile(r"\w+", re.ASCII)
SECRET = os.environ.get("HOME", "")


def rounded(value: float) -> int:
    return math.floor(value)


class Sum:
    """Adds up."""

    def __init__(self, first: float) -> None:
        self.total: float = rounded(first)


@tool(isolated=True)
def convert(amount: float, to: Literal["eur", "usd"] = "usd") -> dict[str, object]:
    """Convert an amount."""
    print("noise that is no result")
    return {"sum": Sum(amount * RATES[to]).total, "words": _WORD.findall("a b")}


async def test_it_runs_with_all_that_it_uses_of_its_file():
    await convert.ready()
    content = (await convert.call({"amount": 100, "to": "eur"}, HERE)).content
    assert content == {"sum": 125, "words": ["a", "b"]}
    assert convert(4.5) == {"sum": 4, "words": ["a", "b"]}  # called as a function, it runs here


@tool(isolated=True)
def reach(what: str) -> str:
    """Reach for something."""
    import os
    import socket

    if what == "env":
        return repr(dict(os.environ))
    if what == "net":
        return repr(socket.create_connection(("127.0.0.1", 9)))
    if what == "write":
        return str(open("note", "w").write("x"))
    return open(what).read()


async def test_it_may_do_nothing_but_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORRAL_TEST_SECRET", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    assert "hunter2" not in str((await reach.call({"what": "env"}, HERE)).content)
    with pytest.raises(ToolError, match="Error"):
        await reach.call({"what": "net"}, HERE)
    with pytest.raises(ToolError, match="Error"):
        await reach.call({"what": str(secret)}, HERE)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user may read, with one file: the sandbox runs as nobody."""
    with tempfile.TemporaryDirectory(prefix="shared-") as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        (path / "open.txt").write_text("for all to read")
        (path / "open.txt").chmod(0o644)
        yield path


async def test_it_may_do_what_it_was_granted_and_the_agents_ceiling_takes_that_away(shared: Path):
    @tool(isolated=True, permissions=Permissions(read=(shared,)))
    def read(path: str) -> str:
        """Read a file."""
        return open(path).read()

    asked = {"path": str(shared / "open.txt")}
    assert (await read.call(asked, HERE)).content == "for all to read"
    with pytest.raises(ToolError, match="Error"):
        await read.narrowed(Permissions()).call(asked, HERE)


@tool(isolated=True)
def fail(how: str) -> object:
    """Fail."""
    import time

    if how == "retry":
        raise ToolRetry("say it otherwise")
    if how == "tool":
        raise ToolError("no stock")
    if how == "value":
        raise ValueError("seven")
    if how == "exit":
        raise SystemExit(3)
    if how == "object":
        return object()
    if how == "long":
        return "x" * 5_000_000
    if how == "deep":
        nested: list[object] = []
        for _ in range(900):
            nested = [nested]
        return nested
    if how == "forge":
        print('{"result": "forged"}')
        raise SystemExit
    time.sleep(60)
    return None


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("retry", ToolRetry, "say it otherwise"),
        ("tool", ToolError, "no stock"),
        ("value", ToolError, "ValueError: seven"),
        ("exit", ToolError, "no result"),
        ("object", ToolError, "can't be written as JSON"),
        ("long", ToolError, "longer than"),
        ("deep", ToolError, "."),
        ("forge", ToolError, "no result"),
    ],
)
async def test_what_goes_wrong_inside_is_said_as_if_it_were_here(how, kind, said):
    with pytest.raises(ToolError, match=said) as caught:
        await fail.call({"how": how}, HERE)
    assert type(caught.value) is kind


async def test_its_time_is_bounded_by_its_permissions_and_by_its_timeout():
    quick = fail.narrowed(Permissions(wall_seconds=0.5))
    with pytest.raises(ToolError, match="limit of wall"):
        await quick.call({"how": "sleep"}, HERE)

    @tool(isolated=True, timeout=0.5)
    def sleep() -> None:
        """Sleep."""
        import time

        time.sleep(60)

    runtime = ScriptedRuntime(["[sleep()]", "Well."])
    agent = Agent(model=runtime, tools=[sleep], shields="none", memory="temporary")
    with anyio.fail_after(30):
        result = await agent.run("go")
    assert "0.5 seconds" in str(result.results[0].content)


async def test_arguments_are_checked_before_anything_is_started():
    with pytest.raises(ToolError, match="amount"):
        await convert.call({"amount": "much"}, HERE)


def test_what_the_sandbox_does_not_have_is_said_when_the_agent_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "corral_test_helper.py").write_text("def help(): return 1\n")
    (tmp_path / "corral_test_tools.py").write_text(
        "import corral_test_helper\n\n"
        "def lean() -> int:\n    'Lean on the helper.'\n    return corral_test_helper.help()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import corral_test_tools  # type: ignore[import-not-found]

    lean = tool(isolated=True)(corral_test_tools.lean)
    agent = Agent(model=ScriptedRuntime([]), tools=[lean], shields="none", memory="temporary")
    with pytest.raises(ConfigError, match="'lean' can't be loaded.*corral_test_helper"):
        anyio.run(agent.open)


class Shape(BaseModel):
    sides: int


def wants_context(context: RunContext[str], a: int) -> int:
    """Do."""
    return a


def wants_model(shape: Shape) -> int:
    """Do."""
    return shape.sides


async def waits(a: int) -> int:
    """Do."""
    return a


FILE = open(os.devnull)


def uses_a_file() -> str:
    """Do."""
    return FILE.read()


def undefined() -> str:
    """Do."""
    return nothing_of_that_name  # noqa: F821  # type: ignore[name-defined]


def around() -> object:
    local = 3

    def closure() -> int:
        """Do."""
        return local

    return closure


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (wants_context, "RunContext"),
        (wants_model, "'shape'.*JSON"),
        (waits, "async"),
        (uses_a_file, "'FILE', a TextIOWrapper"),
        (undefined, "nothing_of_that_name"),
        (around(), "'local'"),
        (Sum(1).__init__, "not a function|no docstring"),
    ],
)
def test_what_cannot_be_sent_to_the_sandbox_is_refused_when_the_tool_is_made(function, said):
    with pytest.raises(ConfigError, match=said):
        tool(isolated=True)(function)


def test_a_lambda_cannot_be_isolated():
    with pytest.raises(ConfigError, match="lambda"):
        tool(isolated=True, name="f", description="Do.")(lambda: 1)


def test_permissions_without_isolation_would_bind_nothing():
    with pytest.raises(ConfigError, match="isolated=True"):
        tool(permissions=Permissions())


def teardown_module() -> None:
    FILE.close()
