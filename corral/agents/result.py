"""What `Agent.run` gives back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from corral.events import (
    ApprovalAnswered,
    ApprovalRequested,
    CallFinished,
    Event,
    Outcome,
    ShieldChecked,
    TurnFinished,
    TurnStarted,
    Usage,
)
from corral.messages import Attachment, ToolResult

__all__ = ["TurnResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """A finished turn. `text` is the answer, or what was shown in its place."""

    outcome: Outcome
    text: str
    session: str
    reason: str | None = None
    usage: Usage = Usage()
    events: tuple[Event, ...] = field(default=(), repr=False)

    @classmethod
    async def collect(cls, stream: AsyncGenerator[Event]) -> TurnResult:
        """Run a turn's stream to its end, and give what came of it. Raises what the stream raises.

        result = await TurnResult.collect(agent.stream("Hello"))
        """
        events: list[Event] = []
        session = ""
        async with aclosing(stream) as turn:
            async for event in turn:
                events.append(event)
                if isinstance(event, TurnStarted):
                    session = event.session
        last = events[-1]
        assert isinstance(last, TurnFinished)
        return cls(
            outcome=last.outcome,
            text=last.text,
            session=session,
            reason=last.reason,
            usage=last.usage,
            events=tuple(events),
        )

    @property
    def pending(self) -> tuple[ApprovalRequested, ...]:
        """The calls that wait for approval where the turn ended as `waiting`, in order."""
        answered = {e.call_id for e in self.events if isinstance(e, ApprovalAnswered)}
        asked = (e for e in self.events if isinstance(e, ApprovalRequested))
        return tuple(e for e in asked if e.call.id not in answered)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The files that the turn's calls made, in order."""
        finished = (e for e in self.events if isinstance(e, CallFinished))
        return tuple(file for each in finished for file in each.attachments)

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """What the turn's calls gave, in order."""
        return tuple(e.result for e in self.events if isinstance(e, CallFinished))

    @property
    def checks(self) -> tuple[ShieldChecked, ...]:
        """The verdicts of the turn's shields, in order."""
        return tuple(e for e in self.events if isinstance(e, ShieldChecked))

    def __str__(self) -> str:
        """The answer."""
        return self.text
