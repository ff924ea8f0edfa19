"""Asks the agents of the README and of `examples/` in other words, and counts right answers.

    python benchmarks/answers.py --failures
    python benchmarks/answers.py --only notes --temperatures 0
    python benchmarks/answers.py --model transformers:FOLDER    # cria after another training
    python benchmarks/answers.py --timing

Every agent that runs on cria is asked for what its example shows, in five phrasings that are
neither in the examples nor in the banks that cria was trained on. The agents are the examples' own,
loaded from a copy of the folder: their tools, sandbox, shields and limits are as they are there,
and conversations are kept in a temporary folder. Only the temperature and the seed are set.

An answer is right if the turn was answered, the one call of its last turn is the right one with the
right arguments and did not fail, and the text has the facts in it and no number that comes from
nowhere. Code counts by what it computes and prints.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import anyio

from corral import Agent, TurnResult, open_runtime
from corral.events import CallRequested
from corral.messages import UserMessage
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.opening import bundled_name
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Piece, Runtime, Sampling
from corral.tools.schema import with_defaults

ROOT = Path(__file__).parent.parent
MAIN_JOB = "What is 17 * 23?"
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What must come of a request.

    `arguments` are those of the call, each with all that it may be; arguments that aren't named are
    left out or have their default. With `prints`, the call is the code interpreter's instead, and
    its program prints that number. `facts` are words of the answer; `never` are words that make it
    wrong.
    """

    tool: str = "code_interpreter"
    arguments: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    prints: float | None = None
    facts: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """An example's task: its file, what is said before, and each phrasing with what is wanted."""

    example: str
    task: str
    before: tuple[str, ...] = ()
    asked: tuple[tuple[str, Wanted], ...]


def order(number: int) -> Wanted:
    return Wanted(
        tool="order_status",
        arguments={"order_id": (number,)},
        facts=("shipped",),
        never=("not", "no", "hasn't", "isn't", "couldn't"),
    )


def number(value: float) -> Wanted:
    return Wanted(prints=value)


def search(*texts: str, found: tuple[str, ...]) -> Wanted:
    return Wanted(
        tool="search_files",
        arguments={
            "text": texts,
            "path": (".", "notes", "notes/", "./notes"),
            "pattern": ("*", "*.md"),
        },
        facts=found,
        never=tuple({"garden", "shopping"} - set(found)),
    )


ROWS = (
    Row(
        example="quickstart.py",
        task="where an order is",
        asked=(
            ("Hi, could you tell me what's happening with order 3391?", order(3391)),
            ("has 58203 been sent out already?", order(58203)),
            ("I'd like to know how far my order is, the number is 716.", order(716)),
            ("please look up 20458 for me, I ordered it on Monday", order(20458)),
            ("My parcel still isn't here, it's order no. 8842", order(8842)),
        ),
    ),
    Row(
        example="quickstart.py",
        task="and another one",
        before=("Where is order 1047?",),
        asked=(
            ("thanks. same question for 3718", order(3718)),
            ("now check 655 as well", order(655)),
            ("My other one is 90412, what do you see there?", order(90412)),
            ("Could you look at 1288 too?", order(1288)),
            ("and the one with the number 47710?", order(47710)),
        ),
    ),
    Row(
        example="assistant.yaml",
        task="sums",
        asked=(
            ("how much would 48 times 365 make", number(17520)),
            ("I bought 12 notebooks at 3.75 each, what did I pay in total?", number(45)),
            ("can you do 7394 minus 2818 real quick", number(4576)),
            ("If 936 is divided equally between 24 people, everyone gets how much?", number(39)),
            ("67 and 89 multiplied, what does that make?", number(5963)),
        ),
    ),
    Row(
        example="assistant.yaml",
        task="and on from there",
        before=(MAIN_JOB,),
        asked=(
            ("ok and if you put 9 more on that?", number(400)),
            ("What's left of it after taking 45 away?", number(346)),
            ("take that number times 12 please", number(4692)),
            ("If 17 people share that, how much does each one get?", number(23)),
            ("could you also throw in another 150?", number(541)),
        ),
    ),
    Row(
        example="notes.yaml",
        task="which notes mention something",
        asked=(
            (
                "In which of my notes do I talk about the herbs?",
                search("herb", "herbs", "the herbs", found=("garden", "shopping")),
            ),
            ("where did I write something about coffee?", search("coffee", found=("shopping",))),
            (
                "Which of the notes have flour in them?",
                search("flour", found=("shopping",)),
            ),
            (
                "I wrote down something about an apple tree, which file was that?",
                search("apple", "apple tree", "the apple tree", found=("garden",)),
            ),
            (
                "find me the note that has the tomatoes in it",
                search("tomato", "tomatoes", found=("garden",)),
            ),
        ),
    ),
)
"""What is asked. Phrasings that fail stay: they are what a person would type."""


