"""Short texts in the prompt, with questions, summaries and action items; see `texts.txt`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from training.data.banks import value
from training.data.core import FOLDER, Talk, chance, filled, in_split, lower_first, split_of

__all__ = ["text_talk"]


@dataclass(slots=True)
class _Text:
    """A text with slots, and what can be said about it."""

    kinds: dict[str, str] = field(default_factory=dict[str, str])
    text: str = ""
    summary: str = ""
    tasks: str = ""
    asks: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@lru_cache(maxsize=1)
def _bank() -> tuple[tuple[_Text, ...], dict[str, tuple[str, ...]]]:
    """The texts, and the lines of the other sections."""
    texts: list[_Text] = []
    lines: dict[str, list[str]] = {}
    section = ""
    files = sorted(FOLDER.glob("texts*.txt"))
    for line in "\n".join(path.read_text(encoding="utf-8") for path in files).splitlines():
        if not line or line.startswith("# "):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            lines[section] = []
            if section.startswith("text "):
                texts.append(_Text())
            continue
        keyword, _, rest = line.replace("\\n", "\n").partition(" ")
        match keyword:
            case "slots":
                pairs = (pair.split("=") for pair in rest.split("; "))
                texts[-1].kinds = {name: kind for name, kind in pairs}
            case "text" | "summary" | "tasks":
                setattr(texts[-1], keyword, rest)
            case "ask":
                question, _, answer = rest.partition(" = ")
                texts[-1].asks.append((question, answer))
            case "line":
                lines[section].append(rest)
            case _:
                raise ValueError(f"texts*.txt: unknown keyword {keyword!r} in {line!r}.")
    return tuple(texts), {name: tuple(found) for name, found in lines.items()}


def text_talk(rng: Random, split: str) -> Talk | None:
    """One text with a question about it, or its summary or tasks; sometimes a second question.

    Returns:
        None where the split has no wording for what was drawn, or two of its slots drew alike.
    """
    texts, lines = _bank()
    one = rng.choice(texts)
    slots = {name: str(value(rng, split, kind)) for name, kind in one.kinds.items()}
    if len(set(slots.values())) < len(slots):
        return None  # two people of one name, or a number that could be either of two
    pick = rng.random()
    question = ""
    if pick < 0.22:
        section, answer = "summary frames", one.summary
    elif pick < 0.36 and one.tasks:
        section, answer = "action frames", one.tasks
    else:
        section = "question frames"
        question, answer = rng.choice(one.asks)
        if chance(rng, 0.08):
            question, answer = rng.choice(lines["absent"]), rng.choice(lines["unsaid"])
    frames = in_split(lines[section], split)
    if not frames:
        return None
    frame = rng.choice(frames).replace("{q}", question).replace("{t}", one.text)
    talk = Talk()
    talk.user(filled(frame, slots))
    talk.say(filled(answer, slots))
    others = [ask for ask in one.asks if ask[0] != question and split_of(ask[0]) == split]
    if chance(rng, 0.35) and others:
        question, answer = rng.choice(others)
        talk.user(filled(question if chance(rng, 0.7) else f"And {lower_first(question)}", slots))
        talk.say(filled(answer, slots))
    return talk
