"""How the kinds of conversation are mixed into trees that share a system prompt and its tools."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from functools import cache
from random import Random

from corral.messages import AssistantMessage, ToolSpec, UserMessage
from training.data.arithmetic import sum_branch
from training.data.builtins import NAMES, builtin_talk
from training.data.chat import (
    knowledge_talk,
    memory_talk,
    no_tool_talk,
    small_talk,
    unserved_talk,
)
from training.data.composed import (
    Composed,
    chain_talk,
    composed_chain,
    composed_talk,
    composed_tool,
)
from training.data.core import Talk, chance, sections
from training.data.everyday import Entry, entries
from training.data.files import draw_files, files_talk
from training.data.missing import missing_talk
from training.data.notes import FINDERS, READERS, notes_talk
from training.data.requests import (
    Dressed,
    dress,
    everyday_talk,
    plain_request,
    retyped,
    total_talk,
)
from training.data.several import several_talk
from training.data.tasks import task_branch
from training.data.texts import text_talk

__all__ = ["CODE_DESCRIPTIONS", "draw_exchange", "draw_tree"]

CODE_DESCRIPTIONS = (
    "Run a Python program and return what it prints.",
    "Execute Python code.",
    "Runs Python in a sandbox.",
)
_COMPUTABLE = frozenset(
    {"files", "unit conversions", "geometry", "equations", "number theory", "number sequences"}
    | {"statistics", "probability", "savings", "loans", "physics", "electricity", "words", "dice"}
    | {"sizes of screens", "weights of boxes", "prices per unit", "margins", "cuts of boards"}
    | {"amounts of concrete", "rainwater", "drilling speeds", "healthy weights"}
    | {"countdowns", "shares of the rent", "savings goals", "heart rates", "inflation"}
    | {"body weight", "passwords", "painting walls", "recipes", "the moon"}
)
"""What Python could do as well, so that its refusal would be wrong beside the interpreter."""
_BUILTINS = {
    name: ToolSpec(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
        kind="builtin",
    )
    for name, description in zip(
        NAMES, ("Search the web.", "Answer questions of mathematics and science."), strict=True
    )
}
_SERVE_ANYTHING = ("builtin", "notes", "files")
"""Kinds of tree in which a search, or the user's own files, could serve any request."""
Plan = list[tuple[float, Callable[[], Talk | None]]]


@cache
def _of_split(split: str, *, typed: bool = False) -> tuple[Entry, ...]:
    """The tools to offer: a split's own; what is measured also has train's, in other wordings."""
    wanted = tuple(e for e in entries() if bool(e.domain) == typed or e.opens)
    own = tuple(entry for entry in wanted if entry.split == split)
    if split == "train":
        return own
    return own * 3 + tuple(entry for entry in wanted if entry.split == "train")


def _system(rng: Random) -> str:
    pick = rng.random()
    if pick < 0.18:
        return ""
    if pick < 0.85:
        return rng.choice(sections("systems.txt")["systems"])
    return " ".join(rng.sample(sections("systems.txt")["systems"], 2))


def _date(rng: Random) -> datetime.date | None:
    if chance(rng, 0.2):
        return None
    return datetime.date(2024, 1, 1) + datetime.timedelta(days=rng.randrange(4 * 365))


