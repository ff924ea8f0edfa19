"""docs/runtimes.md: its Python runs, its commands exist, its model strings are spelled right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from test_embedding import write_bert

from corral.cli import main
from corral.model_runtime import check_model_string
from corral.model_runtime.openai import KINDS
from corral.model_runtime.opening import MODEL_OPTIONS

PAGE = (Path(__file__).parent.parent / "docs" / "runtimes.md").read_text()
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", PAGE, re.M | re.S)


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_its_python_runs(code, tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "receipt.jpg")
    monkeypatch.chdir(tmp_path)
    # A small encoder of our own stands where the page names one that would have to be fetched.
    code = code.replace(ENCODER, str(write_bert(tmp_path / "encoder")))
    exec(compile(code, "docs/runtimes.md", "exec"), {})


def test_its_commands_exist():
    lines = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
    ours = [line.split() for line in lines if line.startswith("corral ")]
    assert len(ours) == 5
    for words in ours:
        path = [word for word in words[1:3] if word in ("models", "pull", "list", "run")]
        assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0, words


def test_its_model_strings_are_spelled_right():
    strings = re.findall(r"`((?:ollama|openai):[a-z][^`\[]*)`", PAGE)
    assert len(strings) >= 4
    for model in strings:
        check_model_string(model)


def test_it_names_every_option_and_every_kind_of_server():
    for option in (option for options in MODEL_OPTIONS.values() for option in options):
        assert f"`{option}" in PAGE
    for kind in KINDS:
        assert f"`{kind}`" in PAGE
