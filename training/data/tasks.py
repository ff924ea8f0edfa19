"""Tasks for the code interpreter beyond sums, read from `tasks.txt`.

They are about numbers, lists, words, dates, units, money, and programs that fail. In an answer
`{x}` is what the program printed, `{items}` and `{names}` a printed list without brackets.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from training.data.arithmetic import follow_up
from training.data.core import FOLDER, Talk, chance, filled, in_split, joined
from training.data.makers import MONTHS, make
from training.data.programs import run

__all__ = ["task_branch"]


@dataclass(slots=True)
class _Task:
    """One kind of task, as the bank has it."""

    maker: str
    asks: list[str] = field(default_factory=list[str])
    code: str = ""
    better: str = ""
    says: list[str] = field(default_factory=list[str])
    yes: list[str] = field(default_factory=list[str])
    fails: bool = False
    weight: int = 1


@lru_cache(maxsize=1)
def _tasks() -> tuple[_Task, ...]:
    found: list[_Task] = []
    for line in (FOLDER / "tasks.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("# "):
            continue
        keyword, _, rest = line.partition(" ")
        if keyword == "make":
            found.append(_Task(rest))
        elif keyword in ("ask", "say", "yes"):
            task = found[-1]
            into = {"ask": task.asks, "say": task.says, "yes": task.yes}[keyword]
            into += rest.split(" | ")
        elif keyword in ("code", "better"):
            setattr(found[-1], keyword, rest.replace("\\n", "\n"))
        elif keyword == "fails":
            found[-1].fails = True
        elif keyword == "weight":
            found[-1].weight = int(rest)
        else:
            raise ValueError(f"tasks.txt: unknown keyword {keyword!r} in {line!r}.")
    return tuple(found)


def task_branch(rng: Random, split: str, date: datetime.date | None, turns: int) -> Talk | None:
    """A conversation that opens with a task and may go on with `turns` follow-ups on its number.

    Args:
        rng: The source of chance.
        split: The split whose wordings are used.
        date: Today, where the prompt states it: questions that need it are asked only then.
        turns: The most follow-ups.

    Returns:
        None where the split has no wording for the task drawn.
    """
    if date is not None and chance(rng, 0.06):
        return _about_today(rng, split, date)
    troubled = chance(rng, 0.06)
    tasks = [t for t in _tasks() if (t.fails or bool(t.better)) == troubled]
    task = rng.choices(tasks, [t.weight for t in tasks])[0]
    asks = in_split(task.asks, split)
    if not asks:
        return None
    slots = make(rng, split, task.maker)
    talk = Talk()
    talk.user(filled(rng.choice(asks), slots))
    printed = ""
    for program in (task.code, task.better):
        if program:
            printed = _run(talk, filled(program, slots), may_fail=troubled)
    says = task.yes if task.yes and printed == "True" else task.says
    talk.say(filled(rng.choice(says), slots | _readings(printed)))
    if not troubled and not task.yes:
        _go_on(rng, split, talk, turns)
    return talk


def _run(talk: Talk, program: str, *, may_fail: bool) -> str:
    # numpy is always missing in the sandbox, whether or not this machine has it.
    printed, failed = run(program.replace("import numpy", "import numpy_missing"))
    if failed and not may_fail:
        raise ValueError(f"A task's program failed:\n{program}\n{printed}")
    talk.code(program)
    talk.results(printed.replace("numpy_missing", "numpy"), is_error=failed)
    return printed


def _go_on(rng: Random, split: str, talk: Talk, turns: int) -> None:
    for _ in range(turns):
        printed = next(str(m.content) for m in reversed(talk.messages) if m.role == "tool")
        if not follow_up(rng, split, talk, printed):
            break


def _readings(printed: str) -> dict[str, str]:
    """What an answer may quote of the printed text."""
    items = printed.strip("[]()").split(", ")
    return {
        "x": printed,
        "items": joined(items) or "none",
        "names": ", ".join(item.strip("'\"") for item in items),
        "spaced": ", ".join(printed.split()),
        "first": items[0],
        "second": items[-1],
    }


_DAYS = (
    ("Christmas", 12, 25),
    ("New Year's Eve", 12, 31),
    ("1 May", 5, 1),
    ("Halloween", 10, 31),
    ("Valentine's Day", 2, 14),
    ("1 September", 9, 1),
    ("3 March", 3, 3),
)
# wordings, program (none: the prompt says it), answers
_TODAY = (
    (
        (
            "How many days until {name}?",
            "days until {name}",
            "How long is it until {name}?",
            "how many days are left until {name}?",
            "Is it still long until {name}?",
        ),
        "from datetime import date\nprint(({target} - {today}).days)",
        ("It is {x} days until {name}.", "There are {x} days left until {name}."),
    ),
    (
        (
            "What date is it in {n} days?",
            "which date is {n} days from now?",
            "{n} days from today",
            "date in {n} days?",
        ),
        "from datetime import date, timedelta\nprint({today} + timedelta(days={n}))",
        ("In {n} days, it is {x}.", "{n} days from now is {x}."),
    ),
    (
        ("What day of the week is it today?", "which weekday is it?", "What weekday is today?"),
        "from datetime import date\nprint({today}.strftime('%A'))",
        ("Today is a {x}.", "It is a {x}."),
    ),
    (
        (
            "What is today's date?",
            "what's the date",
            "What date is it?",
            "which day is it today?",
            "Today's date please",
        ),
        "",
        ("Today is {long}.", "It is {long}.", "Today's date is {long}."),
    ),
    (("What year is it?", "which year is it now?", "Which year do we have?"), "", ("It is {y}.",)),
)


def _about_today(rng: Random, split: str, date: datetime.date) -> Talk | None:
    """A question that needs today's date, which the prompt states."""
    name, month, day = rng.choice(_DAYS)
    target = datetime.date(date.year, month, day)
    if target <= date:
        target = datetime.date(date.year + 1, month, day)
    asks, program, says = rng.choice(_TODAY)
    mine = in_split(asks, split)
    if not mine:
        return None
    slots = {
        "name": name,
        "n": str(rng.randint(3, 200)),
        "long": f"{date.day} {MONTHS[date.month - 1]} {date.year}",
        "y": str(date.year),
        "today": f"date({date.year}, {date.month}, {date.day})",
        "target": f"date({target.year}, {target.month}, {target.day})",
    }
    talk = Talk()
    talk.user(filled(rng.choice(mine), slots))
    if program:
        slots["x"] = _run(talk, filled(program, slots), may_fail=False)
    talk.say(filled(rng.choice(says), slots))
    return talk
