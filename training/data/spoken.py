"""Values that people say in another form than a tool takes them: "5%" is 0.05, "3 May 2025" a date.

`said(rng, split, kind)` draws one and how it is said. The kinds: `few(1,6)` (a small number, often
as a word), `money(low,high)` (1,500 or 1500), `rate(low,high)` (percent, as a decimal), `isodate`,
`usdate` (05/31/2025), `clock24`, `point` (a pair of numbers), `meters(low,high)` (in kilometres at
times) and `named(section)`, a section of `values.txt` with items such as `Spanish=es`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from random import Random

from pydantic import JsonValue

from training.data.core import chance, in_split, sections

__all__ = ["said"]

Said = tuple[JsonValue, str]
_KIND = re.compile(r"(\w+)(?:\(([^()]*)\))?")
_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_MONTHS = (
    "January February March April May June July August September October November December".split()
)


_PLURALS = re.compile(
    r"(?<![\d.,-])(1|one) (hour|night|minute|day|year|guest|adult|room|bedroom|ticket|seat|week"
    r"|pound|working day|business day|bag|suitcase|coat|hectare|kilogram|gram|meter|liter"
    r"|piece|share|like|comment|decimal|decimal place|number|keyword)s\b"
)
_ORDINAL = re.compile(r"\b(\d+)th\b")


def said(rng: Random, split: str, kind: str, *, after: str = "") -> Said | None:
    """A value of a kind and how the user says it; None for a kind that is said as it is.

    Args:
        rng: The source of chance.
        split: The split whose values are used.
        kind: The kind of value.
        after: For a date, another one that it comes some days after.
    """
    parts = _KIND.fullmatch(kind)
    if not parts:
        return None
    name, inside = parts.groups()
    if name == "named":
        return _named(rng, split, inside)
    if name == "isodate":
        return _iso_date(rng, after)
    if name in _BARE:
        return _BARE[name](rng)
    if name in _RANGED:
        low, high = (int(limit) for limit in inside.split(","))
        return _RANGED[name](rng, low, high)
    return None


def grammatical(text: str) -> str:
    """The text with `a` and `an`, `th` and the plurals as the values in it want them."""
    text = re.sub(r"\b([Aa]) (?=(?!one\b|eu)[aeioAEIO][a-z])", r"\1n ", text)
    text = _PLURALS.sub(r"\1 \2", text)
    text = re.sub(r"(?<![\d.,-])\b(1|one) people\b", r"\1 person", text)
    text = re.sub(r"(?<![\d.,-])\b(1|one) children\b", r"\1 child", text)
    return _ORDINAL.sub(lambda found: _ordinal(int(found[1])), text)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}th" if 10 < number % 100 < 14 else f"{number}{ending}"


def _named(rng: Random, split: str, section: str) -> Said:
    items = sections("values.txt")[section]
    mine = in_split(items, split)
    words, _, given = rng.choice(items if len(mine) < 3 else mine).partition("=")
    return given, words


def _few(rng: Random, low: int, high: int) -> Said:
    number = rng.randint(low, high)
    return number, _WORDS[number] if number < 13 and chance(rng, 0.45) else str(number)


def _money(rng: Random, low: int, high: int) -> Said:
    digits = len(str(rng.randint(low, high)))
    step = 10 ** max(0, digits - rng.choice((1, 2, 2, 3)))
    number = min(high, max(low, rng.randint(1, high // step) * step))
    if number >= 1_000_000 and number % 100_000 == 0 and chance(rng, 0.5):
        return number, f"{number / 1_000_000:g} million"
    return number, f"{number:,}" if chance(rng, 0.55) else str(number)


def _rate(rng: Random, low: int, high: int) -> Said:
    percent = round(rng.uniform(low, high), 1)
    if chance(rng, 0.5):
        percent = float(rng.randint(low, high))
    given = round(percent / 100, 4)
    return given, rng.choice((f"{percent:g}%", f"{percent:g}%", f"{percent:g} percent", f"{given}"))


def _meters(rng: Random, low: int, high: int) -> Said:
    number = rng.randint(low, high)
    if number >= 1000 and chance(rng, 0.4):
        number = number // 100 * 100
        return number, f"{number / 1000:g} {rng.choice(('km', 'kilometers', 'kilometres'))}"
    return number, f"{number} {rng.choice(('m', 'meters', 'metres', 'meters'))}"


def _day(rng: Random) -> datetime.date:
    return datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randrange(11 * 365))


def _spoken_day(rng: Random, day: datetime.date) -> str:
    month = _MONTHS[day.month - 1]
    return rng.choice(
        (
            f"{month} {day.day}, {day.year}",
            f"{month} {_ordinal(day.day)}, {day.year}",
            f"{day.day} {month} {day.year}",
            f"the {_ordinal(day.day)} of {month} {day.year}",
        )
    )


def _iso_date(rng: Random, after: str) -> Said:
    day = _day(rng)
    if after:
        apart = datetime.timedelta(days=rng.randint(2, rng.choice((14, 60, 400))))
        day = datetime.date.fromisoformat(after) + apart
    return day.isoformat(), day.isoformat() if chance(rng, 0.35) else _spoken_day(rng, day)


def _us_date(rng: Random) -> Said:
    day = _day(rng)
    given = day.strftime("%m/%d/%Y")
    return given, given if chance(rng, 0.35) else _spoken_day(rng, day)


def _clock_24(rng: Random) -> Said:
    hour, minute = rng.randint(0, 23), rng.choice((0, 0, 15, 30, 45, rng.randint(1, 59)))
    given = f"{hour:02d}:{minute:02d}"
    if chance(rng, 0.4):
        return given, given
    half, shown = ("am" if hour < 12 else "pm"), hour % 12 or 12
    exact = f"{shown}:{minute:02d}" if minute else rng.choice((f"{shown}", f"{shown}:00"))
    return given, f"{exact}{rng.choice(('', ' '))}{rng.choice((half, half.upper()))}"


def _point(rng: Random) -> Said:
    pair: list[JsonValue] = [rng.randint(-20, 40), rng.randint(-20, 40)]
    x, y = pair
    return pair, rng.choice((f"({x}, {y})", f"({x},{y})", f"[{x}, {y}]"))


_BARE: dict[str, Callable[[Random], Said]] = {
    "usdate": _us_date,
    "clock24": _clock_24,
    "point": _point,
}
_RANGED: dict[str, Callable[[Random, int, int], Said]] = {
    "few": _few,
    "money": _money,
    "rate": _rate,
    "meters": _meters,
}
