"""Sums for the code interpreter in many wordings, and the follow-ups that build on a result.

The program is always one `print`, its operands copied as the user wrote them. What may not come out
whole is rounded to six places, money and percentages to two, so that the answer can repeat what was
printed digit by digit. The wordings are in `arithmetic.txt`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random

from training.data.core import Talk, chance, in_split, sections
from training.data.programs import run

__all__ = ["follow_up", "in_order", "problems", "sum_branch", "wordings"]

_PINNED = frozenset(
    {
        "What is {a} * {b}?",
        "what is {a} * {b}",
        "What is {a} times {b}?",
        "What is {a} + {b}?",
        "{a} * {b}",
        "and add {n} to that",
        "now divide it by {n}",
        "double it",
    }
)
_EXPRESSION = {
    "+": "{a} + {b}",
    "-": "{a} - {b}",
    "*": "{a} * {b}",
    "/": "{a} / {b}",
    "**": "{a} ** {b}",
    "%": "{a} % {b}",
    "percent": "{a} * {b} / 100",
    "square": "{a} ** 2",
}
_WEIGHTS = {
    "*": 26,
    "+": 16,
    "-": 14,
    "/": 13,
    "percent": 10,
    "**": 5,
    "%": 5,
    "sqrt": 4,
    "square": 3,
    "two": 7,
    "twosaid": 4,
    "problem": 60,
}
_PLAIN = ("+", "-", "*", "/")


@dataclass(slots=True)
class _State:
    """What a follow-up can speak of: the operands and the result so far."""

    kind: str
    a: str
    b: str
    result: str


@dataclass(frozen=True, slots=True)
class _Follow:
    """A step onwards from a result: its wordings, its expression, the kind of number it takes."""

    name: str
    number: str
    expression: str


@lru_cache(maxsize=1)
def _bank() -> dict[str, tuple[str, ...]]:
    return sections("arithmetic.txt")


@lru_cache(maxsize=1)
def _follows() -> tuple[_Follow, ...]:
    found: list[_Follow] = []
    for section in _bank():
        if section.startswith("follow "):
            name, number, expression = section.removeprefix("follow ").split(": ")
            found.append(_Follow(name, number, expression))
    # The four operations are what people mostly ask for.
    return (*found[:4], *found[:4], *found[:4], *found)


@cache
def _of(section: str, split: str) -> tuple[str, ...]:
    return in_split(_bank()[section], split, _PINNED)


@cache
def wordings(kind: str, split: str) -> tuple[str, ...]:
    """All requests of a split for an operation: each frame with each form, and the stories."""
    framed = [
        frame.replace("{e}", form)
        for frame in _bank()["frames"]
        for form in _bank()[f"form {kind}"]
    ]
    # A story is one text among hundreds of framed ones: weigh it up.
    stories = [story for story in _stories(kind) for _ in range(6)]
    return in_split([*framed, *stories], split, _PINNED)


def _stories(kind: str) -> tuple[str, ...]:
    return _bank().get(f"story {kind}", ())


def _number(rng: Random, *, most: int = 7, decimals: float = 0.15, negative: float = 0.05) -> str:
    digits = min(most, rng.choice((1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7)))
    number = rng.randint(10 ** (digits - 1), 10**digits - 1)
    text = str(number)
    if digits < 6 and chance(rng, decimals):
        places = rng.choice((1, 2, 2, 3))
        text = f"{number}.{rng.randint(1, 10**places - 1):0{places}d}".rstrip("0")
    return f"-{text}" if chance(rng, negative) else text


def _whole(text: str) -> bool:
    return "." not in text and "e" not in text


def _printed(expression: str, *operands: str, divides: bool = False) -> str:
    whole = not divides and all(_whole(operand) for operand in operands)
    return f"print({expression})" if whole else f"print(round({expression}, 6))"


def _program(kind: str, a: str, b: str) -> str:
    if kind == "sqrt":
        return f"import math\nprint(round(math.sqrt({a}), 6))"
    if kind == "percent":
        return f"print(round({a} * {b} / 100, 2))"
    left = f"({a})" if a.startswith("-") and kind in ("**", "square") else a
    return _printed(_EXPRESSION[kind].format(a=left, b=b), a, b, divides=kind == "/")


def _operands(rng: Random, kind: str) -> tuple[str, str]:
    match kind:
        case "**":
            power = str(rng.choice((2, 3, 3, 4, 5, 6, 7, 8, 10)))
            return _number(rng, most=3, decimals=0.1, negative=0.03), power
        case "%":
            divisor = _number(rng, most=3, decimals=0, negative=0)
            return _number(rng, decimals=0, negative=0), divisor
        case "percent":
            usual = (5, 10, 12, 15, 18, 20, 25, 30, 33, 7.5, 2.5)
            return _number(rng, negative=0, decimals=0.3), str(
                rng.choice((*usual, rng.randint(1, 99)))
            )
        case "sqrt":
            square = str(rng.randint(2, 99) ** 2)
            return rng.choice((square, _number(rng, negative=0, decimals=0.05))), ""
        case "square":
            return _number(rng, most=4, decimals=0.1), ""
        case "-":
            a, b = _number(rng), _number(rng, negative=0)
            return (b, a) if chance(rng, 0.7) and 0 <= float(a) < float(b) else (a, b)
        case _:
            return _number(rng), _number(rng)


def sum_branch(rng: Random, split: str, turns: int) -> Talk | None:
    """A conversation that opens with a sum and goes on with up to `turns` follow-ups.

    Returns:
        None where the split has no wording for the operation drawn.
    """
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    talk = Talk()
    if kind == "problem":
        state = _problem(rng, split, talk)
        if state and chance(rng, 0.4):
            _follow(rng, split, talk, state)
        return talk if state else None
    asks = wordings(kind, split)
    if not asks:
        return None
    ask = rng.choice(asks)
    state = _two_steps(rng, talk, kind, ask) if "two" in kind else _one(rng, talk, kind, ask)
    for _ in range(turns):
        if not _follow(rng, split, talk, state):
            break
    return talk


def _one(rng: Random, talk: Talk, kind: str, ask: str) -> _State:
    a, b = _operands(rng, kind)
    story = ask in _stories(kind)
    if story:  # nobody has -3 apples
        a, b = a.lstrip("-"), b.lstrip("-")
    if kind == "-" and float(a) < float(b) and (story or "difference between" in ask):
        a, b = b, a
    talk.user(ask.format(a=_shown(rng, a), b=_shown(rng, b)))
    if kind in ("+", "*") and ask.index("{b}") < ask.index("{a}"):
        a, b = b, a
    result = _run(talk, _program(kind, a, b))
    talk.say(_answer(rng, kind, a, b, result, story=story))
    return _State(kind, a, b, result)


def _answer(rng: Random, kind: str, a: str, b: str, result: str, *, story: bool = False) -> str:
    if story and chance(rng, 0.5):
        said = rng.choice(("That is {r}.", "It comes to {r}.", "{r}.", "The answer is {r}."))
        return said.format(r=result)
    if chance(rng, 0.06):
        return result
    return rng.choice(_bank()[f"said {kind}"]).format(a=a, b=b, r=result)


def _two_steps(rng: Random, talk: Talk, kind: str, ask: str) -> _State:
    a, b, c = (_number(rng, most=4, decimals=0.1, negative=0) for _ in range(3))
    forms = sorted(_bank()[f"form {kind}"], key=len, reverse=True)
    form = next(form for form in forms if form in ask)
    signs = form.replace("plus", "+").replace("minus", "-").replace("times", "*")
    expression = signs.format(a=a, b=b, c=c)
    talk.user(ask.format(a=a, b=b, c=c))
    result = _run(talk, _printed(expression, a, b, c))
    talk.say(rng.choice(_bank()["said two"]).format(e=expression, r=result))
    return _State("two", a, b, result)


def _problem(rng: Random, split: str, talk: Talk) -> _State | None:
    """A question whose answer takes several steps; None where the split has no wording of it."""
    expression, wordings_ = rng.choice(problems())
    asks = in_split(wordings_, split)
    if not asks:
        return None
    ask = rng.choice(asks)
    told = in_order(expression, ask)
    for _ in range(60):
        numbers = {name: _everyday_number(rng, name, expression) for name in "abcd"}
        filled_in = told.format(**numbers)
        program = f"print(round({filled_in}, 2))" if "/" in filled_in else f"print({filled_in})"
        printed, failed = run(program)
        if not failed and 0 < float(printed) < 10_000_000:
            talk.user(ask.format(**numbers))
            result = _run(talk, program)
            talk.say(rng.choice(_bank()["said problem"]).format(r=result))
            return _State("", "", "", result)
    return None


_COMMUTE = re.compile(
    r"(?<=\()\{\w\}(?: \+ \{\w\})+(?=\))|^\{\w\}(?: \+ \{\w\})+$|(?<!/ )\{\w\}(?: \* \{\w\})+"
)
"""What may stand in any order: sums within brackets or alone, and products."""


def in_order(expression: str, ask: str) -> str:
    """The expression with its numbers in the order of the question, where that is all the same."""

    def told(found: re.Match[str]) -> str:
        sign = " + " if "+" in found[0] else " * "
        return sign.join(sorted(found[0].split(sign), key=ask.index))

    return _COMMUTE.sub(told, expression)


@cache
def problems() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Expressions and the questions that they answer, each as often as it has questions."""
    found = [
        (section.removeprefix("problem "), asks)
        for section, asks in _bank().items()
        if section.startswith("problem ")
    ]
    return tuple(one for one in found for _ in one[1])


