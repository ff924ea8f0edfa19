"""Arithmetic for the code interpreter: plain sums in many wordings, and the follow-ups that build on a result.

The program is always one `print`, its operands copied as the user wrote them; anything that may not come out whole is rounded to
six places, money and percentages to two, so that the answer can repeat what was printed digit by digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from training.data.core import Talk, chance, in_split
from training.data.programs import run

__all__ = ["follow_up", "sum_branch"]

_FRAMES = """What is {e}?|what is {e}|What's {e}?|whats {e}|Calculate {e}.|calculate {e}|Compute {e}|{e}|{e} = ?|{e}=|How much is {e}?|how much is {e}
Can you work out {e}?|Tell me {e}.|Please calculate {e}.|Solve {e}|I need to know {e}.|Evaluate {e}|Work out {e} for me.|Use Python to compute {e}.
Quick question: {e}?|Could you calculate {e} for me?|Hey, what's {e}?|What does {e} come to?|what do you get for {e}|Please tell me {e}
What would {e} be?|Find {e}.|Do the math: {e}|What do I get if I take {e}?|I'm stuck on my homework: {e}|Help me with {e}
Give me the result of {e}.|And what is {e}?|Hi! What is {e}?|Let me know {e}, please.|Do you know {e}?|Figure out {e}|Any idea what {e} is?
Just the number, please: {e}|Hello, can you tell me {e}?|Run the numbers: {e}|I want to know what {e} is|Show me {e}""".replace("\n", "|").split("|")

_FORMS: dict[str, str] = {
    "+": "{a} + {b}|{a}+{b}|{a} plus {b}|the sum of {a} and {b}|{a} added to {b}|{a} and {b} together",
    "-": "{a} - {b}|{a}-{b}|{a} minus {b}|{a} less {b}|the difference between {a} and {b}|{a} take away {b}",
    "*": "{a} * {b}|{a}*{b}|{a} times {b}|{a} x {b}|{a} multiplied by {b}|the product of {a} and {b}|{a} × {b}",
    "/": "{a} / {b}|{a}/{b}|{a} divided by {b}|{a} over {b}|{a} ÷ {b}",
    "**": "{a} ** {b}|{a} to the power of {b}|{a}^{b}|{a} raised to {b}|{a} to the power {b}",
    "%": "{a} % {b}|{a} modulo {b}|{a} mod {b}|the remainder of {a} divided by {b}|the remainder when {a} is divided by {b}",
    "percent": "{b}% of {a}|{b} percent of {a}|{b} per cent of {a}",
    "sqrt": "the square root of {a}|sqrt({a})|square root of {a}|√{a}",
    "square": "{a} squared|the square of {a}",
    "two": "{a} + {b} * {c}|({a} + {b}) * {c}|{a} * {b} + {c}|{a} * {b} - {c}|({a} - {b}) * {c}|{a} + {b} + {c}|{a} * {b} * {c}|{a} - {b} - {c}",
    "twosaid": "{a} plus {b} plus {c}|{a} times {b} plus {c}|{a} times {b} minus {c}|{a} plus {b} minus {c}",
}
_STORIES: dict[str, str] = {
    "+": """I have {a} apples and buy {b} more. How many are there?|A shelf holds {a} books and another {b}. How many books in all?
Yesterday I walked {a} steps and today {b}. What's the total?|We sold {a} tickets online and {b} at the door. How many tickets did we sell?
Add {a} and {b}.|add {a} and {b} please|Sum up {a} and {b}|put {a} and {b} together|Increase {a} by {b}.|My bill was {a} and then {b} came on top. How much is it now?""",
    "-": """I had {a} coins and spent {b}. How many are left?|Subtract {b} from {a}.|subtract {b} from {a}|Take {b} away from {a}.|What remains of {a} after taking {b}?
