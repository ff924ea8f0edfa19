"""What JSON Schema's `format` asks of a string, where the `jsonschema` package alone doesn't check.

The package knows dates, addresses and UUIDs; the rest it leaves to packages that are seldom
installed, and without them passes anything. What is checked here is as strict as the format's
standard, with one exception: a time needs no offset, since models leave it out, and so does Python.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from jsonschema import FormatChecker

__all__ = ["VALUE_FORMATS", "format_checker"]


def _is_date_time(text: str) -> bool:
    """RFC 3339: `2025-03-04T09:30:00Z`."""
    if text[10:11] not in ("T", "t", " "):
        return False
    datetime.date.fromisoformat(text[:10])
    return _is_time(text[11:])


def _is_time(text: str) -> bool:
    """RFC 3339: `09:30:00+01:00`."""
    datetime.time.fromisoformat(text.upper())
    return text[2:3] == ":" and text[5:6] == ":"


def _is_duration(text: str) -> bool:
    """ISO 8601: `P3DT4H`, `P2W`."""
    date, mark, time = text[1:].partition("T")
    if text[:1] != "P" or (mark and not time):
        return False
    weeks = date.endswith("W") and not mark and _are_amounts(date, "W")
    return weeks or (bool(date or time) and _are_amounts(date, "YMD") and _are_amounts(time, "HMS"))


def _are_amounts(text: str, units: str) -> bool:
    """Whether a text is whole numbers, each followed by one of the units, in the units' order."""
    digits = ""
    for char in text:
        if char.isascii() and char.isdigit():
            digits += char
            continue
        at = units.find(char)
        if not digits or at < 0:
            return False
        units = units[at + 1 :]
        digits = ""
    return not digits


def _is_uri(text: str) -> bool:
    """RFC 3986, with a scheme: `https://example.org/a`."""
    return text.isascii() and _is_iri(text)


def _is_iri(text: str) -> bool:
    """RFC 3987: a URI that may hold letters of any language."""
    parts = urlsplit(text)
    return bool(parts.scheme) and bool(parts.netloc or parts.path) and _is_reference(text)


def _is_reference(text: str) -> bool:
    """A URI with or without its scheme."""
    urlsplit(text)
    return not any(char.isspace() or char in '<>"{}|\\^`' or char < " " for char in text)


def _is_hostname(text: str) -> bool:
    """RFC 1123: `example.org`."""
    labels = text.split(".")
    return 0 < len(text) <= 253 and all(
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "a").isalnum()
        and not (label.startswith("-") or label.endswith("-"))
        for label in labels
    )


def _is_json_pointer(text: str) -> bool:
    """RFC 6901: `/rows/0`."""
    steps = text.replace("~0", "").replace("~1", "")
    return (not text or text.startswith("/")) and "~" not in steps


VALUE_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "time": _is_time,
    "duration": _is_duration,
    "uri": _is_uri,
    "iri": _is_iri,
    "uri-reference": _is_reference,
    "iri-reference": _is_reference,
    "hostname": _is_hostname,
    "json-pointer": _is_json_pointer,
}
"""Format -> whether a string is of it; a `ValueError` says that it is not."""


def format_checker() -> FormatChecker:
    """The package's checker, with what it lacks."""
    from jsonschema import FormatChecker

    checker = FormatChecker()
    for name, check in VALUE_FORMATS.items():
        checker.checks(name, raises=ValueError)(_of_strings(check))
    return checker


def _of_strings(check: Callable[[str], bool]) -> Callable[[object], bool]:
    """A check that passes whatever is no string, as formats do."""
    return lambda value: not isinstance(value, str) or check(value)