# -- what is right


def failing(
    result: TurnResult, wanted: Wanted, schemas: Mapping[str, Mapping[str, Any]], known: str
) -> str | None:
    """Why a turn isn't right; None if it is.

    Args:
        result: The turn.
        wanted: What must come of it.
        schemas: The parameters of each tool that is offered.
        known: All that was said before in the conversation, the request included: the answer may
            repeat numbers from there, and from the call and its result.
    """
    if result.outcome != "answered":
        return f"{result.outcome}: {result.reason}"
    calls = [e.call for e in result.events if isinstance(e, CallRequested)]
    if [call.name for call in calls] != [wanted.tool]:
        return f"calls {[call.name for call in calls]}"
    if len(result.results) != 1 or result.results[0].is_error:
        return f"the call failed: {[r.content for r in result.results]}"
    arguments, content = dict(calls[0].arguments), str(result.results[0].content)
    if wanted.prints is not None:
        wrong = _wrong_code(str(arguments.get("code")), content, wanted.prints)
    else:
        wrong = _wrong_arguments(arguments, wanted, schemas[wanted.tool])
    return wrong or _wrong_text(result.text, wanted, f"{known} {arguments} {content}")


def _wrong_arguments(
    arguments: dict[str, Any], wanted: Wanted, schema: Mapping[str, Any]
) -> str | None:
    full = with_defaults(arguments, schema)
    defaults = with_defaults({}, schema)
    for name in full.keys() | wanted.arguments.keys() | arguments.keys():
        may_be = wanted.arguments.get(name, (defaults.get(name),))
        # 1, 1.0 and true are three things; capitals of a text are one.
        if _key(full.get(name)) not in {_key(value) for value in may_be}:
            return f"{name} is {full.get(name)!r}"
    return None


def _key(value: object) -> tuple[type, object]:
    return type(value), value.casefold() if isinstance(value, str) else repr(value)


def _wrong_code(code: str, printed: str, wanted: float) -> str | None:
    if not _computes(code):
        return f"the code computes nothing: {code!r}"
    found = numbers(printed)
    if not found or not _same(found[-1], wanted):
        return f"{code!r} printed {printed!r}"
    return None


def _computes(code: str) -> bool:
    """Whether a program does more than print what its writer believes."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return False
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return any(isinstance(node, ast.BinOp | ast.AugAssign) for node in nodes) or bool(
        called - {"print", "int", "float", "str", "round"}
    )


def _wrong_text(text: str, wanted: Wanted, known: str) -> str | None:
    for fact in wanted.facts:
        if not _has(text, fact):
            return f"the answer lacks {fact!r}"
    for word in wanted.never:
        if _has(text, word):
            return f"the answer says {word!r}"
    said = numbers(text)
    if wanted.prints is not None and not any(_same(n, wanted.prints) for n in said):
        return f"the answer lacks {wanted.prints:g}"
    sources = numbers(known)
    for each in said:
        if not any(_same(each, source) for source in sources):
            return f"{each:g} comes from nowhere"
    return None


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def numbers(text: str) -> list[float]:
    """The numbers of a text, thousands with commas or without."""
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def _same(one: float, other: float) -> bool:
    return abs(one - other) < 1e-6 * max(1.0, abs(other))


# -- asking


class Models:
    """The models that all agents share, each loaded once and closed at the end."""

    def __init__(self, model: str, guard: str) -> None:
        self._names = {"cria": model, "cria-guard": guard}
        self._open: dict[str, Runtime] = {}

    async def __call__(self, name: str) -> Runtime:
        """Opens what stands in for an example's model."""
        name = self._names[bundled_name(name) or name]
        if name not in self._open:
            self._open[name] = await open_runtime(name)
        return self._open[name]

    async def aclose(self) -> None:
        for runtime in self._open.values():
            await runtime.aclose()