def draw_tree(
    rng: Random, split: str, number: int
) -> tuple[str, tuple[ToolSpec, ...], datetime.date | None, list[Talk]]:
    """A system prompt, its tools, the date, and eight or twelve conversations.

    Eight where they are measured, and where the wordings are few for each tool.
    """
    kinds = ("code", "functions", "both", "none", "composed", "chain", "builtin", "typed", "notes")
    kinds += ("files",)
    # The first trees of a finite split go round the kinds, so that each is measured.
    kind = (
        rng.choices(kinds, (23, 42, 12, 15, 8, 4, 7, 30, 8, 6))[0]
        if split == "train"
        else kinds[number % len(kinds)]
    )
    system, date = _system(rng), _date(rng)
    tools: list[ToolSpec] = []
    plan: Plan = []
    topics: tuple[str, ...] = ()
    dressed: list[Dressed] = []
    if kind in ("functions", "both"):
        count = rng.choices(range(1, 9), (17, 15, 17, 16, 13, 10, 7, 5))[0]
        dressed = _offer(rng, split, count)
        tools += [one.spec for one in dressed]
        topics = tuple(one.entry.topic for one in dressed)
        plan += _functions(rng, split, dressed)
    elif kind == "typed":
        dressed = _offer(rng, split, rng.choices((1, 2, 3, 4), (60, 16, 14, 10))[0], typed=True)
        tools += [one.spec for one in dressed]
        plan += _typed(rng, split, dressed)
    elif kind == "notes":
        dressed = _of_notes(rng)
        tools += [one.spec for one in dressed]
        topics = tuple(one.entry.topic for one in dressed)
        plan += _noted(rng, split, dressed)
    elif kind == "files":
        tools += draw_files(rng)
        topics = ("your files",)
        plan += [(9, lambda: files_talk(rng, split, tools))]
    elif kind == "composed":
        made = [
            composed_tool(rng, split)
            for _ in range(rng.choices((1, 2, 3, 4, 5), (20, 25, 25, 18, 12))[0])
        ]
        made = list({one.spec.name: one for one in made}.values())
        tools += [one.spec for one in made]
        topics = tuple(f"the {one.noun}" for one in made)
        plan += _composed(rng, split, made)
    elif kind == "chain":
        first, second = composed_chain(rng, split)
        others = [composed_tool(rng, split) for _ in range(rng.randint(0, 2))]
        tools += [one.spec for one in (first, second, *others)]
        topics = (f"the {first.noun}",)
        plan += [(8, lambda: chain_talk(rng, split, first, second)), *_composed(rng, split, others)]
    elif kind == "builtin":
        tools += [_BUILTINS[name] for name in NAMES]
        topics = ("web searches",)
        plan += [(7, lambda: builtin_talk(rng, split, rng.choice(NAMES)))]
    if kind in ("code", "both") or (kind == "composed" and chance(rng, 0.12)):
        interpreter = ToolSpec(
            name="code_interpreter",
            description=rng.choice(CODE_DESCRIPTIONS),
            kind="code_interpreter",
        )
        tools.append(interpreter)
        topics = (*topics, "calculations with Python")
        plan += _code(rng, split, date, 0.75 if kind == "both" else 2.0)
        if kind == "both":
            plan.append((2.0, lambda: total_talk(rng, split, dressed)))
    rng.shuffle(tools)
    if kind != "typed":
        plan += _talk(rng, split, kind, topics)
    return (
        system,
        tuple(tools),
        date if any(t.kind == "code_interpreter" for t in tools) else None,
        _branches(rng, plan, 12 if split == "train" and kind != "typed" else 8),
    )


def _branches(rng: Random, plan: Plan, count: int) -> list[Talk]:
    """`count` conversations; no two begin alike, as far as the split's wordings go."""
    talks: list[Talk] = []
    begun: set[str] = set()
    weights = [weight for weight, _ in plan]
    patience = 400
    while len(talks) < count:
        _, make = rng.choices(plan, weights)[0]
        talk = make()
        patience -= 1
        if talk is None or (talk.opening.lower() in begun and patience > 0):
            continue
        begun.add(talk.opening.lower())
        talks.append(talk)
        twin = talk.twin
        if twin and len(talks) < count and twin.opening.lower() not in begun:
            begun.add(twin.opening.lower())
            talks.append(twin)
    rng.shuffle(talks)
    if chance(rng, 0.2):
        _cancelled(rng, talks)
    return talks


