"""`corral chat`: a conversation on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click

from corral.agents import Agent
from corral.cli.interrupts import Interrupts, catch_interrupts
from corral.cli.question import Asker
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
    reader = _Reader()
    async with catch_interrupts() as interrupts:
        while interrupts.count < 2:
            try:
                line = await reader.read(interrupts)
            except EOFError:
                return
            if line is None:
                click.secho("(Ctrl-C again leaves)", dim=True, err=True)
                continue
            if line.strip() == "/bye":
                return
            interrupts.forget()
            await _answer(agent, line, session, interrupts)


async def _answer(agent: Agent, line: str, session: str, interrupts: Interrupts) -> None:
    screen = Screen(memory=agent.memory_place)
    try:
        asker = Asker(agent, interrupts)
        await follow(agent.stream(line, session=session), screen.show, interrupts, asker)
    except InputError:
        return  # an empty line
    except CorralError as error:
        screen.end_line()
        click.secho(f"corral: {error}", fg="red", err=True)
        return
    screen.end_line()
    if interrupts.count:
        click.secho("(stopped)", dim=True, err=True)


class _Reader:
    """Reads lines: with editing and history on a terminal, plainly from a pipe."""

    def __init__(self) -> None:
        self._session: Any = None
        if sys.stdin.isatty():
            from prompt_toolkit import PromptSession

            self._session = PromptSession(reserve_space_for_menu=0)

    async def read(self, interrupts: Interrupts) -> str | None:
        """The next line; None where Ctrl-C came instead.

        Raises:
            EOFError: There are no more.
        """
        line: str | None = None
        with interrupts.stopping():
            try:
                line = await self._line()
            except KeyboardInterrupt:  # the editor has Ctrl-C as a key, not as a signal
                interrupts.add()
        return line

    async def _line(self) -> str:
        if self._session is not None:
            return str(await self._session.prompt_async(_PROMPT, handle_sigint=False))
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            raise EOFError
        return line.rstrip("\n")