A tank holds {a} litres and {b} leak out. How much is left?|Decrease {a} by {b}.|There were {a} seats and {b} are taken. How many are free?
How much more is {a} than {b}?|The book has {a} pages and I've read {b}. How many pages to go?""",
    "*": """Multiply {a} by {b}.|multiply {a} and {b}|There are {a} boxes with {b} screws in each. How many screws?|A ticket costs {a}. What do {b} tickets cost?
I earn {a} a day. How much in {b} days?|{a} rows of {b} chairs: how many chairs?|We need {a} packs of {b} tiles. How many tiles is that?
Each of {a} classes has {b} pupils. How many pupils are there?|I read {a} pages a day for {b} days. How many pages is that?|how many eggs are in {a} cartons of {b}""",
    "/": """Divide {a} by {b}.|divide {a} by {b} please|Share {a} euros among {b} people. How much does each get?|How many times does {b} go into {a}?
Split {a} into {b} equal parts.|{a} km in {b} hours: how fast is that per hour?|A rope of {a} cm is cut into {b} pieces. How long is each?""",
    "percent": """I get a discount of {b}% on {a}. How much do I save?|How much is {b}% of {a} dollars?|{b}% of my {a} followers answered. How many is that?
What tip is {b}% on a bill of {a}?|The tax is {b}% on {a}. How much tax is that?""",
}
_PINNED = frozenset({"What is {a} * {b}?", "what is {a} * {b}", "What is {a} times {b}?", "What is {a} + {b}?", "{a} * {b}"})
_EXPRESSION = {
    "+": "{a} + {b}", "-": "{a} - {b}", "*": "{a} * {b}", "/": "{a} / {b}", "**": "{a} ** {b}", "%": "{a} % {b}",
    "percent": "{a} * {b} / 100", "square": "{a} ** 2",
}  # fmt: skip
_SAID = {
    "+": "{a} + {b} is {r}.|{a} plus {b} is {r}.|That makes {r}.|{a} + {b} = {r}|The sum is {r}.",
    "-": "{a} - {b} is {r}.|{a} minus {b} is {r}.|That leaves {r}.|{a} - {b} = {r}|The difference is {r}.",
    "*": "{a} * {b} is {r}.|{a} times {b} is {r}.|That makes {r}.|{a} * {b} = {r}|The product is {r}.|{a} * {b} is {r}.",
    "/": "{a} / {b} is {r}.|{a} divided by {b} is {r}.|The result is {r}.|{a} / {b} = {r}",
    "**": "{a} to the power of {b} is {r}.|{a} ** {b} is {r}.|The result is {r}.",
    "%": "{a} modulo {b} is {r}.|The remainder is {r}.|Dividing {a} by {b} leaves {r}.",
    "percent": "{b}% of {a} is {r}.|That is {r}.|{b} percent of {a} is {r}.",
    "sqrt": "The square root of {a} is {r}.|It is {r}.",
    "square": "{a} squared is {r}.|The square of {a} is {r}.",
    "two": "{e} is {r}.|The result is {r}.|{e} = {r}|That makes {r}.",
}  # fmt: skip
_WEIGHTS = {"*": 26, "+": 16, "-": 14, "/": 13, "percent": 10, "**": 5, "%": 5, "sqrt": 4, "square": 3, "two": 7, "twosaid": 4}


@dataclass(slots=True)
class _State:
    """What a follow-up can speak of: the operands and the result so far."""

    kind: str
    a: str
    b: str
    result: str


@lru_cache(maxsize=None)
def _asks(kind: str, split: str) -> tuple[str, ...]:
    forms = _FORMS[kind].split("|")
    framed = [frame.replace("{e}", form) for frame in _FRAMES for form in forms]
    stories = _STORIES.get(kind, "").replace("\n", "|").split("|") if kind in _STORIES else []
    # A story is one text among hundreds of framed ones: weigh it up.
    return in_split([*framed, *(story for story in stories for _ in range(6))], split, _PINNED)


