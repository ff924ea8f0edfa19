"""Calls as Llama 3.1 writes them: JSON, `<function=...>` tags, and the built-ins' own form.

`corral.model_runtime.formats.pythonic` has Llama 3.2's. Whatever is written here, the parser reads
back as the same calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from corral.messages import ToolCall
from corral.model_runtime.formats.pythonic import encode_arguments, encode_json

__all__ = ["encode_builtin", "encode_json", "encode_tags", "encode_typed_json"]


def encode_typed_json(calls: Iterable[ToolCall]) -> str:
    """Write calls as Meta's example of Llama 3.1 does: with a `type`, on several lines."""
    return "; ".join(
        json.dumps(
            {"type": "function", "name": call.name, "parameters": call.arguments},
            ensure_ascii=False,
            indent=4,
        )
        for call in calls
    )


def encode_tags(calls: Iterable[ToolCall]) -> str:
    """Write calls as `<function=name>{...}</function>`, one after another."""
    return "".join(
        f"<function={call.name}>{json.dumps(call.arguments, ensure_ascii=False)}</function>"
        for call in calls
    )


def encode_builtin(call: ToolCall) -> str:
    """Write a call of a built-in tool, such as `brave_search.call(query="...")`."""
    if all(key.isidentifier() and key.isascii() for key in call.arguments):
        arguments = encode_arguments(call, quote='"')
        return f"{call.name}.call({arguments})"
    return encode_json([call])
