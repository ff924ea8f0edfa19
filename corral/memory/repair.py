"""Makes a log whole for the model: every call has its one result, and no result stands alone.

A crash or a cancel can leave a call without its result. The log keeps what happened; this is how
it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral.memory.store import CallState
from corral.messages import AssistantMessage, Message, ToolResult, UserMessage

__all__ = ["INTERRUPTED", "NOT_BEGUN", "UNKNOWN", "WITHDRAWN", "denied", "fate", "repair"]

INTERRUPTED = "error: the turn was interrupted before this call finished"
"""What the model reads in place of a result that never came."""

UNKNOWN = (
    "error: interrupted while this call ran. Whether it took effect is unknown, and it was not run "
    "again"
)
"""The same for a call that had begun."""

WITHDRAWN = (
    "error: this call waited for the user's approval and was withdrawn, because the user said "
    "something else instead. It did not run"
)
"""The same for a call that nobody had answered for."""

NOT_BEGUN = "error: the turn was interrupted before this call began. It did not run"
"""The same for a call that was approved and not yet begun."""


def denied(reason: str | None) -> str:
    """The result of a call that a person said no to."""
    said = f": {reason}" if reason else ""
    return f"error: this call was not allowed{said}. It did not run. Do not make it again"


def fate(state: CallState) -> str:
    """What the model reads in place of the result of a call that nothing more will come of."""
    if state.began:
        return UNKNOWN
    if state.why is None:
        return INTERRUPTED
    if state.approved is None:
        return WITHDRAWN
    return NOT_BEGUN if state.approved else denied(state.reason)


def repair(messages: Iterable[Message], fates: Mapping[str, str] | None = None) -> list[Message]:
    """Return the conversation that a model may be shown.

    It begins with a user message. Right after each assistant message stand the results of its
    calls, one for each and in their order, whatever order they finished in. A call without a result
    gets an error that says so; of several results the first counts; a result that no call of the
    assistant message before it asked for is left out. Nothing else changes.

    A longer log gives a conversation that begins with that of the shorter one, as long as the
    shorter one had no call open.

    Args:
        messages: The log.
        fates: What is known of calls without a result, by their ids; else `INTERRUPTED` is said.
    """
    told = fates or {}
    whole: list[Message] = []
    asked: AssistantMessage | None = None
    results: dict[str, ToolResult] = {}

    def close() -> None:
        if asked is not None:
            for call_id, name in _names(asked).items():
                whole.append(results.get(call_id) or _missing(call_id, name, told))

    for message in messages:
        if isinstance(message, ToolResult):
            results.setdefault(message.call_id, message)
            continue
        close()
        asked, results = None, {}
        if whole or isinstance(message, UserMessage):
            whole.append(message)
            asked = message if isinstance(message, AssistantMessage) else None
    close()
    return whole


def _names(message: AssistantMessage) -> dict[str, str]:
    """The tool's name for each call id of a message; none for an unreadable call."""
    names = {call.id: call.name for call in message.calls}
    return {call_id: names.get(call_id, "") for call_id in message.call_ids}


def _missing(call_id: str, name: str, told: Mapping[str, str]) -> ToolResult:
    said = told.get(call_id, INTERRUPTED)
    return ToolResult(call_id=call_id, name=name, content=said, is_error=True)
