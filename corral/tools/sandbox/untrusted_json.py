"""JSON from untrusted code, with bounds on its size and depth that hold before it is parsed."""

from __future__ import annotations

import json
import math
import re

from pydantic import JsonValue

__all__ = ["read_untrusted_json"]

# Strings whole, so that what is in them doesn't count; brackets; digits. Possessive, and matching
# an open string to its end, so that the time it takes grows with the length and no faster.
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]|[0-9]++', re.S)
_MOST_DIGITS = 400


def read_untrusted_json(data: bytes, *, max_bytes: int = 1 << 20, max_depth: int = 32) -> JsonValue:
    """The value that `data` holds.

    Args:
        data: UTF-8 JSON.
        max_bytes: How long it may be.
        max_depth: How many arrays and objects may lie in one another.

    Raises:
        ValueError: It is no JSON, is too long or too deep, or holds NaN, an infinity, or a number
            of hundreds of digits.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data)} bytes, and may have {max_bytes}")
    depth = 0
    for mark in _MARKS.finditer(data):
        first = data[mark.start()]
        depth += 1 if first in b"[{" else -1 if first in b"]}" else 0
        if depth > max_depth:
            raise ValueError(f"it is nested more than {max_depth} deep")
        if first in b"0123456789" and mark.end() - mark.start() > _MOST_DIGITS:
            raise ValueError(f"it holds a number of more than {_MOST_DIGITS} digits")
    return json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"it holds a number beyond all bounds, {text!r}")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")
