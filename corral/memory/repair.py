"""Makes a log whole for the model: every call has its one result, and no result stands alone.

A crash or a cancel can leave a call without its result. The log keeps what happened; this is how
it is read.
"""

from __future__ import annotations

from collections.abc import Iterable

from corral.messages import AssistantMessage, Message, ToolResult, UserMessage

__all__ = ["INTERRUPTED", "repair"]

INTERRUPTED = "error: the turn was interrupted before this call finished"
"""What the model reads in place of a result that never came."""


def repair(messages: Iterable[Message]) -> list[Message]:
    """Return the conversation that a model may be shown.

    It begins with a user message. Right after each assistant message stand the results of its
    calls, one for each and in their order, whatever order they finished in. A call without a result
    gets an error that says so; of several results the first counts; a result that no call of the
    assistant message before it asked for is left out. Nothing else changes.

    A longer log gives a conversation that begins with that of the shorter one, as long as the
    shorter one had no call open.
    """
    whole: list[Message] = []
    asked: AssistantMessage | None = None
    results: dict[str, ToolResult] = {}

    def close() -> None:
        if asked is not None:
            for call_id, name in _names(asked).items():
                whole.append(results.get(call_id) or _missing(call_id, name))

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


def _missing(call_id: str, name: str) -> ToolResult:
    return ToolResult(call_id=call_id, name=name, content=INTERRUPTED, is_error=True)
