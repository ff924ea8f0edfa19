"""What an answer is worth: calls, code, words and retold results beside what should have come."""

from __future__ import annotations

import ast
import io
import json
import keyword
import math
import operator
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from corral.messages import AssistantMessage, Message, SystemMessage, ToolResult
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.prompt import Prompt
from training.trees import TreeLike

__all__ = [
    "Item",
    "Share",
    "items_of",
    "last_said",
    "percent",
    "read_calls",
    "score",
    "shares",
    "written",
]

_MARK = "_as_argument"
"""Makes a keyword of Python's the name of an argument."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many met a measure."""

    met: int
    of: int

    def as_json(self) -> dict[str, float | int | None]:
        """The share in percent, of how many, and its 95 % confidence interval by Wilson's score."""
        low, high = self.interval()
        return {"percent": percent(self.met, self.of), "of": self.of, "low": low, "high": high}

    def interval(self) -> tuple[float, float]:
        """Wilson's score interval in percent, 95 %."""
        if not self.of:
            return 0.0, 100.0
        z, n = 1.96, self.of
        rate = self.met / n
        middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
        reach = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return round(100 * max(0.0, middle - reach), 1), round(100 * min(1.0, middle + reach), 1)


def percent(part: int, whole: int) -> float | None:
    """`part` of `whole` in percent, to one decimal."""
    return round(100 * part / whole, 1) if whole else None


def shares(marks: Sequence[dict[str, bool]]) -> dict[str, Share]:
    """Sum up many answers' marks, measure by measure."""
    met: dict[str, list[bool]] = {}
    for one in marks:
        for name, good in one.items():
            met.setdefault(name, []).append(good)
    return {name: Share(sum(good), len(good)) for name, good in sorted(met.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to ask for: the conversation so far, and what should come."""

    messages: tuple[Message, ...]
    tree: TreeLike
    wanted: AssistantMessage

    @property
    def kind(self) -> str:
        """`code`, `call`, `retell` (an answer to a result) or `words` (an answer in place of a
        call).
        """
        if self.wanted.calls:
            code = {tool.name for tool in self.tree.tools if tool.kind == "code_interpreter"}
            return "code" if self.wanted.calls[0].name in code else "call"
        return "retell" if isinstance(self.messages[-1], ToolResult) else "words"

    def prompt(self) -> Prompt:
        """What the model is asked."""
        tree = self.tree
        return render_prompt(self.messages, tools=tree.tools, date=tree.date, format=tree.format)


def items_of(tree: TreeLike) -> Iterator[Item]:
    """Every assistant message of a tree."""
    head: tuple[Message, ...] = (SystemMessage(text=tree.system),) if tree.system else ()
    for branch in tree.branches:
        for i, message in enumerate(branch):
            if isinstance(message, AssistantMessage):
                yield Item(messages=(*head, *branch[:i]), tree=tree, wanted=message)


def read_calls(text: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The calls of a pythonic list; None if the text isn't one.

    Arguments may have Python's keywords as names, such as `from`.
    """
    try:
        tree = ast.parse(_legal(text.strip()), mode="eval").body
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    if not isinstance(tree, ast.List) or not tree.elts:
        return None
    calls: list[tuple[str, dict[str, Any]]] = []
    for call in tree.elts:
        if not isinstance(call, ast.Call) or call.args:
            return None
        try:
            arguments = {
                str(k.arg).removesuffix(_MARK): ast.literal_eval(k.value) for k in call.keywords
            }
        except ValueError:
            return None
        calls.append((ast.unparse(call.func), arguments))
    return calls


def _legal(text: str) -> str:
    """The same calls, with a mark behind each argument's name that is a keyword of Python's."""
    lines = io.StringIO(text).readlines()
    tokens = list(tokenize.generate_tokens(iter(lines).__next__))
    for name, sign in reversed(list(pairwise(tokens))):
        if name.type == tokenize.NAME and keyword.iskeyword(name.string) and sign.string == "=":
            row, end = name.end
            lines[row - 1] = f"{lines[row - 1][:end]}{_MARK}{lines[row - 1][end:]}"
    return "".join(lines)


def score(item: Item, text: str) -> dict[str, bool]:
    """What can be said of an answer: measure -> met or not."""
    tagged = text.startswith("<|python_tag|>")
    match item.kind:
        case "call" if any(tool.kind == "builtin" for tool in item.tree.tools):
            right = written(item)
            head = right.partition(".call(")[0]
            return {"tool": text.partition(".call(")[0] == head, "exact": text == right}
        case "call":
            wanted = [(call.name, call.arguments) for call in item.wanted.calls]
            got = None if tagged else read_calls(text)
            names = [name for name, _ in got] if got is not None else None
            return {"tool": names == [n for n, _ in wanted], "exact": got == wanted}
        case "code":
            code = str(item.wanted.calls[0].arguments["code"])
            return {"code": tagged and _same_code(text.removeprefix("<|python_tag|>"), code)}
        case "words":
            return {"no_needless_call": not tagged and read_calls(text) is None}
        case _:
            return {"facts": not tagged and _facts(item) <= _telling(text)}


def _same_code(got: str, wanted: str) -> bool:
    """Equal as Python, or sums that print the same number but for rounding.

    Nothing that a model wrote is run.
    """
    try:
        trees = [ast.parse(code) for code in (got, wanted)]
    except (SyntaxError, ValueError):
        return False
    if ast.dump(trees[0]) == ast.dump(trees[1]):
        return True
    one, other = (_printed(tree) for tree in trees)
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-4)


def _printed(tree: ast.Module) -> float | None:
    match tree.body:
        case [ast.Expr(ast.Call(func=ast.Name("print"), args=[value], keywords=[]))]:
            return _arithmetic(value)
        case _:
            return None


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _arithmetic(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Call(func=ast.Name("round"), args=[inner, *digits], keywords=[]):
            value = _arithmetic(inner)
            places = [_arithmetic(digit) for digit in digits]
            if value is None or not all(isinstance(place, int) for place in places):
                return None
            return round(value, *places)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _arithmetic(operand)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _arithmetic(left), _arithmetic(right)
            if a is None or b is None:
                return None
            do = _OPERATORS.get(type(op))
            if do is None or (do is operator.pow and not (abs(a) < 1000 and abs(b) < 20)):
                return None
            try:
                return do(a, b)
            except ArithmeticError:
                return None
        case _:
            return None


def _facts(item: Item) -> set[str]:
    """What the result says and the wanted answer retells: numbers, and words that aren't everyday
    ones.
    """
    result = item.messages[-1]
    assert isinstance(result, ToolResult)
    shown = result.content if isinstance(result.content, str) else json.dumps(result.content)
    return _telling(shown) & _telling(item.wanted.text)


def _telling(text: str) -> set[str]:
    words = re.findall(r"\w(?:[\w.:'-]*\w)?", text)
    return {w for w in words if any(c.isdigit() for c in w) or (w[0].isupper() and len(w) > 2)}


def last_said(messages: Sequence[Message]) -> str:
    """The last message, as the model sees it."""
    return str(render_prompt(messages[-1:])).split("\n\n", 1)[1].split("<|eot_id|>")[0]


def written(item: Item) -> str:
    """What was wanted, as the model would write it."""
    tree = item.tree
    shown = str(render_prompt([item.wanted], tools=tree.tools, format=tree.format))
    body = shown.split("<|start_header_id|>assistant<|end_header_id|>\n\n")[1]
    return re.sub(r"<\|eo[tm]_id\|>$", "", body)
