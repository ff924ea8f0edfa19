"""What happens in a turn, as plain data, in the order in which it happens.

`Agent.stream` yields these; `corral run --json` prints them one a line. Each carries a `kind`, and
the set of kinds is frozen by a test: names may be added, never changed. A front end matches on the
kinds that it knows and passes over the rest.

    turn_started  shield_checked(input)
      step_started  text_delta*  call_requested*  step_finished                     once a step
      approval_requested*  approval_answered*  call_finished*
    shield_checked(answer)  turn_finished

`text_delta` holds only text that the answer gate has cleared. A turn that is resumed begins with
another `turn_started`, which says so.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from corral.messages import Attachment, StopReason, ToolCall, ToolResult

__all__ = [
    "ApprovalAnswered",
    "ApprovalRequested",
    "CallFinished",
    "CallRequested",
    "Event",
    "EventAdapter",
    "Gate",
    "Outcome",
    "ShieldChecked",
    "StepFinished",
    "StepStarted",
    "TextDelta",
    "TurnFinished",
    "TurnStarted",
    "Usage",
    "Verdict",
]

Gate: TypeAlias = Literal["input", "call", "result", "answer"]
"""Where a shield stands: on the user's message, a tool call, a tool's result, the answer."""

Outcome: TypeAlias = Literal["answered", "blocked", "limit", "failed", "cancelled", "waiting"]
"""How a turn ended: with an answer, at a gate, at one of its limits, by an error, by its caller.

`waiting` is an end for now: a call waits for approval, and `Agent.resume` goes on from there.
"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Frozen):
    """What a shield found.

    `score` is the shield's probability, 0 to 1, that the text is unsafe, where it has one.
    `categories` are the shield's codes, such as Llama Guard's `S1`. `reason` is set when there is
    no honest verdict (the shield failed, timed out or babbled): such a verdict is never safe.
    """

    safe: bool
    categories: tuple[str, ...] = ()
    score: float | None = None
    reason: str | None = None


class Usage(_Frozen):
    """Tokens that passed through a model.

    `cached_tokens` of `prompt_tokens` were not computed again.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add up two uses."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


class TurnStarted(_Frozen):
    """The session is leased and the user's message is on disk.

    `resumed` tells a turn that goes on, with the `turn_id` it had, from one that begins.
    """

    kind: Literal["turn_started"] = "turn_started"
    turn_id: str
    session: str
    agent: str
    model: str
    resumed: bool = False


class ShieldChecked(_Frozen):
    """A gate's shield gave its verdict, in `seconds` of wall time."""

    kind: Literal["shield_checked"] = "shield_checked"
    gate: Gate
    shield: str
    verdict: Verdict
    blocked: bool
    seconds: float


class StepStarted(_Frozen):
    """One generation begins. Steps of a turn count from 1."""

    kind: Literal["step_started"] = "step_started"
    step: int


class TextDelta(_Frozen):
    """The next cleared piece of the answer."""

    kind: Literal["text_delta"] = "text_delta"
    text: str


class CallRequested(_Frozen):
    """The model asked for a call. It has not run yet, and may still be refused."""

    kind: Literal["call_requested"] = "call_requested"
    call: ToolCall


class ApprovalRequested(_Frozen):
    """A call waits for a person's yes or no, and the turn with it. The request is on disk.

    Of the message that asked for the call, no call runs before all of its requests are answered.
    `why` says what makes the call one to ask about.
    """

    kind: Literal["approval_requested"] = "approval_requested"
    session: str
    turn_id: str
    call: ToolCall
    why: str


class ApprovalAnswered(_Frozen):
    """A request was answered, and the answer is on disk. An approved call runs after this.

    `reason` is what was said to a no; the model reads it.
    """

    kind: Literal["approval_answered"] = "approval_answered"
    call_id: str
    approved: bool
    reason: str | None = None


class CallFinished(_Frozen):
    """A call's result is on disk.

    An unreadable or refused call has a result too: the error the model will read. `attachments`
    are the files that the tool made; they are the caller's to save and not kept in the session.
    """

    kind: Literal["call_finished"] = "call_finished"
    result: ToolResult
    seconds: float
    attachments: tuple[Attachment, ...] = ()


class StepFinished(_Frozen):
    """One generation ended."""

    kind: Literal["step_finished"] = "step_finished"
    step: int
    stop_reason: StopReason
    usage: Usage
    seconds: float


class TurnFinished(_Frozen):
    """The turn is over and all of it is on disk.

    `text` is the answer as the user was shown it: the refusal when the turn was blocked, what had
    been cleared when it was cut short. `reason` names the limit, the gate or the error of a turn
    that was not answered.
    """

    kind: Literal["turn_finished"] = "turn_finished"
    outcome: Outcome
    text: str
    reason: str | None = None
    usage: Usage = Usage()
    seconds: float = 0.0


Event: TypeAlias = Annotated[
    TurnStarted
    | ShieldChecked
    | StepStarted
    | TextDelta
    | CallRequested
    | ApprovalRequested
    | ApprovalAnswered
    | StepFinished
    | CallFinished
    | TurnFinished,
    Field(discriminator="kind"),
]

EventAdapter: TypeAdapter[Event] = TypeAdapter(Event)
"""Reads and writes any event as JSON."""