def load_example(path: Path) -> Agent:
    """The agent that an example defines: a YAML file's, or a script's `agent`."""
    if path.suffix == ".yaml":
        return Agent.from_file(path)
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    agent = module.agent
    assert isinstance(agent, Agent)
    return agent


@dataclass
class Score:
    """How a row fared at one temperature."""

    right: int = 0
    asked: int = 0
    failures: list[str] = field(default_factory=list[str])


async def ask(agent: Agent, row: Row, text: str, wanted: Wanted) -> tuple[str | None, str]:
    """One conversation: why its last turn isn't right, or None, and its answer."""
    session, known = None, ""
    for earlier in row.before:
        result = await agent.run(earlier, session=session)
        session = result.session
        said = [str(r.content) for r in result.results]
        known += f" {earlier} {' '.join(said)} {result.text}"
    result = await agent.run(text, session=session)
    schemas = {tool.spec.name: tool.spec.parameters for tool in agent.tools}
    return failing(result, wanted, schemas, f"{known} {text}"), result.text


async def ask_row(agent: Agent, row: Row, temperature: float, runs: int) -> Score:
    """Ask in every phrasing: once where answers are equal in any case, else with `runs` seeds."""
    score = Score()
    for text, wanted in row.asked:
        for seed in range(1, (runs if temperature else 1) + 1):
            sampling = replace(agent.sampling, temperature=temperature, seed=seed)
            why, said = await ask(agent.variant(sampling=sampling), row, text, wanted)
            score.asked += 1
            score.right += why is None
            if why is not None:
                drawn = f", seed {seed}" if temperature else ""
                score.failures.append(
                    f"- {row.example}, {temperature:g}{drawn}: {text!r}: {why}. It said: {said!r}"
                )
    return score


async def measure(
    rows: Sequence[Row], models: Models, *, temperatures: Sequence[float], runs: int, failures: bool
) -> list[list[Score]]:
    """Ask every row at every temperature, and print the table."""
    table: list[list[Score]] = []
    async with AsyncExitStack() as stack:
        copied = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "examples"
        shutil.copytree(ROOT / "examples", copied)
        stack.push_async_callback(models.aclose)
        agents: dict[str, Agent] = {}
        for row in rows:
            if row.example not in agents:
                agent = agents[row.example] = load_example(copied / row.example)
                stack.push_async_callback(agent.aclose)
                await agent.open(opener=models)
            scores: list[Score] = []
            for t in temperatures:
                print(f"{row.example}, {row.task}, temperature {t:g}", file=sys.stderr)
                scores.append(await ask_row(agents[row.example], row, t, runs))
            table.append(scores)
    heads = [f"temperature {t:g}" for t in temperatures]
    print(f"| example | asked | {' | '.join(heads)} |")
    print(f"|---|---|{'---|' * len(heads)}")
    for row, scores in zip(rows, table, strict=True):
        cells = " | ".join(f"{score.right} of {score.asked}" for score in scores)
        print(f"| `{row.example}` | {row.task} | {cells} |")
    totals = [
        f"{sum(s.right for s in column)} of {sum(s.asked for s in column)}"
        for column in zip(*table, strict=True)
    ]
    print(f"| all | | {' | '.join(totals)} |")
    if failures:
        print("\nNot right:\n")
        print("\n".join(f for scores in table for s in scores for f in s.failures) or "none")
    return table