def _cancelled(rng: Random, talks: list[Talk]) -> None:
    """Put a request in front of another one that never got its answer: the last one is answered."""
    one, other = rng.sample(talks, 2)
    if one.opening != other.opening:
        one.messages.insert(0, UserMessage(content=other.opening))


def _code(rng: Random, split: str, date: datetime.date | None, weight: float) -> Plan:
    return [
        (
            3.5 * weight,
            lambda: sum_branch(rng, split, rng.choices((0, 1, 2, 3, 4), (30, 28, 22, 14, 6))[0]),
        ),
        (4.5 * weight, lambda: task_branch(rng, split, date, rng.choice((0, 0, 0, 1, 1, 2)))),
    ]


def _offer(rng: Random, split: str, wanted: int, *, typed: bool = False) -> list[Dressed]:
    """Some tools of different names, each dressed anew."""
    offered: dict[str, Dressed] = {}
    pool = _of_split(split, typed=typed)
    alike = chance(rng, 0.6)
    taken: list[Entry] = []
    while len(offered) < wanted:
        entry = rng.choice(pool)
        if alike and taken and chance(rng, 0.7):
            entry = rng.choice(_neighbours(pool, rng.choice(taken)))
        if entry in taken:
            continue
        one = dress(rng, entry if typed else retyped(rng, entry))
        if one.spec.name not in offered:
            offered[one.spec.name] = one
            taken.append(entry)
    return list(offered.values())


@cache
def _neighbours(pool: tuple[Entry, ...], entry: Entry) -> tuple[Entry, ...]:
    """The tools that share a word of their names or the topic with this one: hard to tell apart."""
    words = _words(entry)
    return tuple(other for other in pool if words & _words(other)) or pool


def _words(entry: Entry) -> set[str]:
    names = " ".join((*entry.names, entry.topic)).lower()
    common = {"get", "find", "set", "the", "of", "list", "search", "add", "check", "new", "show"}
    return set(re.findall(r"[a-z]{3,}", names.replace("_", " "))) - common


def _stems(entry: Entry) -> set[str]:
    return {word.rstrip("s") for word in _words(entry)}


def _functions(rng: Random, split: str, dressed: list[Dressed]) -> Plan:
    return [
        (5.6, lambda: everyday_talk(rng, split, dressed)),
        (3.2, lambda: missing_talk(rng, split, rng.choice(dressed))),
        (2.0, lambda: several_talk(rng, split, dressed)),
    ]


def _typed(rng: Random, split: str, dressed: list[Dressed]) -> Plan:
    """Requests that end with the call, and every third one for something that isn't offered."""
    return [
        (5.4, lambda: everyday_talk(rng, split, dressed)),
        (1.5, lambda: missing_talk(rng, split, rng.choice(dressed))),
        (0.9, lambda: several_talk(rng, split, dressed)),
        (3.3, lambda: _irrelevant(rng, split, dressed)),
        (0.9, lambda: knowledge_talk(rng, split)),
        (0.4, lambda: small_talk(rng, split, tuple(one.entry.topic for one in dressed))),
    ]


def _of_notes(rng: Random) -> list[Dressed]:
    """Tools for the user's own files: one that searches, mostly one that reads, and others."""
    named = {entry.name: entry for entry in entries()}
    names = [rng.choice(FINDERS)]
    if chance(rng, 0.8):
        names += READERS
    others = ("write_file", "count_words", "list_files", "delete_file", "copy_file", "add_note")
    names += rng.sample(others, rng.choice((0, 1, 2, 2, 3)))
    dressed = [dress(rng, named[name]) for name in names]
    return list({one.spec.name: one for one in dressed}.values())


def _noted(rng: Random, split: str, dressed: list[Dressed]) -> Plan:
    finder = next(one for one in dressed if one.entry.name in FINDERS)
    reader = next((one for one in dressed if one.entry.name in READERS), None)
    return [
        (5.0, lambda: notes_talk(rng, split, finder, reader)),
        (2.5, lambda: everyday_talk(rng, split, dressed)),
        (0.6, lambda: missing_talk(rng, split, rng.choice(dressed))),
    ]


