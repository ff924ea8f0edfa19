"""Commands as tools: each argument stays one argument, and the program stays in its sandbox."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from corral import ConfigError, ToolError
from corral.tools.command import CommandTool
from corral.tools.options import ToolOptions
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext, ToolOutput

CALL = ToolContext(session="s", turn_id="t", call_id="c")
PARAMETERS = {
    "type": "object",
    "properties": {
        "a": {"type": "string"},
        "b": {"type": "string"},
        "n": {"type": "integer"},
        "size": {"type": "string", "default": "small"},
        "list": {"type": "array"},
    },
}
SHOW = ["python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))"]
"""A command that prints its arguments."""


def command(*argv, **settings) -> CommandTool:
    settings = {"description": "d", "parameters": PARAMETERS, **settings}
    return CommandTool("t", command=argv, **settings)


async def called(tool: CommandTool, **arguments) -> ToolOutput:
    await tool.ready()
    return await tool.call(arguments, CALL)


async def argv_of(*argv, **arguments) -> list[str]:
    return (await called(command(*SHOW, *argv, output="json"), **arguments)).content


@pytest.mark.parametrize(
    "value", ["a b", "$HOME", "`id`", "$(id)", "; id", "*", "'\"", "a\nb", "", "{b}", "å 😀", "\\"]
)
async def test_an_argument_is_never_split_or_expanded(value: str):
    assert await argv_of("x{a}y", "--", "{a}", a=value) == [f"x{value}y", "--", value]


async def test_what_was_not_given_is_left_out_with_its_group():
    template = ("--size={size}", ["-n", "{n}"], ["--both", "{a}", "{b}"], "end", "{{a}}")
    assert await argv_of(*template) == ["--size=small", "end", "{a}"]
    given = await argv_of(*template, n=3, a="x", size="big")
    assert given == ["--size=big", "-n", "3", "end", "{a}"]
    assert await argv_of("={list}", list=[1, "b c"]) == ['=[1, "b c"]']


@pytest.mark.parametrize("value", ["-rf", "--help", "-", "-1"])
async def test_an_argument_can_not_become_an_option(value: str):
    tool = command(*SHOW, "{a}")
    with pytest.raises(ToolError, match="option"):
        tool.check({"a": value})
    with pytest.raises(ToolError, match="option"):
        await called(tool, a=value)
    with pytest.raises(ToolError, match="option"):
        await called(command(*SHOW, "{a}{b}"), a="", b=value)
    assert await argv_of("--name={a}", "--", "{a}", a=value) == [f"--name={value}", "--", value]


async def test_a_dash_dash_from_the_model_opens_no_door():
    with pytest.raises(ToolError, match="option"):
        await called(command(*SHOW, "{a}", "{b}"), a="--", b="-rf")


async def test_negative_numbers_have_to_be_written_with_their_option():
    with pytest.raises(ToolError, match="option"):
        await called(command(*SHOW, "-n", "{n}"), n=-1)
    assert await argv_of("-n{n}", n=-1) == ["-n-1"]


@pytest.mark.parametrize("value", ["a\0b", "x" * 200_000, "\ud800"])
async def test_what_no_argument_can_hold_is_refused(value: str):
    with pytest.raises(ToolError, match="can't be an argument"):
        await called(command(*SHOW, "x{a}"), a=value)


async def test_standard_input_and_files_are_filled_too():
    count = command("wc", "-w", stdin="{a} and {b}")
    assert (await called(count, a="one two", b="three")).content == "4"
    tool = command("cat", "page.txt", files={"page.txt": "<{a}>\n"})
    assert (await called(tool, a="{b} $x")).content == "<{b} $x>"


async def test_what_goes_wrong_is_told_to_the_model():
    failed = await called(command("ls", "/no/such/place"))
    assert failed.is_error and "No such file" in failed.content
    missing = await called(command("no-such-program"))
    assert missing.is_error and "no-such-program" in missing.content
    quiet = await called(command("true"))
    assert quiet.content == "(no output)" and not quiet.is_error
    with pytest.raises(ToolError, match="did not print JSON, but: hello"):
        await called(command("echo", "hello", output="json"))
    escapes = await called(command("printf", "a\\033[31mb"))
    assert escapes.content == "ab"


async def test_a_command_is_ended_at_its_timeout():
    began = time.monotonic()
    slow = await called(command("sleep", "60", options=ToolOptions(timeout=0.5)))
    assert slow.is_error and "0.5 seconds" in slow.content
    assert time.monotonic() - began < 30


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that the user whom confined programs run as can get to, even below root's."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        for part in ("given", "kept"):
            (folder / part).mkdir()
            (folder / part / "x.txt").write_text(part)
        yield folder


async def test_a_command_reads_only_what_it_was_granted(shared: Path):
    given = str(shared / "given" / "x.txt")
    tool = command("cat", "--", "{a}", permissions=Permissions(read=(shared / "given",)))
    assert (await called(tool, a=given)).content == "given"
    for path in (str(shared / "kept" / "x.txt"), "/etc/shadow", str(Path.home())):
        assert (await called(tool, a=path)).is_error
    narrowed = tool.narrowed(Permissions())
    assert (await called(narrowed, a=given)).is_error


async def test_a_command_has_no_network_and_none_of_the_environment(monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "sesame")
    code = "import os, socket; print(dict(os.environ)); socket.create_connection(('127.0.0.1', 1))"
    result = await called(command("python3", "-c", code.replace("{", "{{")))
    assert result.is_error and "sesame" not in json.dumps(result.content)
    passed = command(
        "python3",
        "-c",
        "import os; print(os.environ['SHOP_KEY'])",
        permissions=Permissions(env=("SHOP_KEY",)),
    )
    assert (await called(passed)).content == "sesame"


@pytest.mark.parametrize(
    "settings",
    [
        {"command": []},
        {"command": ["{a}"]},
        {"command": [["{a}"]]},
        {"command": "echo {a}"},
        {"command": ["echo", "{nope}"]},
        {"command": ["awk", "{print}"]},
        {"command": ["echo", "}"]},
        {"command": ["echo"], "stdin": "{nope}"},
        {"command": ["echo"], "files": {"x": "{nope}"}},
        {"command": ["echo"], "parameters": {"type": "string"}},
        {"command": ["echo"], "parameters": {"properties": {"a": {"type": "text"}}}},
        {"command": ["echo"], "parameters": {"properties": {"a": {"$ref": "file:///etc/passwd"}}}},
    ],
)
def test_what_can_not_work_is_refused_before_it_is_offered(settings):
    with pytest.raises(ConfigError):
        CommandTool("t", description="d", **{"parameters": PARAMETERS, **settings})


@pytest.mark.parametrize("name", ["", "two words", "a-b", "1st", "x" * 80])
def test_a_name_that_a_model_could_not_call_is_refused(name: str):
    with pytest.raises(ConfigError, match="can't be a tool's name"):
        CommandTool(name, description="d", command=[sys.executable])