def _number(rng: Random, *, most: int = 7, decimals: float = 0.15, negative: float = 0.05) -> str:
    digits = min(most, rng.choice((1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7)))
    number = rng.randint(10 ** (digits - 1), 10**digits - 1)
    if chance(rng, decimals) and digits < 6:
        places = rng.choice((1, 2, 2, 3))
        text = f"{number}.{rng.randint(1, 10**places - 1):0{places}d}".rstrip("0")
    else:
        text = str(number)
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
            return _number(rng, most=3, decimals=0.1, negative=0.03), str(rng.choice((2, 3, 3, 4, 5, 6, 7, 8, 10)))
        case "%":
            return _number(rng, decimals=0, negative=0), _number(rng, most=3, decimals=0, negative=0)
        case "percent":
            percent = str(rng.choice((5, 10, 12, 15, 18, 20, 25, 30, 33, 7.5, 2.5, rng.randint(1, 99))))
            return _number(rng, negative=0, decimals=0.3), percent
        case "sqrt":
            root = rng.randint(2, 99)
            return rng.choice((str(root * root), _number(rng, negative=0, decimals=0.05))), ""
        case "square":
            return _number(rng, most=4, decimals=0.1), ""
        case "-":
            a, b = _number(rng), _number(rng)
            if chance(rng, 0.7) and float(a) < float(b):
                a, b = b, a
            return a, b
        case _:
            return _number(rng), _number(rng)


def sum_branch(rng: Random, split: str, turns: int) -> Talk | None:
    """A conversation that opens with a sum and goes on with `turns` follow-ups; None where the split has no wording."""
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    asks = _asks(kind, split)
    if not asks:
        return None
    ask = rng.choice(asks)
    talk = Talk()
    if kind in ("two", "twosaid"):
        state = _two_steps(rng, talk, kind, ask)
    else:
        a, b = _operands(rng, kind)
        story = ask in _STORIES.get(kind, "")
        if story:  # nobody has -3 apples
            a, b = a.lstrip("-"), b.lstrip("-")
            if kind == "-" and float(a) < float(b):
                a, b = b, a
        if kind == "-" and b.startswith("-"):
            b = b.lstrip("-")
        if "the difference between" in ask and float(a) < float(b):
            a, b = b, a
        talk.user(ask.format(a=_shown(rng, a), b=_shown(rng, b)))
        result = _run(talk, _program(kind, a, b))
        talk.say(_answer(rng, kind, a, b, result, story))
        state = _State(kind, a, b, result)
    for _ in range(turns):
        if not _follow(rng, split, talk, state):
            break
    return talk


def _answer(rng: Random, kind: str, a: str, b: str, result: str, story: bool) -> str:
    if story and chance(rng, 0.5):
        return rng.choice(("That is {r}.", "It comes to {r}.", "{r}.", "The answer is {r}.")).format(r=result)
    if chance(rng, 0.06):
        return f"{result}"
    return rng.choice(_SAID[kind].split("|")).format(a=a, b=b, r=result)


def _two_steps(rng: Random, talk: Talk, kind: str, ask: str) -> _State:
    a, b, c = (_number(rng, most=4, decimals=0.1, negative=0) for _ in range(3))
    form = next(f for f in sorted(_FORMS[kind].split("|"), key=len, reverse=True) if f in ask)
    spoken = form.replace("plus", "+").replace("minus", "-").replace("times", "*").format(a=a, b=b, c=c)
    talk.user(ask.format(a=a, b=b, c=c))
    result = _run(talk, _printed(spoken, a, b, c))
    talk.say(rng.choice(_SAID["two"].split("|")).format(e=spoken, r=result))
    return _State("two", a, b, result)


def _shown(rng: Random, number: str) -> str:
    if number and _whole(number) and len(number.lstrip("-")) > 3 and chance(rng, 0.12):
        return f"{int(number):,}"
    return number


def _run(talk: Talk, program: str) -> str:
    printed, failed = run(program)
    talk.code(program)
    talk.results(printed, is_error=failed)
    return printed


