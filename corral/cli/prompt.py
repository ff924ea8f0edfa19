"""`corral prompt`: the exact prompt of a turn's first step, with the tokens of each part."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import click

from corral.agents import Agent
from corral.agents.prompting import count_parts
from corral.cli.show import printable
from corral.model_runtime.prompt import Prompt, Special

__all__ = ["show_prompt"]

_COLOURS = {
    "system": "magenta",
    "tools": "cyan",
    "user": "green",
    "assistant": "blue",
    "result": "yellow",
}


async def show_prompt(
    path: Path,
    message: str,
    *,
    session: str | None,
    model: str | None,
    memory: Path | None,
) -> int:
    """Print the prompt that a message would be answered to. Nothing is asked, nothing is kept."""
    agent = Agent.from_file(path, model=model, shields="none", memory=memory)
    try:
        agent.check_turn(message, session)
        prompting, prompt = await agent.preview(message, session=session)
        counts = await count_parts(prompting.runtime, prompt)
    finally:
        with anyio.CancelScope(shield=True):
            await agent.aclose()
    _print(prompt)
    total = sum(counts.values())
    length = prompting.runtime.profile.context_length
    click.echo(f"\nformat {prompting.format}, model {prompting.runtime.name}", err=True)
    for name, count in counts.items():
        label = f"{name} (to come)" if name == list(counts)[-1] else name
        click.secho(f"{count:7} {label}", fg=_colour(name), err=True)
    click.echo(f"{total:7} of {length} tokens", err=True)
    return 0


def _print(prompt: Prompt) -> None:
    if not sys.stdout.isatty():
        click.echo(str(prompt))  # byte for byte
        return
    for segment in prompt.segments:
        if isinstance(segment, Special):
            click.secho(segment.token, nl=False, dim=True)
        else:
            click.secho(printable(segment.text), nl=False, fg=_colour(segment.part))
    click.echo()


def _colour(part: str) -> str | None:
    return _COLOURS.get(part.split()[0]) if part else None
