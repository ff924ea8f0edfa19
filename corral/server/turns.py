"""An agent's turn for a request: its session or its client's history, its events, its answer."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from corral.events import (
    ApprovalRequested,
    CallFinished,
    Event,
    Outcome,
    StepStarted,
    TextDelta,
    TurnFinished,
    TurnStarted,
    Usage,
)
from corral.memory import Store
from corral.memory.store import check_key
from corral.messages import Message, UserMessage
from corral.model_runtime import Sampling
from corral.server.catalogue import ServedAgent
from corral.server.errors import ApiError

__all__ = ["Answer", "Ask", "Session", "answer_turn", "sampled", "session_for"]

_WAITING = "this needs the approval of whoever runs the server before it is done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session by the name that the client gave it, and by its key in the agent's memory."""

    name: str
    key: str
    new: bool = False
    """Made for this request: it begins with the history that the request brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request asks of an agent.

    With a `session` the agent remembers what came before; without one `history` is it, and the
    turn is forgotten when it ends.
    """

    served: ServedAgent
    message: UserMessage
    session: Session | None = None
    history: Sequence[Message] = ()
    """What the client says was said before. A session that isn't new goes by its own memory."""
    sampling: Sampling | None = None


async def answer_turn(ask: Ask) -> AsyncGenerator[Event]:
    """Run the turn; see `Agent.stream` for what comes and what is raised."""
    agent, served, session = ask.served.agent, ask.served, ask.session
    agent.check_turn(ask.message, session.key if session else None)
    _check_images(served, [*ask.history, ask.message])
    if session is not None:
        if session.new:
            kept = await served.clearance.keep(ask.history)
            await _seed(served, served.memory, session.key, kept)
        agent = agent.variant(sampling=ask.sampling)
        async with aclosing(agent.stream(ask.message, session=session.key, wait=False)) as events:
            async for event in events:
                yield event
        return
    kept = await served.clearance.keep(ask.history)
    agent = agent.variant(memory=served.scratch, sampling=ask.sampling)
    key = secrets.token_hex(16)
    try:
        await _seed(served, served.scratch, key, kept)
        answer = Answer()
        async with aclosing(agent.stream(ask.message, session=key, wait=False)) as events:
            async for event in events:
                answer.feed(event)
                if isinstance(event, TurnFinished) and event.outcome in ("answered", "blocked"):
                    safe = event.outcome == "answered"
                    served.clearance.learn(kept, ask.message, answer.text, safe=safe)
                yield event
    finally:
        with anyio.CancelScope(shield=True):
            await served.scratch.forget(key)


def _check_images(served: ServedAgent, messages: Sequence[Message]) -> None:
    if served.runtime.profile.images:
        return
    for message in messages:
        if isinstance(message, UserMessage) and not isinstance(message.content, str):
            raise ApiError(
                400,
                f"{served.name!r} sees no images: its model is {served.runtime.name}. Send text.",
                param="messages",
            )


async def _seed(served: ServedAgent, store: Store, key: str, history: Sequence[Message]) -> None:
    """Begin a session with what the client says was said before."""
    if not history:
        return
    leased = store.turn(key, agent=f"{served.name} (told by a client)", model="none")
    async with leased as turn:
        for message in history:
            await turn.append(message)
        await turn.finish("answered")


@dataclass(slots=True)
class Answer:
    """A turn's answer as a client is sent it: the texts of all steps, and how the turn ended."""

    text: str = ""
    turn_id: str = ""
    outcome: Outcome = "cancelled"
    reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    tools: list[str] = field(default_factory=list[str])
    _gap: bool = False
    _asked: list[str] = field(default_factory=list[str])

    def feed(self, event: Event) -> str:
        """Take the turn's next event; what it adds to the answer comes back.

        A turn that a shield stops ends with the refusal, behind what had been cleared before.
        """
        out = ""
        if isinstance(event, TextDelta):
            out = self._joined(event.text)
        elif isinstance(event, StepStarted):
            self._gap = True
        elif isinstance(event, TurnStarted):
            self.turn_id = event.turn_id
        elif isinstance(event, ApprovalRequested):
            self._asked.append(event.call.name)
        elif isinstance(event, CallFinished):
            self.tools.append(event.result.name)
        elif isinstance(event, TurnFinished):
            self.outcome, self.reason, self.usage = event.outcome, event.reason, event.usage
            if event.outcome == "blocked":
                self._gap = True
                out = self._joined(event.text)
            elif event.outcome == "waiting":
                self._gap = True
                out = self._joined(f"({', '.join(self._asked)}: {_WAITING})")
        self.text += out
        return out

    @property
    def finish(self) -> str:
        """Why it ended, in the words that both interfaces use."""
        if self.outcome == "blocked":
            return "content_filter"
        return "length" if self.outcome == "limit" else "stop"

    def details(self, session: Session | None) -> Mapping[str, Any]:
        """What Corral says of the turn beyond the interface's own fields."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "turn_id": self.turn_id,
            "session": session.name if session else None,
            "tools": self.tools,
        }

    def _joined(self, text: str) -> str:
        """`text`, set apart from what an earlier step said."""
        gap = "\n\n" if text and self.text and self._gap else ""
        self._gap = self._gap and not text
        return gap + text


def sampled(
    base: Sampling,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
) -> Sampling:
    """The agent's sampling with a client's wishes; the answer may get shorter, never longer."""
    return replace(
        base,
        temperature=base.temperature if temperature is None else temperature,
        top_p=base.top_p if top_p is None else top_p,
        max_tokens=base.max_tokens if max_tokens is None else min(base.max_tokens, max_tokens),
        seed=base.seed if seed is None else seed,
    )


def session_for(given: str | None, *, client: str | None, required: bool) -> Session | None:
    """The session that a request names.

    Clients that have keys of their own (`client` is the key's name) have sessions of their own.

    Raises:
        ApiError: 400, none is named and one is `required`.
        ConfigError: It can't name a session.
    """
    if not given:
        if required:
            raise ApiError(
                400,
                "This server keeps every turn in a session. Name one: X-Corral-Session: NAME",
                code="session_required",
            )
        return None
    return Session(name=given, key=check_key(f"{client}:{given}" if client else given))