# What may be said after a result: (wordings, expression over r and n, kind of n, answers)
_FOLLOWS: tuple[tuple[str, str, str, str], ...] = (
    ("and add {n} to that|now add {n}|add {n}|plus {n}|and {n} more?|Add {n} to it.|add another {n}|and plus {n}?|What if I add {n}?|Now add {n} to the result.|+ {n}|and add {n} to this|Add {n} more please|then add {n}|sum that with {n}|increase that by {n}|and with {n} on top?",
     "{r} + {n}", "any", "{r} + {n} is {x}.|That makes {x}.|{r} plus {n} is {x}.|Now it is {x}."),
    ("minus {n}|take {n} away|subtract {n} from that|now subtract {n}|and minus {n}?|Take away {n} from it.|less {n}?|- {n}|What is left if I take {n} from that?|and {n} less?|now take off {n}|subtract {n}|reduce that by {n}|Then minus {n}.",
     "{r} - {n}", "any", "{r} - {n} is {x}.|That leaves {x}.|{r} minus {n} is {x}.|Now it is {x}."),
    ("times {n}|multiply that by {n}|now multiply it by {n}|and times {n}?|multiply by {n}|* {n}|What is that times {n}?|Then multiply the result by {n}.|and {n} times that?|now {n} times as much|x {n}|multiply the answer by {n}",
     "{r} * {n}", "small", "{r} * {n} is {x}.|That makes {x}.|{r} times {n} is {x}."),
    ("now divide it by {n}|divide that by {n}|and divided by {n}?|/ {n}|split that between {n} people|Divide the result by {n}.|shared among {n}?|divided by {n}|What do I get if I divide that by {n}?|then divide by {n}|cut it into {n} equal parts|over {n}?",
     "{r} / {n}", "small", "{r} / {n} is {x}.|{r} divided by {n} is {x}.|That gives {x}."),
    ("double it|Double that.|now double it|and twice that?|twice as much?|times two|What's double that?|and doubled?",
     "{r} * 2", "", "Twice {r} is {x}.|{r} * 2 is {x}.|Doubled, it is {x}."),
    ("triple it|three times that?|and tripled?|now triple that", "{r} * 3", "", "Three times {r} is {x}.|{r} * 3 is {x}."),
    ("half of that?|halve it|and half of it?|now halve that|What is half of that?|split it in two", "{r} / 2", "", "Half of {r} is {x}.|{r} / 2 is {x}."),
    ("and if I take {n}% off?|with {n}% off?|now take off {n} percent|reduce it by {n}%|What if it is {n}% cheaper?|and with a {n}% discount?|minus {n}%|less {n} percent",
     "{r} * (1 - {n} / 100)", "percent", "With {n}% off, it is {x}.|{r} less {n}% is {x}.|That leaves {x}."),
    ("add {n}% tax|and with {n}% on top?|plus {n}% VAT|now add {n} percent|increase it by {n}%|What with {n}% tax?|plus {n}%|and {n}% more?",
     "{r} * (1 + {n} / 100)", "percent", "With {n}% added, it is {x}.|{r} plus {n}% is {x}.|That makes {x}."),
    ("what is {n}% of that?|and {n}% of it?|{n} percent of that|How much is {n}% of that?|now {n}% of this number|take {n}% of that", "{r} * {n} / 100", "percent", "{n}% of {r} is {x}.|That is {x}."),
    ("square it|and squared?|now square that|What's the square of that?|that squared", "{r} ** 2", "", "{r} squared is {x}.|The square of {r} is {x}."),
)  # fmt: skip
_ROOT = "and its square root?|take the square root of that|square root of it?|What's the square root of that?|now the root of that"
_EVEN = "Is that number even?|is it even?|Is that odd or even?|is that an even number|even or odd?|Is the result even?"
_MORE = "is that more than {n}?|Is it bigger than {n}?|is that over {n}|Is that larger than {n}?|does that exceed {n}?"
_ROUND = "round that to one decimal|Round it to a whole number.|rounded?|round that|and rounded to the nearest whole number?"
_FIRST = "what was the first number again?|Which number did I start with?|what was the first number|Remind me, what was the first number?|the first number was?"
_AGAIN = "what was the result again?|Say that again?|sorry, what was it?|Can you repeat the result?|what did we get?|repeat that please|come again?"
_OTHER = "what about {e}?|and {e}?|And what is {e}?|now {e}|Then {e}|and for {e}?|same for {e}|ok and {e}|How about {e}?|What about {e} then?"
_INSTEAD = "and with {n} instead of {o}?|what if it were {n} instead of {o}?|use {n} instead of {o}|with {n} rather than {o}?|Replace {o} by {n}.|Try {n} instead of {o}"
_THANKS = "thanks|Thanks!|thank you|great, thanks|perfect|ok thanks|Thank you very much.|nice, thanks|cheers"
_WELCOME = "You're welcome!|You're welcome.|Happy to help!|Any time.|Glad to help.|My pleasure."


