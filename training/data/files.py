"""Talk about a folder of text files, with the very tools that come with Corral.

What is said is in `files.txt`.
"""

from __future__ import annotations

import datetime
from random import Random

from corral.messages import ToolSpec
from corral.tools.builtin import ListFiles, ReadFile, SearchFiles, WriteFile, now
from training.data.banks import value
from training.data.core import Talk, chance, in_split, joined, lower_first, sections

__all__ = ["draw_files", "files_talk"]

_COUNT = ToolSpec(
    name="count_words",
    description="Count the words of a text.",
    parameters={
        "type": "object",
        "properties": {"text": {"type": "string", "description": "The text to count."}},
        "required": ["text"],
    },
)
_TERMS = (
    "plant crop food ingredient person fullname city product device company topic dish book room "
    "animal color team subject hotel disease"
).split()
_COUNTED = ("plant", "animal", "device", "dish", "room")
_FOLDERS = ("notes", "notes", "texts", "documents", "journal", "work", "")
_ENDINGS = ("md", "md", "txt", "txt", "org")
_FOUND_IN = 0.82


def draw_files(rng: Random) -> list[ToolSpec]:
    """Some of the tools, the one that searches always among them."""
    others = [ReadFile.SPEC, ListFiles.SPEC, WriteFile.SPEC, now.spec, _COUNT]
    return [SearchFiles.SPEC, *rng.sample(others, rng.choice((1, 2, 3, 4, 5, 5)))]


def files_talk(rng: Random, split: str, tools: list[ToolSpec]) -> Talk | None:
    """A request for one of the tools, and its end. None where the split has no wording for it."""
    kinds = {"search_files": 7.0, "write_file": 2.0, "count_words": 1.0}
    offered = [tool.name for tool in tools]
    name = rng.choices(offered, [kinds.get(one, 1.5) for one in offered])[0]
    talk = Talk()
    made = _KINDS[name](rng, split, talk)
    return talk if made else None


def _search(rng: Random, split: str, talk: Talk) -> bool:
    kind = rng.choice(_TERMS)
    term = str(value(rng, split, kind))
    if not _ask(rng, split, talk, "mention", x=_with_article(rng, kind, term)):
        return False
    talk.call(("search_files", {"text": term}))
    files = _names(rng, split, rng.choice((1, 1, 1, 2, 2, 3)))
    if not chance(rng, _FOUND_IN):
        talk.results("(not found)")
        talk.say(_said(rng, "not found", x=term))
        return True
    lines: list[str] = []
    for file in files:
        for _ in range(rng.choice((1, 1, 1, 2))):
            text = _said(rng, "line", x=term, n=str(rng.randint(2, 400)))
            lines.append(f"{file}:{rng.randint(1, 60)}: {text}")
    talk.results("\n".join(lines))
    what = "found more" if len(files) > 1 else "found"
    answer = _said(rng, what, x=term, files=joined(files))
    talk.say(answer if len(files) == 2 else answer.replace("Both ", ""))
    return True


def _read(rng: Random, split: str, talk: Talk) -> bool:
    (file,) = _names(rng, split, 1)
    if not _ask(rng, split, talk, "read", file=file):
        return False
    text = str(value(rng, split, "free"))
    talk.call(("read_file", {"path": file}))
    talk.results(text)
    talk.say(_said(rng, "told", file=file, text=text))
    return True


def _list(rng: Random, split: str, talk: Talk) -> bool:
    if not _ask(rng, split, talk, "list"):
        return False
    files = [name.rpartition("/")[2] for name in _names(rng, split, rng.randint(2, 5))]
    talk.call(("list_files", {}))
    talk.results("\n".join(files))
    talk.say(_said(rng, "listed", files=joined(files)))
    return True


def _write(rng: Random, split: str, talk: Talk) -> bool:
    (file,) = _names(rng, split, 1)
    text = str(value(rng, split, "note"))
    adds = chance(rng, 0.6)
    if not _ask(rng, split, talk, "append" if adds else "new", file=file, text=text):
        return False
    how = {"how": "append"} if adds else {}
    talk.call(("write_file", {"path": file, "text": text, **how}))
    before = rng.randint(0, 900) if adds else 0
    talk.results(f"{file} now has {before + len(text.encode())} bytes.")
    talk.say(_said(rng, "written", file=file))
    return True


def _now(rng: Random, split: str, talk: Talk) -> bool:
    what = rng.choice(("date", "time"))
    if not _ask(rng, split, talk, what):
        return False
    moment = datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=rng.randrange(2_000_000))
    talk.call(("now", {}))
    talk.results(
        {
            "date": f"{moment:%Y-%m-%d}",
            "time": f"{moment:%H:%M:%S}",
            "weekday": f"{moment:%A}",
            "time_zone": "UTC",
            "utc_offset": "+0000",
        }
    )
    day = f"{moment:%A}, {moment:%Y-%m-%d}"
    talk.say(f"It is {moment:%H:%M}." if what == "time" else f"Today is {day}.")
    return True


def _count(rng: Random, split: str, talk: Talk) -> bool:
    text = str(value(rng, split, "free"))
    if not _ask(rng, split, talk, "words", text=text):
        return False
    talk.call(("count_words", {"text": text}))
    talk.results(f"{len(text.split())}\n")
    talk.say(_said(rng, "counted", n=str(len(text.split()))))
    return True


_KINDS = {
    "search_files": _search,
    "read_file": _read,
    "list_files": _list,
    "write_file": _write,
    "now": _now,
    "count_words": _count,
}


def _ask(rng: Random, split: str, talk: Talk, what: str, **slots: str) -> bool:
    wordings = in_split(sections("files.txt")[what], split)
    if not wordings:
        return False
    text = rng.choice(wordings)
    for slot, given in slots.items():
        text = text.replace("{" + slot + "}", given)
    talk.user(lower_first(text) if chance(rng, 0.15) and not text.startswith("{") else text)
    return True


def _said(rng: Random, what: str, **slots: str) -> str:
    text = rng.choice(sections("files.txt")[what])
    if "x" in slots:
        slots["X"] = slots["x"][:1].upper() + slots["x"][1:]
    for slot, given in slots.items():
        text = text.replace("{" + slot + "}", given)
    return text


def _with_article(rng: Random, kind: str, term: str) -> str:
    """At times with an article in front, which is not what is searched for."""
    if not term.islower() or chance(rng, 0.5):
        return term
    if kind in _COUNTED and not term.endswith("s") and chance(rng, 0.5):
        return f"{'an' if term[0] in 'aeiou' else 'a'} {term}"
    return f"the {term}"


def _names(rng: Random, split: str, count: int) -> list[str]:
    """Different files of one folder."""
    folder = rng.choice(_FOLDERS)
    names: set[str] = set()
    while len(names) < count:
        stem = str(value(rng, split, rng.choice(("word", "subject", "topic", "plant"))))
        stem = "_".join(stem.lower().split())
        if stem.replace("_", "").isalnum():
            names.add(f"{folder}/{stem}.{rng.choice(_ENDINGS)}".lstrip("/"))
    return sorted(names)
