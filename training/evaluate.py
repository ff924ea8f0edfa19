"""Score a model: `python -m training.evaluate cria FOLDER --hand --out scores.json`.

Greedily, one table a set of items:

- by default the generator's held-out conversations (for choosing between runs);
- with `--hand` the items written by hand (for the card);
- with `--general BASE` the general questions, of cria and of the base in its own format.

FOLDER is a ready model's, asked by plain transformers in float32. With `--runtime` it is asked as
an agent asks, by Corral's own runtime, and with `--grammar` held to calls that are valid. For
cria-guard it is verdicts, generated ones or those written by hand. Every share comes with its 95 %
confidence interval (Wilson's score).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio

from corral.messages import SystemMessage, UserMessage
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.formats.guard import render_guard
from corral.model_runtime.local.kernels import PRECISIONS
from training.asking import Asker, Plain, Running, ask_all
from training.calibration import best_temperature, brier, calibration_error
from training.handwritten import KINDS, general_questions, guard_items, hand_items, judge
from training.scoring import Item, Share, items_of, last_said, percent, score, shares, written
from training.trees import TreeLike

__all__ = [
    "choose",
    "evaluate_cria",
    "evaluate_general",
    "evaluate_guard",
    "evaluate_hand",
    "main",
]

Scores = dict[str, Any]
_LONGEST = 96
"""Tokens of an answer at most."""
_SHARES = {"call": 0.35, "code": 0.2, "words": 0.25, "retell": 0.2}


async def evaluate_cria(ask: Asker, items: Sequence[Item]) -> Scores:
    """Each measure of the generator's held-out items."""
    marks: list[dict[str, bool]] = []
    texts = await ask_all(ask, [(item.prompt(), item.tree.tools) for item in items])
    for item, text in zip(items, texts, strict=True):
        marks.append(score(item, text))
        if not all(marks[-1].values()):
            told = {"asked": last_said(item.messages), "wanted": written(item), "got": text}
            print(json.dumps({"kind": item.kind, **told}), flush=True)
    return {name: share.as_json() for name, share in shares(marks).items()}


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


async def evaluate_hand(ask: Asker, kinds: Sequence[str] = KINDS) -> Scores:
    """Each measure of the items written by hand: over all kinds, and kind by kind.

    Only how many are right is printed, not which: the generator is not to be changed after them.
    """
    marks: dict[str, list[dict[str, bool]]] = {}
    items = list(hand_items(kinds))
    texts = await ask_all(ask, [(item.prompt(), item.tools) for item in items])
    for item, text in zip(items, texts, strict=True):
        marks.setdefault(item.kind, []).append(await judge(item, text))
    every = [mark for some in marks.values() for mark in some]
    found = {name: share.as_json() for name, share in shares(every).items()}
    by_kind = {
        kind: {name: share.as_json() for name, share in shares(some).items()}
        for kind, some in marks.items()
    }
    return {**found, "items": len(every), "kinds": by_kind}


async def evaluate_general(ask: Asker, base: Path) -> Scores:
    """The general questions by their rubric, asked of cria and of the base in its own format."""
    from training.distill import BaseChat

    questions = general_questions()
    right = {"cria": 0, "base": 0}
    theirs = BaseChat(base).ask([question for question, _ in questions], max_tokens=_LONGEST)
    system = SystemMessage(text="You are a helpful assistant.")
    prompts = [
        render_prompt([system, UserMessage(content=question)], tools=(), date=None)
        for question, _ in questions
    ]
    ours = await ask_all(ask, [(prompt, ()) for prompt in prompts], max_tokens=_LONGEST)
    for (_, words), mine, other in zip(questions, ours, theirs, strict=True):
        for name, answer in (("cria", mine), ("base", other)):
            right[name] += any(word.lower() in answer.lower() for word in words)
    return {name: Share(met, len(questions)).as_json() for name, met in right.items()}


