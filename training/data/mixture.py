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
from training.data.chat import knowledge_talk, memory_talk, no_tool_talk, small_talk
from training.data.composed import (
    Composed,
    chain_talk,
    composed_chain,
    composed_talk,
    composed_tool,
)
from training.data.core import Talk, chance, sections
from training.data.everyday import Entry, entries
from training.data.requests import Dressed, dress, everyday_talk, plain_request, total_talk
from training.data.tasks import task_branch
from training.data.texts import text_talk

__all__ = ["CODE_DESCRIPTIONS", "draw_exchange", "draw_tree"]

BRANCHES = 8
CODE_DESCRIPTIONS = (
    "Run a Python program and return what it prints.",
    "Execute Python code.",
    "Runs Python in a sandbox.",
)
_COMPUTABLE = frozenset(
    {"files", "unit conversions", "geometry", "equations", "number theory", "number sequences"}
    | {"statistics", "probability", "savings", "loans", "physics", "electricity", "words", "dice"}
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
Plan = list[tuple[float, Callable[[], Talk | None]]]


@cache
def _of_split(split: str) -> tuple[Entry, ...]:
    """The tools to offer: a split's own; what is measured also has train's, in other wordings."""
    own = tuple(entry for entry in entries() if entry.split == split)
    if split == "train":
        return own
    return own * 3 + tuple(entry for entry in entries() if entry.split == "train")


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
    """A system prompt, its tools, the date, and eight conversations."""
    kinds = ("code", "functions", "both", "none", "composed", "chain", "builtin")
    # The first trees of a finite split go round the kinds, so that each is measured.
    kind = (
        rng.choices(kinds, (25, 37, 12, 9, 11, 4, 2))[0] if split == "train" else kinds[number % 7]
    )
    system, date = _system(rng), _date(rng)
    tools: list[ToolSpec] = []
    plan: Plan = []
    topics: tuple[str, ...] = ()
    dressed: list[Dressed] = []
    if kind in ("functions", "both"):
        dressed = _offer(rng, split, rng.choices((1, 2, 3, 4, 5, 6), (26, 22, 18, 14, 10, 10))[0])
        tools += [one.spec for one in dressed]
        topics = tuple(one.entry.topic for one in dressed)
        plan += _functions(rng, split, dressed)
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
    plan += _talk(rng, split, kind, topics)
    return (
        system,
        tuple(tools),
        date if any(t.kind == "code_interpreter" for t in tools) else None,
        _branches(rng, plan),
    )


def _branches(rng: Random, plan: Plan) -> list[Talk]:
    """Eight conversations; no two begin alike, as far as the split's wordings go."""
    talks: list[Talk] = []
    begun: set[str] = set()
    weights = [weight for weight, _ in plan]
    patience = 400
    while len(talks) < BRANCHES:
        _, make = rng.choices(plan, weights)[0]
        talk = make()
        patience -= 1
        if talk is None or (talk.opening.lower() in begun and patience > 0):
            continue
        begun.add(talk.opening.lower())
        talks.append(talk)
    return talks


def _code(rng: Random, split: str, date: datetime.date | None, weight: float) -> Plan:
    return [
        (
            4 * weight,
            lambda: sum_branch(rng, split, rng.choices((0, 1, 2, 3, 4), (30, 28, 22, 14, 6))[0]),
        ),
        (3 * weight, lambda: task_branch(rng, split, date, rng.choice((0, 0, 0, 1, 1, 2)))),
    ]


def _offer(rng: Random, split: str, wanted: int) -> list[Dressed]:
    """Some tools of different names, each dressed anew."""
    offered: dict[str, Dressed] = {}
    pool = _of_split(split)
    alike = chance(rng, 0.4)
    while len(offered) < wanted:
        entry = rng.choice(pool)
        if alike and offered and chance(rng, 0.6):
            entry = rng.choice(_neighbours(pool, rng.choice(list(offered.values())).entry))
        one = dress(rng, entry)
        if one.spec.name not in offered and all(
            entry is not other.entry for other in offered.values()
        ):
            offered[one.spec.name] = one
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


def _functions(rng: Random, split: str, dressed: list[Dressed]) -> Plan:
    return [(7.0, lambda: everyday_talk(rng, split, dressed))]


def _composed(rng: Random, split: str, made: list[Composed]) -> Plan:
    return [(7.0, lambda: composed_talk(rng, split, rng.choice(made)))] if made else []


def _talk(rng: Random, split: str, kind: str, topics: tuple[str, ...]) -> Plan:
    """What is said without a tool, whatever is offered."""
    offers = kind != "none"
    plan: Plan = [
        (0.75, lambda: small_talk(rng, split, topics)),
        (1.7 if offers else 4, lambda: knowledge_talk(rng, split, rng.choice((1, 1, 2)))),
        (0.5 if offers else 1.4, lambda: memory_talk(rng, split)),
        (0.4 if offers else 2.2, lambda: text_talk(rng, split)),
    ]
    plan.append((0.8 if offers else 0.6, lambda: _unserved(rng, split, topics)))
    return plan


def _unserved(rng: Random, split: str, topics: tuple[str, ...]) -> Talk | None:
    """A request for a tool that isn't offered."""
    others = [entry for entry in _of_split(split) if entry.topic not in topics]
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
