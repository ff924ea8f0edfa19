"""Questions about what the user's own files say: searched for, read where needed, and answered.

The tools are the bank's own for searching and reading; what stands in the files is in `notes.txt`.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from pydantic import JsonValue

from training.data.banks import value
from training.data.core import FOLDER, Talk, chance, in_split, lower_first, made_up
from training.data.requests import Dressed

__all__ = ["FINDERS", "READERS", "notes_talk"]

FINDERS = ("search_documents", "search_notes")
"""The tools that find something in the user's files, by their names in the bank."""
READERS = ("read_file",)
_SLOT = re.compile(r"\{([^{}]+)\}")


@cache
def _lines() -> tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]:
    found: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = []
    for line in (FOLDER / "notes.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            term, written, asks, answers = line.split(" ; ")
            found.append((term, written, tuple(asks.split(" / ")), tuple(answers.split(" / "))))
    return tuple(found)


def notes_talk(rng: Random, split: str, finder: Dressed, reader: Dressed | None) -> Talk | None:
    """A question that only the user's files can answer.

    Args:
        rng: The source of chance.
        split: The split whose wordings are used.
        finder: The tool that searches.
        reader: The tool that reads a file; where there is one, a search may find paths alone.

    Returns:
        None where the split has no wording for what was drawn.
    """
    term, written, asks, answers = rng.choice(_lines())
    mine = in_split(asks, split)
    if not mine:
        return None
    template = rng.choice(mine)
    drawn = {s: str(value(rng, split, s)) for s in _SLOT.findall(f"{term} {written} {template}")}

    def filled(text: str) -> str:
        return _SLOT.sub(lambda slot: drawn[slot[1]], text)

    term, asked, text = filled(term), filled(template), filled(written)
    talk = Talk()
    talk.user(lower_first(asked) if chance(rng, 0.15) else asked)
    # What is searched for is the word of the question that the file must have.
    query = term if term.lower() in asked.lower() else _longest(asked, text)
    talk.call(finder.call({finder.entry.arguments[0].name: query}))
    path = str(value(rng, split, rng.choice(("file", "path")))).replace("\\", "/")
    if chance(rng, 0.1):
        talk.results([])
        talk.say(rng.choice(_NOTHING).format(q=query))
        return talk
    if reader is None or chance(rng, 0.45):
        talk.results(_hits(rng, split, path, text))
        talk.say(filled(rng.choice(answers)))
        return talk
    talk.results(rng.choice(([path], [{"path": path}], path, {"files": [path]})))
    talk.call(reader.call({reader.entry.arguments[0].name: path}))
    around = [_other(rng, split) for _ in range(rng.choice((0, 1, 2)))]
    around.insert(rng.randint(0, len(around)), text)
    talk.results("\n".join(around))
    talk.say(filled(rng.choice(answers)))
    return talk


_NOTHING = (
    "I found nothing about {q} in your files.",
    "Your files say nothing about {q}.",
    "There is nothing on {q} in what you have written.",
    "I searched for {q} and found nothing.",
)


def _longest(asked: str, written: str) -> str:
    """The longest word that question and file have in common; else the question's longest."""
    words = re.findall(r"[\w-]{4,}", asked)
    common = [word for word in words if word.lower() in written.lower()]
    return max(common or words or [asked], key=len)


def _other(rng: Random, split: str) -> str:
    """A line of a file that has nothing to do with the question."""
    return str(value(rng, split, "free")) if chance(rng, 0.7) else f"# {made_up(rng, split)}"


def _hits(rng: Random, split: str, path: str, text: str) -> JsonValue:
    """What a search finds: the line, with its file, and at times another one."""
    hits = [(path, text)]
    if chance(rng, 0.35):
        hits.append((str(value(rng, split, "file")), _other(rng, split)))
        rng.shuffle(hits)
    shape = rng.randrange(3)
    if shape == 0:
        return "\n".join(f"{where}: {line}" for where, line in hits)
    if shape == 1:
        return [{"path": where, "text": line} for where, line in hits]
    return {"hits": [{"file": where, "line": line} for where, line in hits]}
