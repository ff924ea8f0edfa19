"""Talk without tools: knowledge, small talk, remembering, and saying that no tool fits."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from random import Random

from training.data.banks import value
from training.data.core import FOLDER, Talk, chance, in_split, lower_first, sections

__all__ = [
    "knowledge_talk",
    "memory_talk",
    "no_tool_talk",
    "small_talk",
    "unserved",
    "unserved_talk",
    "welcome",
]


def welcome(rng: Random) -> str:
    """An answer to thanks."""
    return rng.choice(_bank()["welcome"])


@lru_cache(maxsize=1)
def _bank() -> dict[str, tuple[str, ...]]:
    return sections("chat.txt")


@cache
def _asks(section: str, split: str) -> tuple[str, ...]:
    return in_split(_bank()[section], split)


@cache
def _questions(
    split: str, *, invented: bool = False
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """The questions of general knowledge that a split has wordings for, with their answers.

    Either those the base made up, or all the others.
    """
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for path in sorted(FOLDER.glob("knowledge*.txt")):
        if (path.stem == "knowledge_invented") != invented:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            asks, _, answers = line.partition(" => ")
            # The lines of a poem are parted by the same mark as answers are.
            verse = "poem" in asks or "haiku" in asks
            told = (answers.replace(" / ", "\n"),) if verse else tuple(answers.split(" / "))
            mine = in_split(asks.split(" / "), split)
            if mine:
                found.append((mine, told))
    return tuple(found)


def knowledge_talk(rng: Random, split: str, turns: int = 1, *, invented: float = 0.0) -> Talk:
    """`turns` questions of general knowledge, each with a short answer.

    Args:
        rng: The source of chance.
        split: The split whose wordings are used.
        turns: How many questions.
        invented: The share of talks whose questions the base made up: a tool might serve them too.
    """
    talk = Talk()
    pool = _questions(split, invented=chance(rng, invented))
    for asks, answers in rng.sample(pool, turns):
        ask = rng.choice(asks)
        pick = rng.random()
        if pick < 0.15:
            whole = ask if ask.endswith(("?", ".", "!")) else f"{ask}?"
            ask = rng.choice(_bank()["polite"]).format(q=whole)
        elif pick < 0.3:
            ask = lower_first(ask)
        talk.user(ask)
        talk.say(rng.choice(answers))
    return talk


def small_talk(rng: Random, split: str, topics: tuple[str, ...] = ()) -> Talk:
    """A greeting, thanks or a question about the assistant.

    Args:
        rng: The source of chance.
        split: The split whose wordings are used.
        topics: What the assistant's tools are about.
    """
    talk = Talk()
    able = _asks("able asks", split)
    if able and chance(rng, 0.14):
        talk.user(rng.choice(able))
        answers = _bank()["able" if topics else "unable"]
        talk.say(rng.choice(answers).format(t=_list(topics)))
        return talk
    kinds = [name for name in _bank() if name.startswith("small ") and "answer" not in name]
    while True:
        kind = rng.choice((*kinds, *kinds[:5], *kinds[:5]))
        asks = _asks(kind, split)
        if asks:
            break
    talk.user(rng.choice(asks))
    talk.say(rng.choice(_bank()[kind.replace("small", "small answer")]))
    return talk


def memory_talk(rng: Random, split: str) -> Talk | None:
    """The user says one or two things about themselves, and asks for one of them later.

    Returns:
        None where the split has no wording for that.
    """
    recalls = [name.removeprefix("recall ") for name in _bank() if name.startswith("recall ")]
    kinds = [k for k in recalls if _asks(f"told {k}", split) and _asks(f"recall {k}", split)]
    if not kinds:
        return None
    told = rng.sample(kinds, min(len(kinds), rng.choice((1, 1, 2))))
    wanted = rng.choice(told)
    talk = Talk()
    found = ""
    for kind in told:
        given = str(value(rng, split, kind))
        found = given if kind == wanted else found
        talk.user(rng.choice(_asks(f"told {kind}", split)).replace("{x}", given))
        talk.say(_capital(rng.choice(_bank()[f"noted {kind}"]).replace("{x}", given)))
    if chance(rng, 0.35):
        talk.messages += knowledge_talk(rng, split).messages
    talk.user(rng.choice(_asks(f"recall {wanted}", split)))
    talk.say(_capital(rng.choice(_bank()[f"recalled {wanted}"]).replace("{x}", found)))
    return talk


def no_tool_talk(rng: Random, request: str, topic: str, offered: tuple[str, ...]) -> Talk:
    """A request that no tool serves, and an honest answer in one of many wordings.

    Args:
        rng: The source of chance.
        request: What the user says.
        topic: What it is about.
        offered: What the assistant's own tools are about.
    """
    talk = Talk()
    talk.user(request)
    answer = rng.choice(_bank()["no tool"]).replace("{t}", topic).replace("{T}", _capital(topic))
    if offered and chance(rng, 0.55):
        answer += " " + rng.choice(_bank()["but"]).replace("{o}", _list(offered))
    talk.say(answer)
    return talk


_SLOT = re.compile(r"\{([^{}]+)\}")


@cache
def unserved(split: str, *, python: bool) -> tuple[tuple[str, str], ...]:
    """The requests of `unserved.txt` that a split has, with their topics; with `python`, those that
    it couldn't compute.
    """
    found: list[tuple[str, str]] = []
    for line in (FOLDER / "unserved.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            topic, _, asks = line.partition(" ; ")
            found += [
                (ask.removesuffix(" *"), topic)
                for ask in in_split(asks.split(" / "), split)
                if not (python and ask.endswith(" *"))
            ]
    return tuple(found)


def unserved_talk(
    rng: Random, split: str, offered: tuple[str, ...], *, python: bool = False
) -> Talk:
    """A request for what no tool of the banks does."""
    ask, topic = rng.choice(unserved(split, python=python))
    request = _SLOT.sub(lambda slot: str(value(rng, split, slot[1])), ask)
    return no_tool_talk(rng, request, topic, offered)


def _list(topics: tuple[str, ...]) -> str:
    different = list(dict.fromkeys(topics))[:3]
    if len(different) < 2:
        return "".join(different)
    return f"{', '.join(different[:-1])} and {different[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
