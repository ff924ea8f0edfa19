"""`corral models`: what is here, and fetching what runs offline afterwards."""

from __future__ import annotations

import click

from corral.cli.progress import ProgressLine
from corral.errors import ConfigError, CorralError
from corral.model_runtime.opening import BUNDLED
from corral.model_runtime.targets import parse_target

__all__ = ["list_here", "pull"]

_GIB = 1024**3


async def pull(model: str) -> int:
    """Make a bundled model ready, or let Ollama fetch one of its own."""
    if model.startswith("ollama:"):
        return await _pull_ollama(model)
    if model not in BUNDLED:
        raise ConfigError(
            f"{model!r} does not come with Corral; these do: {', '.join(BUNDLED)}. For Ollama: "
            "corral models pull ollama:NAME, or ollama pull NAME. For Hugging Face: hf download ID"
        )
    from corral.model_runtime.cria.fetch import ensure_base

    progress = ProgressLine()
    try:
        folder = await ensure_base(name=model, progress=progress)
    finally:
        progress.close()
    click.echo(f"{model} (a demonstration model) is ready in {folder}", err=True)
    return 0


async def _pull_ollama(model: str) -> int:
    from corral.model_runtime.ollama import pull_model

    target = parse_target(model.removeprefix("ollama:"), options=())
    progress = ProgressLine()
    try:
        await pull_model(target.name, host=target.url, progress=progress)
    finally:
        progress.close()
    click.echo(f"{model} is ready on the Ollama server", err=True)
    return 0


async def list_here() -> int:
    """List the models that can be named without fetching anything but the bundled ones."""
    from corral.model_runtime.ollama import list_models

    for name in BUNDLED:
        click.echo(f"{name}\ta demonstration model, comes with Corral")
    try:
        models = await list_models()
    except CorralError as error:
        click.echo(f"corral: Ollama's are not listed: {error}", err=True)
        return 0
    for model in models:
        loaded = ", loaded" if model.loaded else ""
        click.echo(f"ollama:{model.name}\t{model.size / _GIB:.1f} GiB{loaded}")
    return 0
