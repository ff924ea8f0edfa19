"""Agents in YAML: what is wrong is said with its file, its line, its key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral import Agent, ConfigError
from corral.agents.yaml_reader import read_yaml

GOOD = """\
corral: 1
name: helper
model: ollama:llama3.2:3b
instructions: |
  Be brief.
tools:
  - code_interpreter
  - own.py:double
shields:
  model: ollama:llama-guard3:1b
  policy: {S6: warn}
  threshold: 0.4
memory: temporary
limits: {steps: 3, seconds: 10}
sampling: {temperature: 0.7, seed: 1}
"""
OWN = '''
def double(n: int) -> int:
    """Double a number."""
    return 2 * n
'''


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)

    def write(text: str) -> Path:
        path = tmp_path / "agent.yaml"
        path.write_text(text)
        return path

    return write


def test_an_agent_with_everything_loads(write):
    agent = Agent.from_file(write(GOOD))
    assert agent.name == "helper"


def test_the_command_lines_wishes_come_before_the_files(write):
    agent = Agent.from_file(write(GOOD), model="cria", shields="none")
    assert agent.model == "cria"


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("instructions:", "instruction:"), 4, "Did you mean 'instructions'?"),
        (("limits: {steps: 3", "limits: {step: 3"), 14, "Did you mean 'steps'?"),
        (("  threshold: 0.4", "  treshold: 0.4"), 12, "Did you mean 'threshold'?"),
        (("threshold: 0.4", "threshold: 4"), 12, "shields.threshold"),
        (("S6: warn", "S6: worn"), 11, "shields.policy.S6"),
        (("steps: 3", "steps: three"), 14, "limits.steps"),
        (("model: ollama:llama3.2:3b", "model: olama:llama3.2"), 3, "Did you mean 'ollama'?"),
        (("model: ollama:llama3.2:3b\n", ""), 1, "the key 'model' is missing"),
        (("own.py:double", "own.py:treble"), 8, "no function 'treble'"),
        (("own.py:double", "other.py:double"), 8, "no file"),
        (("own.py:double", "../own.py:double"), 8, "outside"),
        (("- code_interpreter", "- code_interpeter"), 7, "Did you mean 'code_interpreter'?"),
        (("name: helper", "name: helper\nname: x"), 3, "twice"),
        (("name: helper", "name: [helper"), 3, "not valid YAML"),
        (("corral: 1", "corral: 2"), 1, "corral"),
        (("name: helper", "name: &a helper"), 2, "aliases"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write, change, line, said):
    assert change[0] in GOOD
    path = write(GOOD.replace(*change))
    with pytest.raises(ConfigError) as caught:
        Agent.from_file(path)
    assert f"{path}:{line}:" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_agent_says_so(write, text):
    with pytest.raises(ConfigError, match="no agent"):
        Agent.from_file(write(text))


def test_a_missing_or_binary_file_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="There is no file"):
        Agent.from_file(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        Agent.from_file(tmp_path / "b.yaml")


def test_a_tool_file_with_a_fault_says_which(write, tmp_path: Path):
    (tmp_path / "own.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(ConfigError, match="nowhere_to_be_found"):
        Agent.from_file(write(GOOD))


def test_an_agent_of_a_strange_model_must_name_its_guard_or_none(write, tmp_path: Path):
    text = f"model: transformers:{tmp_path}\n"
    with pytest.raises(ConfigError, match="shields: none"):
        Agent.from_file(write(text))
    Agent.from_file(write(text + "shields: none\n"))


def test_yamls_old_surprises_are_not_ours(tmp_path: Path):
    path = tmp_path / "v.yaml"
    path.write_text("a: no\nb: 0x10\nc: 1_000\nd: 1e3\ne: ~\nf: 2024-01-01\ng: 'x'\nh: true\n")
    assert read_yaml(path).value == {
        "a": "no",
        "b": 16,
        "c": 1000,
        "d": 1000.0,
        "e": None,
        "f": "2024-01-01",
        "g": "x",
        "h": True,
    }


def test_the_examples_load(examples: Path):
    for path in examples.glob("*.yaml"):
        Agent.from_file(path)
