"""Event names are a promise: they may be added to, never changed."""

from __future__ import annotations

from typing import get_args

from corral.events import (
    ApprovalAnswered,
    ApprovalRequested,
    CallFinished,
    CallRequested,
    Event,
    EventAdapter,
    ShieldChecked,
    TurnFinished,
    Usage,
    Verdict,
)
from corral.messages import (
    AssistantMessage,
    ImagePart,
    InvalidCall,
    MessageAdapter,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolResult,
    UserMessage,
)

FROZEN = {
    "turn_started",
    "shield_checked",
    "step_started",
    "text_delta",
    "call_requested",
    "approval_requested",
    "approval_answered",
    "step_finished",
    "call_finished",
    "turn_finished",
}


def test_no_event_is_renamed_or_lost():
    union = get_args(Event)[0]
    kinds = {kind.model_fields["kind"].default for kind in get_args(union)}
    assert kinds == FROZEN


def test_events_survive_json():
    call = ToolCall(id="c1", name="f", arguments={"a": [1, None, {"b": "é"}]})
    result = ToolResult(call_id="c1", name="f", content={"x": 1.5}, is_error=True)
    verdict = Verdict(safe=False, categories=("S1", "S10"), score=0.9)
    for event in (
        CallRequested(call=call),
        ApprovalRequested(session="s", turn_id="t", call=call, why="it deletes"),
        ApprovalAnswered(call_id="c1", approved=False, reason="too many"),
        CallFinished(result=result, seconds=0.1),
        ShieldChecked(gate="input", shield="g", verdict=verdict, blocked=True, seconds=0.5),
        TurnFinished(outcome="blocked", text="no", reason="why", usage=Usage(prompt_tokens=3)),
    ):
        assert EventAdapter.validate_json(EventAdapter.dump_json(event)) == event


def test_messages_survive_json():
    for message in (
        SystemMessage(text="s"),
        UserMessage(content="hi"),
        UserMessage(
            content=(TextPart(text="see"), ImagePart(media_type="image/png", data=b"aGVsbG8="))
        ),
        AssistantMessage(text="t", calls=(ToolCall(id="1", name="f", arguments={}),)),
        AssistantMessage(invalid=InvalidCall(id="2", raw="[f(", code="truncated", message="m")),
        ToolResult(call_id="1", name="f", content=[1, "two"]),
    ):
        assert MessageAdapter.validate_json(MessageAdapter.dump_json(message)) == message


def test_usage_adds_up():
    one = Usage(prompt_tokens=1, cached_tokens=2, output_tokens=3)
    assert one + one == Usage(prompt_tokens=2, cached_tokens=4, output_tokens=6)
