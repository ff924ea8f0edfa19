"""`corral serve`: agents behind HTTP, for clients of OpenAI's and Ollama's interfaces."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from corral.agents import Agent
from corral.cli.progress import ProgressLine
from corral.server import ServerSettings, serve

__all__ = ["serve_agents"]


async def serve_agents(
    paths: Sequence[Path],
    settings: ServerSettings,
    *,
    raw: Sequence[str],
    model: str | None,
    shields: str | None,
    memory: Path | None,
) -> int:
    """Serve until told to stop."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    agents = [Agent.from_file(path, model=model, shields=shields, memory=memory) for path in paths]
    progress = ProgressLine()

    def ready(url: str, names: Sequence[str]) -> None:
        progress.close()
        click.echo(f"Serving {', '.join(names)} on {url}", err=True)
        click.echo(f"OpenAI clients: {url}/v1   Ollama clients: {url}   Stop: Ctrl-C", err=True)
        if raw:
            click.secho(f"Raw, without shields and tools: {', '.join(raw)}", dim=True, err=True)

    try:
        await serve(agents, settings, raw=raw, progress=progress, ready=ready)
    finally:
        progress.close()
    return 0