def _everyday_number(rng: Random, name: str, expression: str) -> str:
    """A number of a size that the place in the expression suggests."""
    if f"{{{name}}} / 100" in expression:
        return rng.choice(("5", "8", "10", "12", "15", "19", "20", "25", "30", "7.5", "2.5", "3"))
    first = name == "a" and ("- {b}" in expression or "% " in expression or "/" in expression)
    low, high = rng.choice(((30, 99), (100, 999), (1000, 9000))) if first else (2, 60)
    return str(rng.randint(low, high))


def _shown(rng: Random, number: str) -> str:
    """A number as the user writes it: now and then 1204500 as 1,204,500."""
    if number and _whole(number) and len(number.lstrip("-")) > 3 and chance(rng, 0.12):
        return f"{int(number):,}"
    return number


def _run(talk: Talk, program: str) -> str:
    printed, failed = run(program)
    talk.code(program)
    talk.results(printed, is_error=failed)
    return printed


def follow_up(rng: Random, split: str, talk: Talk, result: str) -> bool:
    """Ask one thing more about a number that some earlier answer gave; False where nothing fits."""
    try:
        float(result)
    except ValueError:
        return False
    return _follow(rng, split, talk, _State("", "", "", result))


def _follow(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    kinds = ["step"] * 13 + ["even", "more", "root", "round", "again", "thanks"]
    if state.kind in _PLAIN:
        kinds += ["first", "other", "other", "other", "instead", "instead"]
    if state.kind == "percent":
        kinds += ["instead"]
    if len(state.result.lstrip("-")) > 12 or "e" in state.result:
        kinds = ["thanks", "again"]
    kind = rng.choice(kinds)
    if kind in ("other", "instead"):
        return _changed(rng, split, talk, state, kind)
    if kind in ("first", "again", "thanks"):
        return _spoken(rng, split, talk, state, kind)
    if kind != "step" and _fits(kind, state.result):
        return _asked(rng, split, talk, state, kind)
    return _step(rng, split, talk, state)


def _fits(kind: str, result: str) -> bool:
    match kind:
        case "even":
            return _whole(result)
        case "root":
            return not result.startswith("-")
        case "round":
            return not _whole(result)
        case _:
            return True


def _spoken(rng: Random, split: str, talk: Talk, state: _State, kind: str) -> bool:
    """What is answered from memory, without a program."""
    asks = _of(f"ask {kind}", split)
    if not asks:
        return False
    talk.user(rng.choice(asks))
    answers = {
        "first": ("The first number was {a}.", "It was {a}.", "You started with {a}.", "{a}."),
        "again": ("It was {r}.", "The result was {r}.", "{r}.", "We got {r}."),
        "thanks": _bank()["ask welcome"],
    }[kind]
    talk.say(rng.choice(answers).format(a=state.a, r=state.result))
    return True


def _step(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    follow = rng.choice(_follows())
    asks = _of(f"follow {follow.name}: {follow.number}: {follow.expression}", split)
    if not asks:
        return False
    n = _step_number(rng, follow.number)
    power = state.result.startswith("-") and "**" in follow.expression
    base = f"({state.result})" if power else state.result
    expression = follow.expression.format(r=base, n=n)
    if follow.number == "percent":
        program = f"print(round({expression}, 2))"
    else:
        program = _printed(expression, state.result, n, divides="/" in follow.expression)
    talk.user(rng.choice(asks).format(n=n))
    x = _run(talk, program)
    answers = _bank()[f"followed {follow.name}"]
    talk.say(rng.choice(answers).format(r=state.result, n=n, x=x))
    state.kind, state.result = "", x
    return True


def _step_number(rng: Random, kind: str) -> str:
    match kind:
        case "any":
            return _number(rng, most=5, negative=0)
        case "small":
            return _number(rng, most=2, decimals=0.08, negative=0)
        case "percent":
            return str(rng.choice((5, 10, 15, 19, 20, 25, 30, 40, 50, rng.randint(1, 60))))
        case _:
            return ""


def _asked(rng: Random, split: str, talk: Talk, state: _State, kind: str) -> bool:
    """A question about the result that a program answers: even, more than, root, rounded."""
    said = {m.text for m in talk.messages if m.role == "user"}
    asks = [ask for ask in _of(f"ask {kind}", split) if ask not in said]
    if not asks:
        return False
    ask, r = rng.choice(asks), state.result
    near = float(r) + rng.choice((1, -1)) * rng.randint(1, 60)
    n = str(round(rng.choice((near, near, float(r) * 2, 100, 500, 1000))))
    program = {
        "even": f"print({r} % 2 == 0)",
        "more": f"print({r} > {n})",
        "root": f"import math\nprint(round(math.sqrt({r}), 6))",
        "round": f"print(round({r}{', 1' if 'one' in ask else ''}))",
    }[kind]
    talk.user(ask.format(n=n))
    x = _run(talk, program)
    yes = x == "True"
    match kind:
        case "even" if " or " in ask:
            talk.say(f"{r} is {'even' if yes else 'odd'}.")
        case "even":
            talk.say(f"Yes, {r} is even." if yes else f"No, {r} is odd.")
        case "more":
            talk.say(f"Yes, {r} is more than {n}." if yes else f"No, {r} is not more than {n}.")
        case "root":
            talk.say(rng.choice((f"The square root of {r} is {x}.", f"It is {x}.")))
            state.kind, state.result = "", x
        case _:
            talk.say(rng.choice((f"Rounded, it is {x}.", f"That is {x}.", f"{r} rounds to {x}.")))
            state.kind, state.result = "", x
    return True


def _changed(rng: Random, split: str, talk: Talk, state: _State, kind: str) -> bool:
    """The same operation on other numbers: "what about 18 * 23?", "and with 18 instead of 17?"."""
    asks = _of(f"ask {kind}", split)
    if not asks or state.a == state.b:
        return False
    a, b = state.a, state.b
    if kind == "other":
        a, b = _others(rng, state)
        forms = [f for f in _bank()[f"form {state.kind}"] if "difference" not in f]
        talk.user(rng.choice(asks).format(e=rng.choice(forms).format(a=a, b=b)))
    else:
        n = _number(rng, most=4, negative=0, decimals=0.05)
        old = rng.choice((a, b))
        a, b = (n, b) if old == a else (a, n)
        talk.user(rng.choice(asks).format(n=n, o=old))
    result = _run(talk, _program(state.kind, a, b))
    talk.say(_answer(rng, state.kind, a, b, result))
    state.a, state.b, state.result = a, b, result
    return True


def _others(rng: Random, state: _State) -> tuple[str, str]:
    a, b = state.a, state.b
    if chance(rng, 0.3):
        a, b = (operand.lstrip("-") for operand in _operands(rng, state.kind))
    elif chance(rng, 0.5):
        a = str(int(a) + rng.choice((1, 2, 10))) if _whole(a) else _number(rng, negative=0)
    else:
        b = str(int(b) + rng.choice((1, 2, 10))) if _whole(b) else _number(rng, negative=0)
    return a, "3" if state.kind == "/" and float(b) == 0 else b