def _irrelevant(rng: Random, split: str, dressed: list[Dressed]) -> Talk | None:
    """A request for another tool, of the same domain or of a far one, or for what no tool does."""
    offered = [one.entry for one in dressed]
    topics = tuple(entry.topic for entry in offered)
    domains = {entry.domain for entry in offered}
    if chance(rng, 0.4):
        return unserved_talk(rng, split, topics)
    others = [
        e for e in (*_of_split(split), *_of_split(split, typed=True)) if e.topic not in topics
    ]
    near = [entry for entry in others if entry.domain in domains]
    if near and chance(rng, 0.45):
        entry = rng.choice(near)
    else:
        words = set[str]().union(*map(_stems, offered))
        entry = rng.choice([e for e in others if not _stems(e) & words and e.domain not in domains])
    request = plain_request(rng, split, entry)
    return no_tool_talk(rng, request, entry.topic, topics) if request else None


def _composed(rng: Random, split: str, made: list[Composed]) -> Plan:
    return [(7.0, lambda: composed_talk(rng, split, made))] if made else []


def _talk(rng: Random, split: str, kind: str, topics: tuple[str, ...]) -> Plan:
    """What is said without a tool, whatever is offered."""
    offers = kind != "none"
    plan: Plan = [
        (0.75, lambda: small_talk(rng, split, topics)),
        (1.7 if offers else 5, lambda: _knowledge(rng, split, offers)),
        (0.5 if offers else 1.4, lambda: memory_talk(rng, split)),
        (1.0 if offers else 5.0, lambda: text_talk(rng, split)),
    ]
    if kind not in _SERVE_ANYTHING:
        plan.append((1.3 if offers else 0.6, lambda: _unserved(rng, split, topics)))
    return plan


def _knowledge(rng: Random, split: str, offers: bool) -> Talk:
    return knowledge_talk(rng, split, rng.choice((1, 1, 2)), invented=0.0 if offers else 0.5)


def _unserved(rng: Random, split: str, topics: tuple[str, ...]) -> Talk | None:
    """A request for a tool that isn't offered."""
    if chance(rng, 0.4):
        return unserved_talk(rng, split, topics, python="calculations with Python" in topics)
    typed = () if "calculations with Python" in topics else _of_split(split, typed=True)
    others = [entry for entry in (*_of_split(split), *typed) if entry.topic not in topics]
    if "calculations with Python" in topics:
        others = [entry for entry in others if entry.topic not in _COMPUTABLE]
    entry = rng.choice(others)
    request = plain_request(rng, split, entry)
    if not request:
        return None
    return no_tool_talk(rng, request, entry.topic, topics)


def draw_exchange(rng: Random, split: str) -> tuple[str, str]:
    """A harmless request and its answer, for the guard."""
    while True:
        pick = rng.random()
        talk: Talk | None
        if pick < 0.3:
            talk = sum_branch(rng, split, rng.choice((0, 1)))
        elif pick < 0.5:
            talk = task_branch(rng, split, None, 0)
        elif pick < 0.75:
            offered = _offer(rng, split, 1)
            talk = everyday_talk(rng, split, offered) if offered[0].entry.replies else None
        elif pick < 0.88:
            talk = knowledge_talk(rng, split)
        elif pick < 0.94:
            talk = small_talk(rng, split)
        else:
            talk = text_talk(rng, split)
        if talk is None:
            continue
        asked = [m.text for m in talk.messages if isinstance(m, UserMessage)]
        if not isinstance(talk.messages[-1], AssistantMessage) or not talk.messages[-1].text:
            continue  # it ends with a call
        told = [m.text for m in talk.messages if isinstance(m, AssistantMessage) and m.text]
        return asked[-1], told[-1]
