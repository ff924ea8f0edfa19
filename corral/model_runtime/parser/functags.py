"""Calls in Llama 3.1's tags: `<function=get_weather>{"city": "Oslo"}</function>`.

Models damage them in many ways: the `>` is missing or doubled, a quote or a bracket stands before
the closing tag, or there is none. What is meant is plain as long as the object is whole.
"""

from __future__ import annotations

from pydantic import JsonValue

from corral.model_runtime.parser.literals import BLANKS, Fault
from corral.model_runtime.parser.offer import Found
from corral.model_runtime.parser.region import Region

__all__ = ["FUNCTION", "read_tags"]

FUNCTION = "<function="
_CLOSE = "</function>"
_CLOSE_SLIPS = ("<function>", "<function/>", "<\\/function>")
_STRAY_BEFORE = BLANKS + ">\"'=:,("
_STRAY_AFTER = BLANKS + ">\"'}])"


def read_tags(region: Region, pos: int) -> list[Found] | None:
    """Read calls in tags, one after the other; None if the region does not begin with one.

    Raises:
        Fault: One of them goes wrong.
    """
    text = region.text
    if not text.startswith(FUNCTION, pos):
        return None
    calls: list[Found] = []
    while True:
        name, pos = _read_opening(region, pos + len(FUNCTION))
        arguments, pos = _read_object(region, name, pos)
        calls.append(Found(name, arguments))
        end = _read_closing(region, name, pos)
        pos, codes = region.gap(end)
        if not text.startswith(FUNCTION, pos):
            break
        region.turn.warn(codes)
    region.finish(end, FUNCTION)
    return calls


def _read_opening(region: Region, pos: int) -> tuple[str, int]:
    """The name, and where the object should begin."""
    text = region.text
    start = pos
    while text[pos : pos + 1] in ("'", '"'):
        pos += 1
    quoted = pos > start
    start = pos
    while pos < len(text) and text[pos] not in _STRAY_BEFORE + "{<":
        pos += 1
    name = text[start:pos]
    clean = not quoted and text.startswith(">", pos)
    if clean:
        pos += 1
    while pos < len(text) and text[pos] in _STRAY_BEFORE:
        clean = clean and text[pos] in BLANKS
        pos += 1
    if pos == len(text):
        raise Fault("truncated", f"In the call of {name!r}:")
    if not clean:
        region.turn.warn(["malformed_function_tag"])
    return name, pos


def _read_object(region: Region, name: str, pos: int) -> tuple[dict[str, JsonValue], int]:
    if region.text.startswith(_CLOSE, pos):
        region.turn.warn(["missing_arguments_key"])
        return {}, pos
    where = f"In the call of {name!r}:"
    if not region.text.startswith("{", pos):
        value = region.text[pos] in "[\"'-0123456789"
        raise Fault("arguments_not_object" if value else "malformed_call", where)
    fast = region.decode(pos)
    if fast is not None:
        value, end = fast
        return value if isinstance(value, dict) else {}, end
    scanner = region.scanner(pos, python=False)
    try:
        arguments = scanner.mapping(2)
        region.settle(scanner, name)
    except Fault as fault:
        fault.words = fault.words or where
        raise
    return arguments, scanner.pos


def _read_closing(region: Region, name: str, pos: int) -> int:
    """Where the call ends, with its closing tag or without."""
    text = region.text
    close = pos
    while close < len(text) and text[close] in _STRAY_AFTER:
        close += 1
    if text.startswith(_CLOSE[:-1], close):
        if text[pos:close].strip(BLANKS):
            region.turn.warn(["stray_after_arguments"])
        if text.startswith(_CLOSE, close):
            return close + len(_CLOSE)
        pos = close + len(_CLOSE) - 1
    slip = next((slip for slip in _CLOSE_SLIPS if text.startswith(slip, close)), None)
    if slip is not None:
        region.turn.warn(["missing_function_close"])
        return close + len(slip)
    if region.turn.cut and (close == len(text) or _CLOSE.startswith(text[close:])):
        raise Fault("truncated", f"In the call of {name!r}:")
    region.turn.warn(["missing_function_close"])
    if _CLOSE.startswith(text[close:]):
        return len(text)
    return pos
