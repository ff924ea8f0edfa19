"""The house stands as it was drawn: what may import what, what is loaded when, what is exported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import corral
import corral.errors

PACKAGE = Path(corral.__file__).parent
FLOORS = {
    "messages": 0,
    "events": 0,
    "errors": 0,
    "model_runtime": 1,
    "tools": 1,
    "memory": 1,
    "safety": 2,
    "agents": 3,
    "testing": 3,
    "cli": 5,
    "server": 4,
}


def imports_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.startswith("corral.")}


def test_imports_point_down_only():
    wrong: list[str] = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imports_of(file):
            other = name.split(".")[1]
            same = other == room
            if not same and FLOORS[other] >= FLOORS[room] and FLOORS[room] > 0:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
            if FLOORS[room] == 0 and FLOORS[other] > 0:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_importing_corral_loads_nothing_heavy():
    heavy = ["torch", "transformers", "ollama", "sqlite3", "sqlite_utils", "numpy", "httpx"]
    code = f"import corral, corral.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_everything_that_is_exported_is_there_and_sorted():
    assert corral.__all__ == sorted(corral.__all__)
    for name in corral.__all__:
        assert hasattr(corral, name)


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    for name in corral.errors.__all__:
        kind = getattr(corral.errors, name)
        assert issubclass(kind, corral.errors.CorralError)
        assert name in (corral.errors.__doc__ or "")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_no_file_is_too_long(file: Path):
    assert len(file.read_text().splitlines()) <= 600
