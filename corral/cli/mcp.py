"""`corral mcp serve`: an agent's tools for MCP clients."""

from __future__ import annotations

import os
import signal
from importlib.metadata import version
from pathlib import Path

import anyio
import click

from corral.agents.spec import load_tools
from corral.agents.tools import CanClose, close_all
from corral.errors import ConfigError

__all__ = ["serve"]

TOKEN_VARIABLE = "CORRAL_MCP_TOKEN"


async def serve(path: Path, *, port: int | None) -> int:
    """Offer the tools of the agent at `path` over standard streams, or on `port` of 127.0.0.1."""
    try:
        from corral.tools.mcp.serve import askless, serve_http, serve_stdio
    except ImportError as error:
        raise ConfigError(
            "corral mcp serve needs the package mcp, version 2 or later. Install it: "
            "pip install 'llama-corral[mcp]'"
        ) from error

    name, given = load_tools(path)
    owned: list[CanClose] = []
    try:
        tools, asking = askless(await given.open(owned))
        for each in asking:
            click.echo(f"corral: {each} needs approval, so it is not offered", err=True)
        if not tools:
            raise ConfigError(f"{path}: there is no tool to offer. List some under tools:.")
        if port is None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_on_signal, owned)
                await serve_stdio(tools, name=name, version=version("llama-corral"))
                tasks.cancel_scope.cancel()
        else:
            await serve_http(
                tools,
                name=name,
                version=version("llama-corral"),
                port=port,
                token=os.environ.get(TOKEN_VARIABLE) or None,
                started=lambda url: click.echo(f"corral: {len(tools)} tools on {url}", err=True),
            )
    finally:
        with anyio.CancelScope(shield=True):
            await close_all(owned)
    return 0


async def _end_on_signal(owned: list[CanClose]) -> None:
    """Close the tools and end the process at the first signal to do so.

    The process is left at once, since the thread that reads standard input can't be woken, and an
    orderly end would wait for it.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            with anyio.CancelScope(shield=True):
                await close_all(owned)
            os._exit(128 + number)
