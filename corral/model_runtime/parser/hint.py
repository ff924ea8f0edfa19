"""Whether a text quotes a call: worth a hint to the agent, which may ask the model again."""

from __future__ import annotations

from pydantic import JsonValue

from corral.model_runtime.parser.literals import BLANKS
from corral.model_runtime.parser.offer import Offer, in_name

__all__ = ["quotes_call"]


def quotes_call(text: str, offer: Offer, answer: dict[str, JsonValue] | None) -> bool:
    """Whether a message that is text looks as if a call was meant.

    Args:
        text: The message.
        offer: What was offered.
        answer: The object with which the text begins, if it could be read.
    """
    start = text[: len(text) - len(text.lstrip(BLANKS)) + 1][-1:]
    if start == "{":
        return answer is not None and _object_hints(answer, offer)
    if start == "[":
        return False
    return _quotes_object(text, offer) or any(_quotes_name(text, name) for name in offer.names)


def _object_hints(fields: dict[str, JsonValue], offer: Offer) -> bool:
    """Whether an answer in JSON names a tool, as its `name` or as its first key."""
    first = next(iter(fields), "")
    name = fields.get("name")
    inner = fields.get("function")
    if isinstance(inner, dict):
        name = inner.get("name")
    return first in offer.names or (isinstance(name, str) and name in offer.names)


def _quotes_object(text: str, offer: Offer) -> bool:
    """Whether a call in JSON stands somewhere in the text."""
    longest = max(map(len, offer.names), default=0)
    pos = text.find('"name"')
    while pos >= 0:
        pos += len('"name"')
        while text[pos : pos + 1] in (*BLANKS, ":"):
            pos += 1
        close = text.find('"', pos + 1, pos + longest + 2)
        if close > pos and text[pos] == '"' and text[pos + 1 : close] in offer.names:
            return '"parameters"' in text or '"arguments"' in text
        pos = text.find('"name"', pos)
    return False


def _quotes_name(text: str, name: str) -> bool:
    """Whether `name(`, `name.call(` or `<function=name` stands somewhere in the text."""
    if f"<function={name}" in text:
        return True
    for call in (f"{name}(", f"{name}.call("):
        pos = text.find(call)
        while pos >= 0:
            if pos == 0 or not in_name(text[pos - 1]):
                return True
            pos = text.find(call, pos + 1)
    return False
