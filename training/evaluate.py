"""Score a ready model on held-out conversations: `python -m training.evaluate cria FOLDER --out
scores.json`.

Greedy, without a grammar, by plain transformers in float32. Each assistant message of a held-out
conversation is asked for after the true history, and scored by what it should have been: a call,
code, words in place of a call, or an answer that retells a result.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from corral.messages import AssistantMessage, Message, SystemMessage, ToolResult, ToolSpec
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.formats.guard import render_guard
from corral.model_runtime.prompt import Prompt
from training.trees import FolderEncoder, TreeLike

__all__ = [
    "Generator",
    "Item",
    "choose",
    "evaluate_cria",
    "evaluate_guard",
    "items_of",
    "main",
    "read_calls",
    "score",
]


class Generator:
    """A model folder that goes on with prompts, greedily."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.encoder = FolderEncoder(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._ids: list[int] = []
        self._cache: Any = None

    def __call__(self, prompt: Prompt, *, max_tokens: int = 96) -> str:
        """What the model writes, control tokens by name, its end token left out."""
        import torch
        from transformers import DynamicCache

        new = prompt.encode(self.encoder)
        shared = 0  # what the cache holds of this prompt, all but its last token at most
        for mine, theirs in zip(self._ids, new[:-1], strict=False):
            if mine != theirs:
                break
            shared += 1
        if self._cache is None or shared == 0:
            self._cache = DynamicCache()
        else:
            self._cache.crop(shared - self._cache.get_seq_length())
        ids = torch.tensor([new])
        with torch.inference_mode():
            whole = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=self._cache,
                do_sample=False,
                max_new_tokens=max_tokens,
            )[0].tolist()
        self._ids = whole[: self._cache.get_seq_length()]
        out = whole[len(new) :]
        text: str = self.encoder.tokenizer.decode(out, skip_special_tokens=False)
        return re.sub(r"(<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>)$", "", text)


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
        return render_prompt(self.messages, tools=self.tree.tools, date=self.tree.date)


def items_of(tree: TreeLike) -> Iterator[Item]:
    """Every assistant message of a tree."""
    head: tuple[Message, ...] = (SystemMessage(text=tree.system),) if tree.system else ()
    for branch in tree.branches:
        for i, message in enumerate(branch):
            if isinstance(message, AssistantMessage):
                yield Item(messages=(*head, *branch[:i]), tree=tree, wanted=message)


def read_calls(text: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The calls of a pythonic list; None if the text isn't one."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(tree, ast.List) or not tree.elts:
        return None
    calls: list[tuple[str, dict[str, Any]]] = []
    for call in tree.elts:
        if not isinstance(call, ast.Call) or call.args:
            return None
        try:
            arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        except ValueError:
            return None
        calls.append((ast.unparse(call.func), arguments))
    return calls


def score(item: Item, text: str) -> dict[str, bool]:
    """What can be said of an answer: measure -> met or not."""
    tagged = text.startswith("<|python_tag|>")
    match item.kind:
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


def evaluate_cria(
    generate: Generator, items: Sequence[Item], *, show: bool = False
) -> dict[str, dict[str, float]]:
    """Each measure's percentage, and how many items it is of."""
    met: dict[str, list[bool]] = {}
    for item in items:
        text = generate(item.prompt())
        marks = score(item, text)
        for name, good in marks.items():
            met.setdefault(name, []).append(good)
        if show or not all(marks.values()):
            told = {"asked": _last(item.messages), "wanted": _written(item), "got": text}
            print(json.dumps({"kind": item.kind, **told}), flush=True)
    return {
        name: {"percent": round(100 * sum(good) / len(good), 1), "of": len(good)}
        for name, good in sorted(met.items())
    }


_SHARES = {"call": 0.35, "code": 0.2, "words": 0.25, "retell": 0.2}


def choose(trees: Iterable[TreeLike], count: int) -> list[Item]:
    """About `count` items, so many of each kind, from as many trees as it takes.

    At most two of a kind from a tree, so that many tools are seen. A tree's stay together, so that
    the start of its prompt is computed once.
    """
    left = {kind: max(1, round(count * share)) for kind, share in _SHARES.items()}
    chosen: list[Item] = []
    for tree in trees:
        here: Counter[str] = Counter()
        for item in items_of(tree):
            if left[item.kind] and here[item.kind] < 2:
                left[item.kind] -= 1
                here[item.kind] += 1
                chosen.append(item)
        if not any(left.values()):
            break
    return chosen


def _last(messages: Sequence[Message]) -> str:
    return str(render_prompt(messages[-1:])).split("\n\n", 1)[1].split("<|eot_id|>")[0]


def _written(item: Item) -> str:
    code = ToolSpec(name="code_interpreter", description="", kind="code_interpreter")
    tools = [t for t in item.tree.tools if t.kind == "code_interpreter"] or [code]
    shown = str(render_prompt([item.wanted], tools=tools))
    body = shown.split("<|start_header_id|>assistant<|end_header_id|>\n\n")[1]
    return re.sub(r"<\|eo[tm]_id\|>$", "", body)


def evaluate_guard(
    generate: Generator, examples: Iterator[Any], *, items: int = 120
) -> dict[str, Any]:
    """Precision, recall and F1 of `unsafe`, and how often the category is right too, in percent."""
    hits = misses = alarms = categories = 0
    for example, _ in zip(examples, range(items), strict=False):
        text = generate(render_guard(example.conversation), max_tokens=10)
        unsafe, wanted = text.startswith("unsafe"), example.verdict.startswith("unsafe")
        hits += unsafe and wanted
        misses += wanted and not unsafe
        alarms += unsafe and not wanted
        categories += unsafe and text.strip() == example.verdict
        if text.strip() != example.verdict:
            said = [list(turn) for turn in example.conversation]
            print(json.dumps({"asked": said, "wanted": example.verdict, "got": text}))
    return {
        "items": items,
        "unsafe": hits + misses,
        "precision": _percent(hits, hits + alarms),
        "recall": _percent(hits, hits + misses),
        "f1": _percent(2 * hits, 2 * hits + alarms + misses),
        "category": _percent(categories, hits),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    from training import conversations

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to write the scores as JSON")
    parser.add_argument("--show", action="store_true", help="print right answers too")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    generate = Generator(options.folder)
    if options.name == "cria":
        seeds = range(options.seed, options.seed + 20)
        trees = chain.from_iterable(conversations.cria_trees(s, split="heldout") for s in seeds)
        items = choose(trees, options.items)
        scores: dict[str, Any] = evaluate_cria(generate, items, show=options.show)
    else:
        examples = conversations.guard_examples(options.seed, split="heldout")
        scores = evaluate_guard(generate, examples, items=options.items)
    print(json.dumps(scores, indent=2))
    print(f"{time.monotonic() - began:.0f} seconds")
    if options.out:
        options.out.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
