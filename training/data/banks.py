"""Values: what stands in a request and in a result.

`value(rng, split, kind)` draws one. A kind is the name of a bank in `values.txt`, a pattern such
as `int(1,9)`, or one of the makers at the end. A share of names and places are made-up words, so
that copying what the user wrote beats writing what is likely.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from random import Random

from pydantic import JsonValue

from training.data.core import chance, in_split, made_up, sections

__all__ = ["value"]


@cache
def _bank(name: str, split: str) -> tuple[str, ...]:
    items = sections("values.txt")[name]
    mine = in_split(items, split)
    # A small bank would leave a split with nothing: it is shared.
    return items if len(items) < 26 or len(mine) < 3 else mine


_PATTERN = re.compile(r"(\w+)\((.*)\)")
_OFTEN_MADE_UP = {
    "person": 0.15,
    "city": 0.12,
    "restaurant": 0.15,
    "product": 0.06,
    "word": 0.1,
    "book": 0.1,
    "artist": 0.1,
}

_RARE = {
    "person": ("rare_first", 0.08),
    "surname": ("rare_last", 0.12),
    "message": ("free", 0.3),
    "note": ("free", 0.3),
}
"""Values that another bank gives now and then: hard to copy, or long."""

_PATIENCE = 100


def value(rng: Random, split: str, kind: str) -> JsonValue:
    """One value of a kind, from the split's share of its bank.

    Kinds: a bank's name; `int(low,high)`; `price(low,high)` (two decimals); `float(low,high)` (one
    decimal); `degrees(low,high)` (two to four decimals); `one(a|b|c)`; `some(kind)` (a list of
    two to four); `many(kind)` (of four to eight); and the makers at the end.
    """
    found = _PATTERN.fullmatch(kind)
    if found:
        return _patterned(rng, split, found[1], found[2])
    if kind in _MAKERS:
        return _MAKERS[kind](rng, split)
    if kind in _RARE and chance(rng, _RARE[kind][1]):
        return value(rng, split, _RARE[kind][0])
    if chance(rng, _OFTEN_MADE_UP.get(kind, 0.0)):
        word = made_up(rng, split)
        return word if kind in ("word", "product") else word.capitalize()
    return rng.choice(_bank(kind, split))


def _patterned(rng: Random, split: str, name: str, inside: str) -> JsonValue:
    if name == "one":
        return rng.choice(inside.split("|"))
    if name in ("some", "many"):
        items: list[JsonValue] = []
        wanted = rng.choice((2, 2, 3, 3, 4) if name == "some" else (4, 5, 5, 6, 7, 8))
        for _ in range(_PATIENCE):  # a split's share of a small bank may have fewer
            item = value(rng, split, inside)
            if item not in items:
                items.append(item)
            if len(items) == wanted:
                break
        return items
    low, high = (float(part) for part in inside.split(","))
    if name == "int":
        return _integer(rng, int(low), int(high))
    if name == "price":
        return round(rng.uniform(low, high), 2)
    if name == "degrees":
        return round(rng.uniform(low, high), rng.choice((2, 3, 4)))
    if name == "float":
        return round(rng.uniform(low, high), 1)
    raise ValueError(f"There is no kind of value {name!r}.")


def _integer(rng: Random, low: int, high: int) -> int:
    if high - low > 300 and chance(rng, 0.5):  # small numbers would be rare in a wide range
        return rng.randint(low, min(high, low + 10 ** rng.randint(1, len(str(high)) - 1)))
    return rng.randint(low, high)


def _clock(rng: Random, _: str) -> str:
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 15, 30, 45, rng.randint(1, 59)))
    if chance(rng, 0.4):
        return f"{hour + rng.choice((0, 11)):02d}:{minute:02d}"
    half = rng.choice(("am", "pm", " am", " pm"))
    return f"{hour}{half}" if minute == 0 else f"{hour}:{minute:02d}{half}"


def _date(rng: Random, split: str) -> str:
    year, month, day = rng.randint(2024, 2027), rng.randint(1, 12), rng.randint(1, 28)
    if chance(rng, 0.55):
        return f"{year}-{month:02d}-{day:02d}"
    name = _bank("month", split)[month - 1]
    return rng.choice((f"{day} {name}", f"{name} {day}", f"{day} {name} {year}"))


def _code(rng: Random, split: str) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    head = "".join(rng.choice(letters) for _ in range(rng.randint(1, 3)))
    tail = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    ending = "".join(rng.choice(letters) for _ in range(2))
    return rng.choice(
        (
            f"{head}-{tail}",
            f"{head}{tail}",
            f"{head}-{tail}{rng.choice(letters)}",
            f"{head}-{tail}-{ending}",
        )
    )


_PLACE = re.compile(r"\{([^{}]+)\}")


def _free(rng: Random, split: str) -> str:
    """A message or a note in one or two clauses, with values of many kinds in it."""
    texts = [_filled_in(rng, split) for _ in range(rng.choice((1, 1, 2)))]
    return ". ".join(texts)


def _filled_in(rng: Random, split: str) -> str:
    template = rng.choice(_bank("free", split))
    return _PLACE.sub(lambda found: str(value(rng, split, found[1])), template)


def _path(rng: Random, split: str) -> str:
    """A file's path, as Unix has it or as Windows has it."""
    stems = [str(value(rng, split, "fileword")), made_up(rng, split), str(rng.randint(1, 2027))]
    folders = rng.sample(stems, rng.randint(1, 3))
    if chance(rng, 0.15):
        return "\\".join(("C:", *folders, _file(rng, split)))
    start = rng.choice(("/", "/home/", "~/", "/srv/", "", "./"))
    return start + "/".join((*folders, _file(rng, split)))


