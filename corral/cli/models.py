"""`corral models`: fetching what runs offline afterwards."""

from __future__ import annotations

import click

from corral.cli.progress import ProgressLine
from corral.errors import ConfigError
from corral.model_runtime.opening import BUNDLED

__all__ = ["pull"]


async def pull(model: str) -> int:
    """Make a bundled model ready."""
    if model not in BUNDLED:
        raise ConfigError(
            f"{model!r} does not come with Corral; these do: {', '.join(BUNDLED)}. For Ollama: "
            "ollama pull NAME. For Hugging Face: hf download ID"
        )
    from corral.model_runtime.cria.fetch import ensure

    progress = ProgressLine()
    try:
        folder = await ensure(model, progress=progress)
    finally:
        progress.close()
    click.echo(f"{model} (a demonstration model) is ready in {folder}", err=True)
    return 0
