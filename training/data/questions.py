"""How the assistant asks for values that are missing, and how the user then gives them.

What is to be learnt is a rule (a required value that nobody has said is asked for), not a phrase:
the questions are put together from the argument's name, its description, its kind and its options.
The wordings are in `questions.txt`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from training.data.core import chance, lower_first, sections

__all__ = ["Wanted", "question", "reply"]

_PLAIN = {"to": "recipient", "from": "starting point", "q": "search term", "n": "number"}
_ASKS = re.compile(r"(Which|What|When|Where|Who|Whose|How|Why|For whom|To whom|With whom)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A value that is missing: its argument, and how the user says it in the end."""

    name: str
    """The argument as the prompt has it."""
    kind: str
    text: str = ""
    """The argument's description."""
    options: tuple[str, ...] = ()
    said: str = ""
    """The bare value as the user writes it."""
    phrase: str = ""
    """The value with the words around it: `in Lima`."""

    @property
    def noun(self) -> str:
        """The argument in words."""
        parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name.rpartition(".")[2])
        words = parted.replace("_", " ").lower()
        return _PLAIN.get(
            words, re.sub(r"^from (?=.)", "source ", re.sub(r"^to (?=.)", "target ", words))
        )


def question(rng: Random, wanted: list[Wanted], topic: str) -> str:
    """A question for one missing value, or for two."""
    bank = sections("questions.txt")
    if len(wanted) == 1:
        return _led(rng, _single(rng, wanted[0], topic))
    one, other = wanted[:2]
    return rng.choice(bank["two"]).format(
        n=one.noun,
        m=other.noun,
        q=_single(rng, one, topic, plain=True),
        r=lower_first(_single(rng, other, topic, plain=True)),
    )


def _single(rng: Random, wanted: Wanted, topic: str, *, plain: bool = False) -> str:
    bank = sections("questions.txt")
    noun = wanted.noun
    choices: list[str] = []
    if wanted.options and len(wanted.options) < 6:
        shown = [option.replace("_", " ") for option in wanted.options]
        choices += [rng.choice(bank["options"]).replace("{o}", _either(shown))] * 3
    if wanted.kind in bank:
        choices += [rng.choice(bank[wanted.kind])] * 2
    if _ASKS.match(wanted.text) and len(wanted.text) < 45:
        choices += [f"{wanted.text.rstrip('.')}?"] * 2
    elif wanted.text.startswith(("The ", "Name of ", "Number of ")) and len(wanted.text) < 45:
        named = lower_first(wanted.text.rstrip("."))
        named = named if named.startswith("the ") else f"the {named}"
        choices += [rng.choice((f"What is {named}?", f"Could you tell me {named}?"))]
    if noun.endswith("s") and re.match(r"int\(|few\(", wanted.kind):
        choices += [rng.choice(bank["count"])] * 2
    # A name of one or two letters says nothing to a person.
    if len(noun) > 2 or not choices:
        choices += rng.sample(bank["any"][:5] if plain else bank["any"], 3)
    text = rng.choice(choices).replace("{n}", noun).replace("{topic}", topic)
    return text[:1].upper() + text[1:]


def _led(rng: Random, text: str) -> str:
    if chance(rng, 0.2) and text.startswith(("Wh", "How", "At ", "On ", "In ", "For which")):
        return f"{rng.choice(sections('questions.txt')['lead'])} {text}"
    return text


def _either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def reply(rng: Random, wanted: list[Wanted]) -> str:
    """What the user answers: the bare value, or the value in a few words."""
    bank = sections("questions.txt")
    one = wanted[0]
    slots = {"v": one.said, "s": one.phrase, "n": one.noun}
    if len(wanted) == 1:
        text = rng.choice(bank["reply"])
    else:
        text = rng.choice(bank["reply two"])
        other = wanted[1]
        slots |= {"w": other.said, "t": other.phrase, "m": other.noun}
    filled = text.format(**slots)
    return filled[:1].upper() + filled[1:] if text.startswith("{s}") else filled
