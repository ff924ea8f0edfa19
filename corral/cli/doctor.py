"""`corral doctor`: what this machine can do, and what would mend what it can't."""

from __future__ import annotations

import importlib.util

import anyio.to_thread
import click

from corral.errors import RuntimeUnavailable
from corral.memory.sqlite import default_path
from corral.model_runtime.opening import BUNDLED
from corral.tools.sandbox import Permissions, SandboxReport, probe
from corral.tools.sandbox.permissions import LEVELS

__all__ = ["examine", "local_lines", "sandbox_lines"]

_RULES = {
    "cuda": "rule: CUDA comes first, in bf16",
    "mps": "rule: without CUDA Apple's MPS is taken, in fp16",
    "cpu": "rule: no CUDA and no MPS, so the CPU, in int8, by the fastest kernel that agreed with "
    "fp32 here",
}
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
        for line in await anyio.to_thread.run_sync(local_lines):
            click.echo(line)
        click.echo(f"         {' and '.join(BUNDLED)}: {_ready()}")
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


def local_lines() -> list[str]:
    """Where models run in this process, how, and by which rule."""
    from corral.model_runtime.cache import cache_root
    from corral.model_runtime.local.kernels import choose_kernel
    from corral.model_runtime.local.loading import available_memory, place

    device = place()
    try:
        kernel = choose_kernel(device)
    except RuntimeUnavailable as error:
        return [f"local    can't run models: {error}"]
    lines = [f"local    runs models on {device}, in {kernel.precision} ({kernel.name})"]
    lines.append(f"         {_RULES[device]}")
    free = available_memory()
    if free is not None:
        lines.append(f"         {free / 2**30:.1f} GiB of memory are free")
    lines.append(f"         keeps converted weights and caches in {cache_root()}")
    return lines


def _ready() -> str:
    from corral.model_runtime.cria.fetch import is_ready

    folder = is_ready()
    return f"ready in {folder}" if folder else "not fetched yet: corral models pull cria"
