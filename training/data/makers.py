"""What fills the slots of the tasks in `tasks.txt`: numbers, lists, words, dates and amounts."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from random import Random

from training.data.banks import value
from training.data.core import chance, in_split, joined, made_up, sections

__all__ = ["MONTHS", "Slots", "make"]

Slots = dict[str, str]
MONTHS = (
    "January February March April May June July August September October November December".split()
)


def make(rng: Random, split: str, maker: str) -> Slots:
    """Slots from a maker by its name, such as `word`, or `number(2,99)` and `two(2,99)`; or values
    of the kinds that `slots a=int(2,99) who=person` lists.
    """
    if maker.startswith("slots "):
        pairs = (pair.partition("=") for pair in maker.split()[1:])
        return {name: str(value(rng, split, kind)) for name, _, kind in pairs}
    if "(" in maker:
        name, _, limits = maker.rstrip(")").partition("(")
        low, high = (int(limit) for limit in limits.split(","))
        slots = {"n": str(rng.randint(low, high))}
        return slots | {"m": str(rng.randint(low, high))} if name == "two" else slots
    return _MAKERS[maker](rng, split)


def _between(rng: Random, _: str) -> Slots:
    return {"a": str(rng.randint(1, 60)), "b": str(rng.randint(61, 400))}


def _numbers(rng: Random, _: str) -> Slots:
    count, most = rng.choice((3, 4, 4, 5, 5, 6, 7, 8)), rng.choice((9, 20, 99, 99, 999, 5000))
    items = [str(rng.randint(1, most)) for _ in range(count)]
    if chance(rng, 0.15):
        items = [f"{item}.{rng.choice((5, 25, 75, 4))}" for item in items]
    shown = rng.choice((", ".join(items), " ".join(items), joined(items), f"[{', '.join(items)}]"))
    return {"shown": shown, "list": f"[{', '.join(items)}]", "k": str(rng.randint(2, most))}


def _word(rng: Random, split: str) -> Slots:
    word = str(value(rng, split, "word"))
    word = word.capitalize() if chance(rng, 0.08) else word
    letters = word.lower() if chance(rng, 0.85) else "abcdefghijklmnopqrstuvwxyz"
    return {"w": word, "c": rng.choice(letters), "k": str(rng.randint(1, len(word)))}


def _two_words(rng: Random, split: str) -> Slots:
    first, other = str(value(rng, split, "word")), str(value(rng, split, "word"))
    if chance(rng, 0.5):
        other = "".join(rng.sample(first, len(first)))
    return {"w": first, "v": other}


def _palindrome(rng: Random, split: str) -> Slots:
    return {"w": str(value(rng, split, "palindrome" if chance(rng, 0.4) else "word"))}


def _line(rng: Random, split: str) -> Slots:
    line = rng.choice(
        in_split(sections("values.txt")["line"], split) or ("practice makes perfect",)
    )
    return {"s": line, "w": rng.choice(line.split()), "v": str(value(rng, split, "word"))}


def _names(rng: Random, split: str) -> Slots:
    kind = rng.choice(("person", "person", "city", "food", "word", "animal", "color"))
    drawn = value(rng, split, f"some({kind})")
    items = [str(item) for item in drawn] if isinstance(drawn, list) else []
    while len(items) < 3:
        items.append(made_up(rng, split))
    return {"shown": rng.choice((", ".join(items), joined(items))), "list": repr(items)}


def _said_day(rng: Random, day: datetime.date) -> str:
    month = MONTHS[day.month - 1]
    return rng.choice(
        (
            f"{day.day} {month} {day.year}",
            f"{month} {day.day}, {day.year}",
            day.isoformat(),
            f"{day.day}.{day.month}.{day.year}",
        )
    )


def _dates(rng: Random, _: str) -> Slots:
    first = datetime.date(rng.randint(2000, 2030), rng.randint(1, 12), rng.randint(1, 28))
    apart = rng.choice((rng.randint(5, 60), rng.randint(60, 400), rng.randint(400, 4000)))
    second = first + datetime.timedelta(days=apart)
    return {
        "s1": _said_day(rng, first),
        "d1": f"date({first.year}, {first.month}, {first.day})",
        "s2": _said_day(rng, second),
        "d2": f"date({second.year}, {second.month}, {second.day})",
        "n": str(rng.choice((7, 10, 30, 45, 60, 90, 100, rng.randint(2, 500)))),
    }


def _clocks(rng: Random, _: str) -> Slots:
    start = rng.randint(0, 1200)
    end = start + rng.randint(5, 1439 - start)
    return {
        "t1": f"{start // 60:02d}:{start % 60:02d}",
        "t2": f"{end // 60:02d}:{end % 60:02d}",
        "c1": f"{start // 60} * 60 + {start % 60}",
        "c2": f"{end // 60} * 60 + {end % 60}",
    }


def _year(rng: Random, _: str) -> Slots:
    return {"n": str(rng.choice((rng.randint(1900, 2100), rng.choice((1900, 2000, 2024, 2100)))))}


def _plain(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _amount(rng: Random) -> str:
    return rng.choice(
        (str(rng.randint(5, 300)), str(rng.randint(1, 90) * 50), _plain(rng.uniform(3, 250)))
    )


def _bill(rng: Random, _: str) -> Slots:
    return {
        "a": _amount(rng),
        "b": _amount(rng),
        "c": _amount(rng),
        "p": str(rng.choice((5, 8, 10, 12, 15, 18, 20, 25, rng.randint(2, 40)))),
        "n": str(rng.randint(2, 9)),
        "who": rng.choice(("euros", "dollars", "pounds", "kroner")),
    }


def _interest(rng: Random, _: str) -> Slots:
    rate = str(rng.choice((1, 2, 2.5, 3, 3.5, 4, 5, 6, 7)))
    return {"a": str(rng.randint(1, 200) * 100), "p": rate, "n": str(rng.randint(2, 30))}


def _story(rng: Random, split: str) -> Slots:
    a, b, c = rng.randint(2, 60), rng.randint(2, 30), rng.randint(2, 25)
    things = "apples pencils stickers marbles cards eggs tiles books".split()
    return {
        "a": str(a),
        "b": str(b),
        "c": str(c),
        "d": str(rng.randint(2, 12)),
        "big": str(a * b + c + rng.randint(5, 200)),
        "who": str(value(rng, split, "person")),
        "thing": rng.choice(things),
        "price": rng.choice((str(rng.randint(2, 40)), _plain(rng.uniform(1, 30)))),
    }


def _unit(rng: Random, _: str) -> Slots:
    line = rng.choice(sections("units.txt")["units"])
    names, _, formula = line.partition(": ")
    froms, _, tos = names.partition(" -> ")
    expression, _, places = formula.rpartition(", ")
    number = str(rng.choice((rng.randint(1, 20), rng.randint(20, 500), rng.randint(500, 9000))))
    a = f"{number}.{rng.randint(1, 9)}" if chance(rng, 0.25) else number
    return {
        "a": a,
        "f": rng.choice(froms.split("/or/")),
        "t": rng.choice(tos.split("/or/")),
        "e": expression.replace("{a}", a),
        "p": places,
    }


def _bad_day(rng: Random, _: str) -> Slots:
    return {"m": rng.choice(("2", "4", "6", "9", "11")), "y": str(rng.randint(2001, 2030))}


def _missing_file(rng: Random, split: str) -> Slots:
    return {"f": f"{made_up(rng, split)}.txt"}


def _assignment(rng: Random, _: str) -> Slots:
    name = rng.choice(("total", "x", "y", "area", "result"))
    return {"v": name, "n": str(rng.randint(2, 500)), "m": str(rng.randint(2, 500))}


_MAKERS: dict[str, Callable[[Random, str], Slots]] = {
    "assignment": _assignment,
    "bad_day": _bad_day,
    "between": _between,
    "bill": _bill,
    "clocks": _clocks,
    "dates": _dates,
    "interest": _interest,
    "line": _line,
    "missing_file": _missing_file,
    "names": _names,
    "numbers": _numbers,
    "palindrome": _palindrome,
    "story": _story,
    "two_words": _two_words,
    "unit": _unit,
    "word": _word,
    "year": _year,
}
