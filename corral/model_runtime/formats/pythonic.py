"""Calls as Llama 3.2 writes them: `[get_weather(city='Oslo', days=3), now()]`.

The writing half; `corral.model_runtime.parser` reads. What is written here is always read back as
the same calls, which Meta's own encoder can't promise: it leaves quotes unescaped and writes
dictionaries as `{k="v"}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import JsonValue

from corral.messages import ToolCall

__all__ = ["encode_arguments", "encode_calls", "encode_json", "encode_value"]


def encode_calls(calls: Iterable[ToolCall], *, quote: str = "'") -> str:
    """Write calls as a pythonic list, its strings in `quote` where they don't hold one.

    Where an argument's name is no identifier, or a tool's name holds what Python has no place for,
    they become JSON objects joined by `; `, which the parser reads as well.
    """
    calls = tuple(calls)
    if all(_is_plain(call) for call in calls):
        return f"[{', '.join(_call(call, quote) for call in calls)}]"
    return encode_json(calls)


def encode_json(calls: Iterable[ToolCall]) -> str:
    """Write calls as `{"name": ..., "parameters": {...}}`, several joined by `; `."""
    return "; ".join(
        json.dumps({"name": call.name, "parameters": call.arguments}, ensure_ascii=False)
        for call in calls
    )


def _is_plain(call: ToolCall) -> bool:
    """Whether a call's names can stand in a pythonic call; hyphens and dots can."""
    return (
        call.name[:1].isidentifier()
        and len(call.name) < _LONGEST_NAME
        and all(char.isalnum() or char in "_-.:/" for char in call.name)
        and all(key.isidentifier() and key.isascii() for key in call.arguments)
    )


def _call(call: ToolCall, quote: str) -> str:
    return f"{call.name}({encode_arguments(call, quote=quote)})"


def encode_arguments(call: ToolCall, *, quote: str = "'") -> str:
    """Write a call's arguments as Python's keyword arguments."""
    return ", ".join(
        f"{key}={encode_value(value, quote=quote)}" for key, value in call.arguments.items()
    )


def encode_value(value: JsonValue, *, quote: str = "'") -> str:
    """Write a JSON value as a Python literal."""
    match value:
        case None | bool() | int() | float():
            return repr(value)
        case str():
            return _string(value, quote)
        case list():
            return f"[{', '.join(encode_value(item, quote=quote) for item in value)}]"
        case dict():
            pairs = (
                f"{_string(k, quote)}: {encode_value(v, quote=quote)}" for k, v in value.items()
            )
            return f"{{{', '.join(pairs)}}}"


def _string(text: str, quote: str) -> str:
    """A quoted string, in the other quotes where it holds these and not those."""
    other = "'" if quote == '"' else '"'
    if quote in text and other not in text:
        quote = other
    out = [quote]
    for char in text:
        if char == quote or char == "\\":
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return "".join(out) + quote


_LONGEST_NAME = 128
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
