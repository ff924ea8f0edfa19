"""`corral chat`: a conversation on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click

from corral.agents import Agent
from corral.cli.run import follow, open_agent
from corral.cli.show import Screen
from corral.errors import CorralError, InputError

__all__ = ["chat_loop"]

_PROMPT = "> "


async def chat_loop(
    path: Path,
    *,
    session: str | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
) -> int:
    """Read a line, run a turn, until the user leaves (Ctrl-D, `/bye`, or Ctrl-C twice)."""
    agent = Agent.from_file(path, model=model, shields=shields, memory=memory)
    try:
        session = agent.new_session() if session is None else session
        agent.check_turn("hello", session)
        await open_agent(agent)
        await _talk(agent, session)
    finally:
        with anyio.CancelScope(shield=True):
            await agent.aclose()
    return 0


async def _talk(agent: Agent, session: str) -> None:
    click.secho(
        f"session {session} is kept in {agent.memory_place}. Ctrl-C stops an answer, "
        "a second one leaves, as does Ctrl-D.",
        dim=True,
        err=True,
    )
    read = _Reader()
    interrupts = 0
    while True:
        try:
            line = await read()
        except EOFError:
            return
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                return
            click.secho("(Ctrl-C again leaves)", dim=True, err=True)
            continue
        if line.strip() == "/bye":
            return
        interrupts = 0
        screen = Screen()
        try:
            ended = await follow(agent.stream(line, session=session), screen.show)
        except InputError:
            continue  # an empty line
        except CorralError as error:
            screen.end_line()
            click.secho(f"corral: {error}", fg="red", err=True)
            continue
        screen.end_line()
        if ended.interrupts:
            click.secho("(stopped)", dim=True, err=True)
            interrupts = ended.interrupts
        if interrupts > 1:
            return


class _Reader:
    """Reads lines: with editing and history on a terminal, plainly from a pipe."""

    def __init__(self) -> None:
        self._session: Any = None
        if sys.stdin.isatty():
            from prompt_toolkit import PromptSession

            self._session = PromptSession(reserve_space_for_menu=0)

    async def __call__(self) -> str:
        if self._session is not None:
            return str(await self._session.prompt_async(_PROMPT))
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            raise EOFError
        return line.rstrip("\n")
