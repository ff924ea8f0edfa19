"""The blocks of docs/tools.md on tools without Python do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from corral import Agent
from corral.agents.spec import load_tools
from corral.cli import main
from corral.tools.tool import ToolContext

PAGE = Path(__file__).parent.parent / "docs" / "tools.md"
TEXT = PAGE.read_text()[PAGE.read_text().index("## Tools in a YAML file") :]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S)
YAML = [code for language, code in BLOCKS if language == "yaml"]
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "console"]
CALL = ToolContext(session="s", turn_id="t", call_id="c")


@pytest.fixture
def written(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "own.py").write_text(
        'def double(n: int) -> int:\n    "Double."\n    return 2 * n\n'
    )

    def write(block: str) -> Path:
        path = tmp_path / "agent.yaml"
        path.write_text(f"model: cria\nshields: none\nmemory: temporary\n{block}")
        return path

    return write


@pytest.mark.parametrize("block", YAML)
def test_the_yaml_of_the_page_is_an_agents(written, block: str):
    Agent.from_file(written(block))


async def test_the_command_of_the_page_counts(written):
    [block] = [block for block in YAML if "command: [wc" in block]
    _, given = load_tools(written(block))
    [count] = given.own
    assert (await count.call({"text": "a b c"}, CALL)).content == "3"
    assert (await count.call({"text": "a\nb\n", "what": "lines"}, CALL)).content == "2"


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_of_the_page_runs(block: str):
    exec(compile(block, str(PAGE), "exec"), {})


def test_the_commands_of_the_page_are_there():
    lines = [line for block in SHELL for line in block.splitlines()]
    options = CliRunner().invoke(main, ["mcp", "serve", "--help"]).output
    for line in lines:
        words = line.removeprefix("$ ").split("#")[0].split()
        assert words[:3] == ["corral", "mcp", "serve"]
        assert (PAGE.parent.parent / words[3]).is_file()
        assert all(word in options for word in words[4:] if word.startswith("--"))
