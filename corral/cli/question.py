"""Asking a person on the terminal whether a call may run."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from corral.agents import Agent
from corral.cli.interrupts import Interrupts
from corral.events import ApprovalRequested

__all__ = ["NOBODY", "Asker"]

NOBODY = "nobody was there to ask, since this is no terminal"
"""What the model reads where there is nobody to answer."""


class Asker:
    """Answers a turn's requests for approval: by a question where there is a terminal, else no."""

    def __init__(self, agent: Agent, interrupts: Interrupts) -> None:
        """Answer for `agent`. Ctrl-C at the question leaves it open, and counts as any other."""
        self._agent = agent
        self._interrupts = interrupts
        self._session: Any = None

    async def __call__(self, request: ApprovalRequested) -> None:
        """Ask, and write the answer down."""
        if not sys.stdin.isatty() or _screen() is None:
            await self._agent.deny(request.session, request.call.id, NOBODY)
            return
        try:
            said = (await self._line(f"Run {request.call.name}? [y/N, or why not] ")).strip()
        except KeyboardInterrupt:  # the editor has Ctrl-C as a key, not as a signal
            self._interrupts.add()
            return
        except EOFError:
            said = ""
        if said.lower() in ("y", "yes"):
            await self._agent.approve(request.session, request.call.id)
        else:
            reason = None if said.lower() in ("", "n", "no") else said
            await self._agent.deny(request.session, request.call.id, reason)

    async def _line(self, question: str) -> str:
        if self._session is None:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.history import DummyHistory
            from prompt_toolkit.output import create_output

            self._session = PromptSession(
                history=DummyHistory(),
                output=create_output(stdout=_screen()),
                reserve_space_for_menu=0,
            )
        return str(await self._session.prompt_async(question, handle_sigint=False))


def _screen() -> TextIO | None:
    """Where a question is seen: the error stream, with all that is about the answer, if it can."""
    return next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)
