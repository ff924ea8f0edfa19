"""What `Agent.run` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.events import CallFinished, Event, Outcome, ShieldChecked, Usage
from corral.messages import ToolResult

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