def _email(rng: Random, split: str) -> str:
    name = str(value(rng, split, "person")).lower()
    host = rng.choice(
        (
            "mail.com",
            "example.org",
            "post.net",
            f"{made_up(rng, split)}.com",
            f"{made_up(rng, split)}.io",
        )
    )
    return rng.choice(
        (
            f"{name}@{host}",
            f"{name}{rng.randint(1, 99)}@{host}",
            f"{name}.{made_up(rng, split)}@{host}",
        )
    )


def _phone(rng: Random, _: str) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(7))
    return rng.choice(
        (f"555-{digits[:4]}", f"+1 555 {digits}", f"0{digits[:2]} {digits[2:]}", f"555{digits[:4]}")
    )


def _file(rng: Random, split: str) -> str:
    stem = rng.choice((str(value(rng, split, "fileword")), made_up(rng, split)))
    tail = rng.choice(("", "", f"_{rng.randint(1, 30)}", f"-{rng.randint(2023, 2027)}", "_final"))
    return f"{stem}{tail}.{rng.choice(_bank('ext', split))}"


def _full_name(rng: Random, split: str) -> str:
    return f"{value(rng, split, 'person')} {value(rng, split, 'surname')}"


def _address(rng: Random, split: str) -> str:
    street = rng.choice(("Street", "Avenue", "Lane", "Road"))
    return f"{rng.randint(1, 180)} {made_up(rng, split).capitalize()} {street}"


def _span(rng: Random, _: str) -> str:
    return rng.choice(
        (
            f"{rng.randint(2, 55)} minutes",
            f"{rng.randint(2, 5)} hours",
            f"{rng.randint(20, 90)} seconds",
        )
    )


_MAKERS: dict[str, Callable[[Random, str], JsonValue]] = {
    "clock": _clock,
    "date": _date,
    "id": lambda rng, _: _integer(rng, 10, 99999),
    "code": _code,
    "email": _email,
    "phone": _phone,
    "file": _file,
    "free": _free,
    "path": _path,
    "fullname": _full_name,
    "address": _address,
    "tracking": lambda rng, split: f"{_code(rng, split)}{rng.randint(100, 999)}".replace("-", ""),
    "dna": lambda rng, _: "".join(rng.choice("ACGT") for _ in range(rng.randint(6, 20))),
    "bool": lambda rng, _: chance(rng, 0.5),
    "made_up": lambda rng, split: made_up(rng, split),
    "Made_up": lambda rng, split: made_up(rng, split).capitalize(),
    "time_span": _span,
}