async def evaluate_guard(
    ask: Asker, examples: Iterator[tuple[Any, str]], *, items: int = 120
) -> Scores:
    """Precision, recall and F1 of `unsafe`, and category by category, in percent.

    Asked by Corral's runtime, also how good the scores are, and the temperature that suits them.

    Args:
        ask: The guard.
        examples: Conversations and their verdicts: a category or categories, empty for safe.
        items: How many to take at most.
    """
    hits = misses = alarms = exact = safe = 0
    by_category: dict[str, list[bool]] = {}
    named: Counter[str] = Counter()
    taken = list(islice(examples, items))
    prompts = [render_guard(conversation) for conversation, _ in taken]
    texts = await ask_all(ask, [(prompt, ()) for prompt in prompts], max_tokens=10)
    for (_, wanted), said in zip(taken, texts, strict=True):
        text = said.strip()
        unsafe, told = text.startswith("unsafe"), text.removeprefix("unsafe").strip()
        hits += unsafe and bool(wanted)
        misses += bool(wanted) and not unsafe
        alarms += unsafe and not wanted
        safe += not wanted
        exact += unsafe and bool(wanted) and told == wanted
        for one in filter(None, wanted.split(",")):
            by_category.setdefault(one, []).append(unsafe and one in told.split(","))
        named.update(told.split(",") if unsafe else ())
    scored = [
        (await ask.score(prompt), bool(wanted))
        for prompt, (_, wanted) in zip(prompts, taken, strict=True)
        if isinstance(ask, Running)
    ]
    return {
        **_calibration(scored),
        "items": hits + misses + safe,
        "unsafe": hits + misses,
        "precision": percent(hits, hits + alarms),
        "recall": percent(hits, hits + misses),
        "f1": percent(2 * hits, 2 * hits + alarms + misses),
        "harmless_flagged": Share(alarms, safe).as_json(),
        "category": percent(exact, hits),
        "categories": {
            name: {
                "of": len(found),
                "recall": percent(sum(found), len(found)),
                "precision": percent(sum(found), named[name]),
            }
            for name, found in sorted(by_category.items(), key=lambda pair: int(pair[0][1:]))
        },
    }


def _calibration(scored: Sequence[tuple[float, bool]]) -> Scores:
    if not scored:
        return {}
    return {
        "brier": round(brier(scored), 4),
        "calibration_error": round(calibration_error(scored), 4),
        "temperature": round(best_temperature(scored), 3),
    }


def _verdicts(split: str, seed: int) -> Iterator[tuple[Any, str]]:
    """Generated conversations, each once, from `seed` and those after it, and their verdicts."""
    from training.conversations import guard_examples

    seen: set[Any] = set()
    for example in (e for n in range(40) for e in guard_examples(seed + n, split=split)):
        if example.conversation not in seen:
            seen.add(example.conversation)
            verdict = "" if example.verdict == "safe" else example.verdict
            yield example.conversation, verdict.removeprefix("unsafe").strip()


def table(scores: Mapping[str, Any]) -> str:
    """The measures of `evaluate_cria` or `evaluate_hand` as lines of Markdown."""
    rows = ["| measure | % | 95 % interval | of |", "| --- | --- | --- | --- |"]
    parts = {"": scores, **{f"{kind}: ": some for kind, some in scores.get("kinds", {}).items()}}
    for head, some in parts.items():
        for name, share in some.items():
            if isinstance(share, dict) and "percent" in share:
                interval = f"{share['low']} to {share['high']}"
                rows.append(f"| {head}{name} | {share['percent']} | {interval} | {share['of']} |")
    return "\n".join(rows)


async def _run(options: argparse.Namespace) -> Scores:
    from corral.model_runtime.local.sharing import LocalOptions
    from corral.model_runtime.profiles import profile_for
    from corral.model_runtime.transformers_runtime import TransformersRuntime

    ask: Asker
    if options.runtime or options.grammar:
        runtime = await TransformersRuntime.load(
            options.folder,
            name=options.name,
            profile=profile_for(options.name),
            options=LocalOptions(precision=options.precision, adapter=options.adapter),
        )
        ask = Running(runtime, grammar=options.grammar)
    elif options.adapter is not None:
        raise SystemExit("Transformers alone takes no adapter: use --runtime or --grammar.")
    else:
        ask = Plain(options.folder)
    if options.name == "cria-guard":
        if options.hand:
            return await evaluate_guard(ask, guard_items(), items=1000)
        return await evaluate_guard(
            ask, _verdicts(options.split, options.seed), items=options.items
        )
    if options.general:
        return await evaluate_general(ask, options.general)
    if options.hand:
        return await evaluate_hand(ask, options.kinds)
    from training.conversations import cria_trees

    trees = (tree for n in range(40) for tree in cria_trees(options.seed + n, split=options.split))
    return await evaluate_cria(ask, choose(trees, options.items))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("folder", type=Path, help="a model's folder, such as the base's")
    parser.add_argument("--adapter", type=Path, help="an adapter's folder; not without the runtime")
    parser.add_argument("--hand", action="store_true", help="the items written by hand")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of these only")
    parser.add_argument("--general", type=Path, metavar="BASE", help="the general questions")
    parser.add_argument("--runtime", action="store_true", help="ask by Corral's runtime")
    parser.add_argument("--grammar", action="store_true", help="and hold it to valid calls")
    parser.add_argument("--precision", choices=PRECISIONS, help="of Corral's runtime")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--split", default="heldout", choices=["heldout", "validation"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    scores = anyio.run(partial(_run, options))
    print(json.dumps(scores, indent=2))
    if options.name == "cria":
        print(table(scores))
    print(f"{time.monotonic() - began:.0f} seconds")
    if options.out:
        options.out.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