# -- seconds


async def long_prompt(runtime: Runtime, tokens: int, number: int) -> Prompt:
    """A user's message that makes a prompt of `tokens`, unlike those of other numbers."""
    words = (ROOT / "README.md").read_text("utf-8").split()[number * 40 :]

    def prompt(count: int, filled: int) -> Prompt:
        text = f"{number} " + " ".join(words[:count]) + " the" * filled
        return render_prompt([UserMessage(content=text)])

    count = 1
    while await runtime.count(prompt(count + 1, 0)) <= tokens:
        count += 1
    filled = 0
    while await runtime.count(prompt(count, filled)) < tokens:
        filled += 1
    return prompt(count, filled)


async def time_once(model: str, guard: str, number: int, tokens: int) -> dict[str, float]:
    """Load both models anew, ask the README's first question, then read a long prompt."""
    found: dict[str, float] = {}
    models = Models(model, guard)
    agent = load_example(ROOT / "examples" / "assistant.yaml")
    try:
        began = perf_counter()
        await agent.open(opener=models)
        found["loading both models"] = perf_counter() - began
        for what in ("the first turn", "the same turn again"):
            began = perf_counter()
            result = await agent.run(MAIN_JOB)
            found[what] = perf_counter() - began
            if result.outcome != "answered" or not {"input", "answer"} <= {
                check.gate for check in result.checks
            }:
                raise SystemExit(f"{MAIN_JOB!r} was not answered behind both shields: {result}")
        runtime = await models(agent.model)
        prompt = await long_prompt(runtime, tokens, number)
        began = perf_counter()
        async for piece in runtime.generate(prompt, sampling=Sampling(max_tokens=8)):
            if isinstance(piece, Piece):
                found[f"first token of a prompt of {tokens} tokens"] = perf_counter() - began
                break
    finally:
        await agent.aclose()
        await models.aclose()
    return found


async def timing(model: str, guard: str, *, rounds: int = 5, tokens: int = 600) -> None:
    """Print the median of five loads: of each, a turn of the main job and a long prompt."""
    found = [await time_once(model, guard, number, tokens) for number in range(rounds)]
    print(f"| seconds, {rounds} times | median | least | most |\n|---|---|---|---|")
    for what in found[0]:
        seconds = [each[what] for each in found if what in each]
        print(f"| {what} | {median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")


async def run(options: argparse.Namespace) -> None:
    if options.timing:
        await timing(options.model, options.guard)
        return
    rows = [row for row in ROWS if not options.only or any(o in row.example for o in options.only)]
    print(f"{options.model} behind {options.guard}, on {date.today()}, the date in the prompts.\n")
    await measure(
        rows,
        Models(options.model, options.guard),
        temperatures=options.temperatures,
        runs=options.runs,
        failures=options.failures,
    )
    print(
        "\nAt temperature 0 each phrasing is asked once: in this process greedy answers to the "
        "same prompt are equal to the bit, so one run stands for any number."
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="cria", help="any model string; stands in for cria")
    parser.add_argument("--guard", default="cria-guard", help="stands in for cria-guard")
    parser.add_argument("--only", nargs="+", default=[], help="parts of examples' names")
    parser.add_argument("--runs", type=int, default=4, help="of each phrasing, above temperature 0")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.7])
    parser.add_argument("--failures", action="store_true", help="list what wasn't right, and why")
    parser.add_argument("--timing", action="store_true", help="measure seconds instead")
    options = parser.parse_args()
    if options.only and not any(o in row.example for row in ROWS for o in options.only):
        parser.error(f"--only fits none of: {', '.join(sorted({r.example for r in ROWS}))}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CORRAL_DATA"] = folder  # the examples keep conversations in the user's own
        anyio.run(run, options)


if __name__ == "__main__":
    main()
