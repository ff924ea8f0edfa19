"""Calls in Llama 3.1's tags: `<function=get_weather>{"city": "Oslo"}</function>`.

Models damage them in many ways: the `>` is missing or doubled, a quote or a bracket stands before
the closing tag, or there is none. What is meant is plain as long as the object is whole.
"""

from __future__ import annotations

from pydantic import JsonValue

from corral.model_runtime.parser.literals import BLANKS, Fault
from corral.model_runtime.parser.offer import LONGEST_NAME, Found
from corral.model_runtime.parser.region import Region

__all__ = ["FUNCTION", "read_tags"]

FUNCTION = "<function="
_CLOSE = "</function>"
_CLOSE_SLIPS = ("<function>", "<function/>", "<\\/function>")
_NOTHING = {"null<": "null_arguments", "[]<": "empty_list_arguments"}
_STRAY_BEFORE = BLANKS + ">\"'=:,("
_STRAY_AFTER = BLANKS + ">\"'}]);"


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
        start = pos
        name, pos = _read_opening(region, pos + len(FUNCTION))
        arguments, pos = _read_object(region, name, pos)
        region.turn.add(calls, Found(name, arguments, start))
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
    name, pos, clean = _read_name(region, pos)
    clean = clean and text.startswith(">", pos)
    if clean:
        pos += 1
    while pos < len(text) and text[pos] in _STRAY_BEFORE:
        clean = clean and text[pos] in BLANKS
        pos += 1
    if pos == len(text):
        raise Fault("truncated", f"In the call of {name!r}:", at=pos)
    if not clean:
        region.turn.warn(["malformed_function_tag"])
    return name, pos


def _read_name(region: Region, pos: int) -> tuple[str, int, bool]:
    """The name, where it ends, and whether it stands there as it should."""
    text = region.text
    end = text.find(">", pos, pos + LONGEST_NAME)
    if end > 0 and text[pos:end] in region.turn.offer.names:
        return text[pos:end], end, True  # Whatever characters an offered name is made of.
    first = pos
    while text[pos : pos + 1] in ("'", '"', *BLANKS):
        pos += 1
    start = pos
    while pos < len(text) and text[pos] not in _STRAY_BEFORE + "{<":
        pos += 1
    return text[start:pos], pos, start == first


def _read_object(region: Region, name: str, pos: int) -> tuple[dict[str, JsonValue], int]:
    if region.text.startswith(_CLOSE, pos):
        region.turn.warn(["missing_arguments_key"])
        return {}, pos
    where = f"In the call of {name!r}:"
    for spelled, code in _NOTHING.items():
        if region.text.startswith(spelled, pos):
            region.turn.warn([code])
            return {}, pos + len(spelled) - 1
    if not region.text.startswith("{", pos):
        value = region.text[pos] in "[\"'-0123456789"
        raise Fault("arguments_not_object" if value else "malformed_call", where, at=pos)
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
    # The rest is looked at only where it is short: copying it at every call would add up.
    cut_close = len(text) - close < len(_CLOSE) and _CLOSE.startswith(text[close:])
    if region.turn.cut and cut_close:
        raise Fault("truncated", f"In the call of {name!r}:", at=len(text))
    region.turn.warn(["missing_function_close"])
    if cut_close:
        return len(text)
    return pos
