"""What tests of the sandbox share; a plugin of pytest, and through `conftest.py` there for all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.tools.sandbox import Level, probe
from corral.tools.sandbox._keeper import descendants

__all__ = ["confined", "level", "on_this_machine", "run_host", "shared", "temporary", "used"]

confined = pytest.mark.skipif(
    not probe().levels, reason=f"no sandbox here: {dict(probe().problems)}"
)


def on_this_machine(level: Level) -> Level:
    """The level; where the machine hasn't got it, the test is skipped."""
    if level not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems[level]}")
    return level


@pytest.fixture(params=["namespaces", "reduced"])
def level(request: pytest.FixtureRequest) -> Level:
    """Each level that needs nothing but the kernel."""
    return on_this_machine(request.param)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that the sandbox's own user may use as well."""
    with tempfile.TemporaryDirectory(prefix="shared-") as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that nobody else uses meanwhile."""
    with tempfile.TemporaryDirectory(prefix="own-") as made:
        path = Path(made)
        path.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield path


def run_host(program: str, temporary: str, **values: object) -> subprocess.CompletedProcess[str]:
    """Run a program that holds sandboxes in an interpreter of its own.

    Args:
        program: A template; `path` is where it finds Corral.
        temporary: Its folder for temporary files.
        values: What else the template names.
    """
    path = [str(Path(__file__).parent.parent), *sys.path]
    return subprocess.run(
        [sys.executable, "-c", program.format(path=path, **values)],
        env={**os.environ, "TMPDIR": temporary},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def used() -> tuple[int, int, list[str]]:
    """Descriptors, processes, and folders of ours among the temporary files."""
    folders = [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("corral-")]
    return len(os.listdir("/proc/self/fd")), len(descendants(os.getpid())), sorted(folders)
