"""Strings of Python's syntax as regular expressions: free ones, formats, patterns.

The formats are those of JSON Schema 2020-12 (RFC 3339 dates and times, RFC 4122 UUIDs, ...), each
no wider than its definition and at times narrower, so that what is written also validates.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["FORMATS", "formatted", "free", "json_pattern", "patterned"]

# One character: itself, or escaped. Written out they are what Python reads.
_CHAR = r"[^{quote}\\\x00-\x1f\x7f-\x9f]|\\[\\'\"nrt]"
_PLAIN = r"[^{quote}\\\x00-\x1f\x7f-\x9f]"

_YEAR = r"[0-9]{4}"
_LEAP = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DAY = (
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"({_YEAR}-{_DAY}|{_LEAP}-02-29)"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_CLOCK})"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,5}}"
_PATH = r"(\/[A-Za-z0-9._~=&?+-]{0,60}){0,8}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P([0-9]{1,4}D(T[0-9]{1,4}[HMS])?|T[0-9]{1,4}[HMS]|[0-9]{1,4}[WMY])",
    "email": rf"[A-Za-z0-9_%+-]{{1,30}}(\.[A-Za-z0-9_%+-]{{1,30}}){{0,3}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "uri": rf"[a-z][a-z0-9+.-]{{1,15}}:\/\/{_HOST}(:[0-9]{{1,5}})?{_PATH}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}
"""Format -> the regular expression of its texts."""


def free(least: int, most: int) -> str:
    """A terminal for strings of between `least` and `most` characters."""
    return _either(lambda quote: f"({_CHAR.format(quote=quote)}){{{least},{most}}}")


def formatted(name: str) -> str:
    """A terminal for strings of a format, a key of `FORMATS`."""
    return _either(lambda _: FORMATS[name])


def json_pattern(name: str) -> str | None:
    """The pattern of a format for a JSON Schema; None for one that is no key of `FORMATS`."""
    inside = FORMATS.get(name)
    return None if inside is None else "^(" + inside.replace("\\/", "/") + ")$"


def patterned(pattern: str, least: int, most: int) -> str:
    """A terminal for strings that hold a match of an ECMA 262 pattern, as far as Rust reads it."""
    start = "" if pattern.startswith("^") else "(.|\\n)*"
    end = "" if pattern.endswith("$") and not pattern.endswith("\\$") else "(.|\\n)*"
    core = pattern.removeprefix("^")
    core = core if end else core[:-1]
    slashed = core.replace("\\/", "/").replace("/", "\\/")
    forms = (
        f"{_literal(quote)} (/{start}({slashed}){end}/ & /{_PLAIN.format(quote=quote)}"
        f"{{{least},{most}}}/) {_literal(quote)}"
        for quote in "'\""
    )
    return " | ".join(forms)


def _either(inside: Callable[[str], str]) -> str:
    """A terminal for a string in either kind of quotes."""
    return "/" + "|".join(f"{quote}{inside(quote)}{quote}" for quote in "'\"") + "/"


def _literal(quote: str) -> str:
    return '"\'"' if quote == "'" else r'"\""'