@lru_cache(maxsize=None)
def _of(wordings: str, split: str) -> tuple[str, ...]:
    return in_split(wordings.split("|"), split, frozenset({"and add {n} to that", "now divide it by {n}", "double it"}))


def follow_up(rng: Random, split: str, talk: Talk, result: str) -> bool:
    """Ask one thing more about a number that some earlier answer gave; False where nothing fits."""
    try:
        float(result)
    except ValueError:
        return False
    return _follow(rng, split, talk, _State("", "", "", result))


def _follow(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    kinds = ["step"] * 13 + ["even", "more", "root", "round", "again", "thanks"]
    if state.kind in ("+", "-", "*", "/", "percent"):
        kinds += ["first", "other", "other", "other", "instead", "instead"]
    if len(state.result.lstrip("-")) > 12 or "e" in state.result:
        kinds = ["thanks", "again"]
    match rng.choice(kinds):
        case "step":
            return _step(rng, split, talk, state)
        case "even" if _whole(state.result):
            return _even(rng, split, talk, state)
        case "more":
            n = _near(rng, state.result)
            return _checked(rng, _of(_MORE, split), talk, state, n)
        case "root" if not state.result.startswith("-"):
            return _single(rng, _of(_ROOT, split), talk, state, f"import math\nprint(round(math.sqrt({state.result}), 6))",
                           "The square root of {r} is {x}.|It is {x}.")  # fmt: skip
        case "round" if "." in state.result:
            ask = _chosen(rng, _of(_ROUND, split))
            if ask:
                places = ", 1" if "one" in ask else ""
                return _single(rng, (ask,), talk, state, f"print(round({state.result}{places}))", "Rounded, it is {x}.|That is {x}.|{r} rounds to {x}.")
        case "first":
            ask = _chosen(rng, _of(_FIRST, split))
            if ask and state.kind != "percent":
                talk.user(ask)
                talk.say(rng.choice(("The first number was {a}.", "It was {a}.", "You started with {a}.", "{a}.")).format(a=state.a))
                return True
        case "again":
            ask = _chosen(rng, _of(_AGAIN, split))
            if ask:
                talk.user(ask)
                talk.say(rng.choice(("It was {r}.", "The result was {r}.", "{r}.", "We got {r}.")).format(r=state.result))
                return True
        case "thanks":
            ask = _chosen(rng, _of(_THANKS, split))
            if ask:
                talk.user(ask)
                talk.say(rng.choice(_WELCOME.split("|")))
                return True
        case "other" if state.kind != "percent":
            return _other(rng, split, talk, state)
        case "instead":
            return _instead(rng, split, talk, state)
        case _:
            pass
    return _step(rng, split, talk, state)


def _chosen(rng: Random, asks: tuple[str, ...]) -> str:
    return rng.choice(asks) if asks else ""


def _near(rng: Random, result: str) -> str:
    number = float(result)
    near = rng.choice((number + rng.randint(1, 60), number - rng.randint(1, 60), number * 2, 100, 500, 1000))
    return str(round(near))


def _step(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    wordings, expression, n_kind, answers = rng.choice(_FOLLOWS[:4] * 3 + _FOLLOWS)
    ask = _chosen(rng, _of(wordings, split))
    if not ask:
        return False
    match n_kind:
        case "any":
            n = _number(rng, most=5, negative=0)
        case "small":
            n = _number(rng, most=2, decimals=0.08, negative=0)
        case "percent":
            n = str(rng.choice((5, 10, 15, 19, 20, 25, 30, 40, 50, rng.randint(1, 60))))
        case _:
            n = ""
    base = f"({state.result})" if state.result.startswith("-") and "**" in expression else state.result
    filled = expression.format(r=base, n=n)
    if n_kind == "percent":
        program = f"print(round({filled}, 2))"
    else:
        program = _printed(filled, state.result, n, divides="/" in expression)
    talk.user(ask.format(n=n))
    x = _run(talk, program)
    talk.say(rng.choice(answers.split("|")).format(r=state.result, n=n, x=x))
    state.kind, state.result = "", x
    return True


def _single(rng: Random, asks: tuple[str, ...], talk: Talk, state: _State, program: str, answers: str) -> bool:
    ask = _chosen(rng, asks)
    if not ask or any(m.role == "user" and m.text == ask for m in talk.messages):
        return False
    talk.user(ask)
    x = _run(talk, program)
    talk.say(rng.choice(answers.split("|")).format(r=state.result, x=x))
    state.kind, state.result = "", x
    return True


def _even(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    ask = _chosen(rng, _of(_EVEN, split))
    if not ask:
        return False
    talk.user(ask)
    even = _run(talk, f"print({state.result} % 2 == 0)") == "True"
    if " or " in ask:
        talk.say(f"{state.result} is {'even' if even else 'odd'}.")
    else:
        talk.say(f"Yes, {state.result} is even." if even else f"No, {state.result} is odd.")
    return True


def _checked(rng: Random, asks: tuple[str, ...], talk: Talk, state: _State, n: str) -> bool:
    ask = _chosen(rng, asks)
    if not ask:
        return False
    talk.user(ask.format(n=n))
    more = _run(talk, f"print({state.result} > {n})") == "True"
    talk.say(f"Yes, {state.result} is more than {n}." if more else f"No, {state.result} is not more than {n}.")
    return True


def _other(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    ask = _chosen(rng, _of(_OTHER, split))
    if not ask:
        return False
    a, b = state.a, state.b
    if chance(rng, 0.5):
        a = str(int(a) + rng.choice((1, -1, 2, 10))) if _whole(a) else _number(rng, negative=0)
    else:
        b = str(int(b) + rng.choice((1, 2, 10))) if _whole(b) else _number(rng, negative=0)
    if chance(rng, 0.3):
        a, b = _operands(rng, state.kind)
        a, b = a.lstrip("-"), b.lstrip("-")
    form = rng.choice([f for f in _FORMS[state.kind].split("|") if "difference" not in f])
    if state.kind == "/" and float(b) == 0:
        b = "3"
    talk.user(ask.format(e=form.format(a=a, b=b)))
    result = _run(talk, _program(state.kind, a, b))
    talk.say(_answer(rng, state.kind, a, b, result, False))
    state.a, state.b, state.result = a, b, result
    return True


def _instead(rng: Random, split: str, talk: Talk, state: _State) -> bool:
    ask = _chosen(rng, _of(_INSTEAD, split))
    if not ask or state.a == state.b:
        return False
    n = _number(rng, most=4, negative=0, decimals=0.05)
    old = state.a
    a, b = n, state.b
    if chance(rng, 0.5):
        old, a, b = state.b, state.a, n
    talk.user(ask.format(n=n, o=old))
    result = _run(talk, _program(state.kind, a, b))
    talk.say(_answer(rng, state.kind, a, b, result, False))
    state.a, state.b, state.result = a, b, result
    return True
