"""`corral doctor`: what this machine can do, and what would mend what it can't."""

from __future__ import annotations

import importlib.util
from typing import Literal

import anyio.to_thread
import click

from corral.memory.sqlite import default_path
from corral.model_runtime.opening import BUNDLED
from corral.tools.sandbox import Permissions, SandboxReport, probe
from corral.tools.sandbox.permissions import LEVELS

__all__ = ["examine", "sandbox_lines"]

_LOCAL = ("torch", "transformers", "safetensors", "tokenizers", "gguf")


async def examine() -> int:
    """Print a line per finding; the exit code is 1 where untrusted code can't be confined."""
    report = await anyio.to_thread.run_sync(probe)
    for line in sandbox_lines(report):
        click.echo(line)
    missing = [name for name in _LOCAL if importlib.util.find_spec(name) is None]
    if missing:
        needed = ", ".join(missing)
        click.echo(f"local    can't run models: no {needed}. pip install 'llama-corral[local]'")
    else:
        click.echo("local    can run models in this process")
        for name in BUNDLED:
            click.echo(f"         {name}: {_ready(name)}")
    click.echo(f"memory   {default_path()}")
    return 0 if report.levels else 1


def sandbox_lines(report: SandboxReport) -> list[str]:
    """The level this machine gives, each probe, each layer, and what code may do by default."""
    if report.levels:
        lines = [f"sandbox  level {report.levels[0]} (Landlock {report.landlock})"]
    else:
        lines = ["sandbox  none: the code interpreter will not run here"]
    for level in reversed(LEVELS):
        found = report.problems.get(level, "passed its self-test")
        lines.append(f"         {level}: {found}")
    lines += [f"         {remedy}" for remedy in report.remedies]
    lines += [f"         - {name}: {amount}" for name, amount in report.layers.items()]
    lines.append(f"         by default, code {Permissions()}")
    lines.append("         (unsafe_local=True, an argument in Python alone, confines nothing)")
    return lines


def _ready(name: Literal["cria", "cria-guard"]) -> str:
    from corral.model_runtime.cria.fetch import is_ready

    folder = is_ready(name)
    return f"ready in {folder}" if folder else f"not fetched yet: corral models pull {name}"
