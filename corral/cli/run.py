"""`corral run`: one message, one turn."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import click

from corral.agents import Agent
from corral.cli.interrupts import Interrupts, catch_interrupts
from corral.cli.progress import ProgressLine
from corral.cli.question import Asker
from corral.cli.show import Screen
from corral.events import (
    ApprovalAnswered,
    ApprovalRequested,
    Event,
    EventAdapter,
    Outcome,
    TurnFinished,
    TurnStarted,
)

__all__ = ["EXIT_CODES", "Ended", "follow", "open_agent", "run_once"]

EXIT_CODES: dict[Outcome, int] = {
    "answered": 0,
    "failed": 1,
    "limit": 1,
    "blocked": 3,
    "waiting": 4,
    "cancelled": 130,
}


@dataclass(slots=True)
class Ended:
    """How a followed turn ended."""

    outcome: Outcome = "cancelled"
    session: str = ""
    waiting: set[str] = field(default_factory=lambda: set[str]())
    """The calls that nobody has answered for, by their ids."""


async def run_once(
    path: Path,
    message: str,
    *,
    session: str | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
    as_json: bool,
    later: bool = False,
) -> int:
    """Run one turn and show it; the exit code tells its outcome.

    A call that needs approval is asked about on the terminal, denied where there is none, or with
    `later` left for `corral approve`.
    """
    agent = Agent.from_file(path, model=model, shields=shields, memory=memory)
    screen = Screen(memory=agent.memory_place)
    show: Callable[[Event], None] = _print_json if as_json else screen.show
    try:
        agent.check_turn(message, session)
        await open_agent(agent, quiet=as_json)
        async with catch_interrupts() as interrupts:
            asker = None if later else Asker(agent, interrupts)
            events = agent.stream(message, session=session, wait=not later)
            ended = await follow(events, show, interrupts, asker)
    finally:
        screen.end_line()
        with anyio.CancelScope(shield=True):
            await agent.aclose()
    if ended.waiting:
        click.echo(f"Answer with: corral approve {ended.session}", err=True)
    elif ended.session and not as_json:
        where = f"session {ended.session} is kept in {agent.memory_place}"
        again = f"go on with: --session {ended.session}"
        click.secho(f"{where}; {again}", dim=True, err=True)
    return EXIT_CODES[ended.outcome]


def _print_json(event: Event) -> None:
    sys.stdout.write(EventAdapter.dump_json(event).decode() + "\n")
    sys.stdout.flush()


async def open_agent(agent: Agent, *, quiet: bool = False) -> None:
    """Load what the agent needs, with a progress line."""
    progress = ProgressLine()
    try:
        opened = await agent.open(progress=progress)
    finally:
        progress.close()
    if opened.runtime.profile.demonstration and not quiet:
        click.secho(
            f"model  {opened.runtime.name}: a demonstration model (SmolLM2-135M with Corral's "
            "adapter). For real work: --model ollama:llama3.2:3b",
            dim=True,
            err=True,
        )


async def follow(
    events: AsyncGenerator[Event],
    show: Callable[[Event], None],
    interrupts: Interrupts,
    answer: Callable[[ApprovalRequested], Awaitable[None]] | None = None,
) -> Ended:
    """Show a turn to its end, or to the next Ctrl-C, which stops it.

    `answer` answers the requests for approval. Raises what the turn raises.
    """
    ended = Ended()
    with interrupts.stopping():
        async with aclosing(events) as stream:
            async for event in stream:
                show(event)
                if isinstance(event, TurnStarted):
                    ended.session = event.session
                elif isinstance(event, TurnFinished):
                    ended.outcome = event.outcome
                elif isinstance(event, ApprovalAnswered):
                    ended.waiting.discard(event.call_id)
                elif isinstance(event, ApprovalRequested):
                    ended.waiting.add(event.call.id)
                    if answer is not None:
                        await answer(event)
    return ended
