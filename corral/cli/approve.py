"""`corral approve`: answering for calls that wait, and the rest of their turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from corral.agents import Agent
from corral.cli.interrupts import catch_interrupts
from corral.cli.question import Asker
from corral.cli.run import EXIT_CODES, follow, open_agent
from corral.cli.sessions import open_store, pending_text
from corral.cli.show import Screen
from corral.errors import ConfigError, SessionBusy
from corral.memory import PendingCall, UnfinishedTurn
from corral.memory.sqlite import default_path

__all__ = ["Answer", "answer_and_resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the user says, and to which call: one by its id, all of them, or the only one."""

    call_id: str | None
    approved: bool
    reason: str | None
    every: bool


async def answer_and_resume(
    session: str,
    answer: Answer,
    *,
    file: Path | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
) -> int:
    """Write the answer down, then run the rest of the turn and show it."""
    async with open_store(memory) as store:
        turn = await store.unfinished(session)
        if turn is None:
            raise ConfigError(
                f"Nothing waits in the conversation {session!r}. See: corral sessions list"
            )
        calls = _chosen(turn.pending, answer, session)
        path = file or (Path(turn.source) if turn.source else None)
        agent = None
        if path is not None:  # read before the answer is given, so that nothing is wrong after it
            where = memory or default_path()
            agent = Agent.from_file(path, model=model or turn.model, shields=shields, memory=where)
        for call in calls:
            await store.answer(
                session, call.call.id, approved=answer.approved, reason=answer.reason
            )
    if agent is None:
        click.echo("Answered. The agent came from no file: its program goes on.", err=True)
        return 0
    return await _resume(agent, session, turn)


def _chosen(pending: Sequence[PendingCall], answer: Answer, session: str) -> Sequence[PendingCall]:
    """The calls that the answer is for; none where nothing is left to answer."""
    if answer.call_id is not None:
        found = [call for call in pending if call.call.id == answer.call_id]
        if not found:
            raise ConfigError(
                f"No call {answer.call_id!r} waits in the conversation {session!r}. "
                f"See: corral sessions show {session}"
            )
        return found
    if len(pending) > 1 and not answer.every:
        listed = "\n".join(pending_text(call) for call in pending)
        raise ConfigError(f"{len(pending)} calls wait. Name one by its id, or say --all.\n{listed}")
    return pending


async def _resume(agent: Agent, session: str, turn: UnfinishedTurn) -> int:
    screen = Screen(memory=agent.memory_place)
    try:
        await open_agent(agent)
        async with catch_interrupts() as interrupts:
            asker = Asker(agent, interrupts)
            ended = await follow(agent.resume(session), screen.show, interrupts, asker)
    except SessionBusy:
        click.echo(f"Answered. The turn {turn.id} goes on in its own process.", err=True)
        return 0
    finally:
        screen.end_line()
        with anyio.CancelScope(shield=True):
            await agent.aclose()
    return EXIT_CODES[ended.outcome]
