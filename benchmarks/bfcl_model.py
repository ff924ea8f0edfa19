"""Asks a model the Berkeley Function Calling Leaderboard's questions, and counts right answers.

    export CORRAL_BFCL_DIR=DIRECTORY PYTHONPATH=.
    python benchmarks/bfcl_model.py cria
    python benchmarks/bfcl_model.py transformers:FOLDER --only simple irrelevance --limit 100
    python benchmarks/bfcl_model.py cria --without-grammar --show

The directory is that of `bfcl.py`. A question is asked as an agent without instructions asks it, on
Corral's runtime at temperature 0: first freely, then with the model held to calls that fit the
tools. The tools have the names that Corral allows (`math.sqrt` is offered as `math_sqrt`) and
schemas in JSON Schema's own words.

Answers are judged as the leaderboard's check of single turns judges them. Every call that is wanted
must be there and no other, in any order. A call is right if it has the right name, every required
parameter and none that is unknown, and each value is one that the leaderboard allows; `""` among
these means that a parameter may be left out. Strings are the same whatever their case, their spaces
and some punctuation; an integer may stand for a number. What the model wrote counts as it is: an
agent would mend some values, and ask again for a call that can't be read.

Two things are not as they are there. Where no call should come, one that was begun and can't be
read is wrong too; and an integer may stand for a number inside lists as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import bfcl

from corral import open_runtime
from corral.agents.prompting import Prompting
from corral.messages import AssistantMessage, ToolCall, ToolSpec, UserMessage
from corral.model_runtime.opening import bundled_name
from corral.model_runtime.parser import parse_output
from corral.model_runtime.parser.schemas import prepare
from corral.model_runtime.runtime import Finish, Piece, Runtime
from corral.tools.schema import check_name, check_parameters
from training.scoring import Share, percent

CATEGORIES = {
    "simple": ("simple_python", "simple"),
    "multiple": ("multiple",),
    "parallel": ("parallel",),
    "parallel_multiple": ("parallel_multiple",),
    "irrelevance": ("irrelevance",),
}
"""Category -> the names of its file: the leaderboard's present one, then earlier ones."""
AT_ONCE = 8
"""Questions that are under way together; each is answered as it would be alone."""

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCall:
    """A call that should come, each argument with all that it may be."""

    name: str
    arguments: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, what is offered, and the calls that should come."""

    id: str
    messages: tuple[UserMessage, ...]
    tools: tuple[ToolSpec, ...]
    wanted: tuple[WantedCall, ...]


# -- reading


def load(directory: Path, category: str) -> list[Question]:
    """A category's questions, in their file's order; none where there is no such file."""
    for name in CATEGORIES[category]:
        for path in sorted(directory.glob(f"BFCL_v[0-9]_{name}.json")):
            answers = bfcl.lines(directory / "possible_answer" / path.name)
            truths = {line["id"]: line["ground_truth"] for line in answers}
            return [_question(line, truths) for line in bfcl.lines(path)]
    return []


def _question(line: Mapping[str, Any], truths: Mapping[str, Any]) -> Question:
    tools = tuple(_tool(function) for function in line["function"])
    if len({tool.name for tool in tools}) < len(tools):
        raise ValueError(f"Two functions of {line['id']!r} have one name. Leave it out.")
    return Question(
        id=line["id"],
        messages=tuple(UserMessage(content=said["content"]) for said in line["question"][0]),
        tools=tools,
        wanted=tuple(
            WantedCall(name=shown_name(name), arguments=arguments)
            for call in truths.get(line["id"], ())
            for name, arguments in call.items()
        ),
    )


def _tool(function: Mapping[str, Any]) -> ToolSpec:
    name = shown_name(function["name"])
    return ToolSpec(
        name=name,
        description=function["description"],
        parameters=check_parameters(prepare(function["parameters"]).schema, tool=name),
    )


def shown_name(name: str) -> str:
    """A function's name as a tool may have it."""
    return check_name(re.sub(r"\W", "_", name, flags=re.ASCII))


def evenly(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` of the questions, from all of their file."""
    count = len(questions) if limit is None else min(limit, len(questions))
    return [questions[i * len(questions) // count] for i in range(count)]


# -- judging


def failing(message: AssistantMessage, question: Question) -> str | None:
    """Why an answer isn't right; None if it is."""
    if message.invalid is not None:
        return f"no call that can be read ({message.invalid.code})"
    if len(message.calls) != len(question.wanted):
        return f"calls: {len(message.calls)} instead of {len(question.wanted)}"
    schemas = {tool.name: tool.parameters for tool in question.tools}
    left = list(message.calls)
    for wanted in question.wanted:
        whys = [wrong_call(call, wanted, schemas[wanted.name]) for call in left]
        if None not in whys:
            return "; ".join(why for why in whys if why)
        del left[whys.index(None)]
    return None


def wrong_call(call: ToolCall, wanted: WantedCall, schema: Schema) -> str | None:
    """Why a call isn't the one that is wanted of the tool with this schema; None if it is."""
    if call.name != wanted.name:
        return f"calls {call.name!r}"
    for name in schema.get("required", ()):
        if name not in call.arguments:
            return f"{name!r} is missing"
    properties = schema["properties"]
    for name, value in call.arguments.items():
        if name not in properties or name not in wanted.arguments:
            return f"{name!r} is unknown"
        if not _is_allowed(value, wanted.arguments[name], properties[name]):
            return f"{name!r} is {value!r}"
    for name, options in wanted.arguments.items():
        if name not in call.arguments and "" not in options:
            return f"{name!r} is missing"
    return None


def _is_allowed(value: Any, options: Sequence[Any], schema: Schema) -> bool:
    return any(same(value, option, schema) for option in options)


def same(value: Any, option: Any, schema: Schema) -> bool:
    """Whether a value of the type that a schema names is the one that is allowed."""
    match option:
        case dict():
            return isinstance(value, dict) and _same_object(value, option, schema)
        case list():
            items = schema.get("items", {})
            return (
                isinstance(value, list)
                and len(value) == len(option)
                and all(same(v, o, items) for v, o in zip(value, option, strict=True))
            )
        case str():
            return isinstance(value, str) and _plain(value) == _plain(option)
        case bool() | None:
            return value is option
        case _:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            is_whole = schema.get("type") == "integer" and isinstance(option, int)
            return value == option and not (is_whole and isinstance(value, float))


def _same_object(value: dict[str, Any], option: dict[str, Any], schema: Schema) -> bool:
    """Whether an object is the one that is allowed, whose members are lists of what is allowed."""
    members = {key: each if isinstance(each, list) else [each] for key, each in option.items()}
    schemas = schema.get("properties", {})
    return value.keys() <= members.keys() and all(
        _is_allowed(value[key], options, schemas.get(key, {})) if key in value else "" in options
        for key, options in members.items()
    )


def _plain(text: str) -> str:
    """What of a string counts."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


# -- asking


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a category fared in one way of asking."""

    category: str
    way: str
    right: int
    of: int
    seconds: float
    failures: tuple[str, ...]

    @property
    def row(self) -> str:
        """The score as a row of the table."""
        low, high = Share(self.right, self.of).interval()
        rate, each = percent(self.right, self.of), self.seconds / self.of
        return (
            f"| {self.category} | {self.way} | {self.of} | {rate} | {low} to {high} | {each:.2f} |"
        )


HEAD = """\
| category | grammar | of | right, % | 95 % interval | seconds a question, eight at once |
|---|---|---|---|---|---|"""


async def answer(
    runtime: Runtime, question: Question, *, grammar: bool
) -> tuple[AssistantMessage, str]:
    """What a model answers, read as it was written, and the text itself."""
    prompting = Prompting.of(
        runtime,
        instructions="",
        tools=question.tools,
        date=date.today(),
        sampling={"temperature": 0.0},
        constrained=grammar,
    )
    sampling = prompting.sampling
    prompt = await prompting.prompt(question.messages, room=sampling.max_tokens)
    output = [
        each
        async for each in runtime.generate(
            prompt, sampling=sampling, constraint=prompting.constraint
        )
    ]
    pieces = [each for each in output if isinstance(each, Piece)]
    (finish,) = (each for each in output if isinstance(each, Finish))
    message = parse_output(
        pieces, tools=prompting.tools, stop_reason=finish.reason, options=bfcl.AS_GIVEN
    )
    return message, "".join(piece.text for piece in pieces)


async def ask(runtime: Runtime, category: str, questions: Sequence[Question], *, way: str) -> Score:
    """Ask a category's questions in one way."""
    failures: dict[int, str] = {}
    waiting = iter(enumerate(questions))
    began = perf_counter()

    async def work() -> None:
        for number, question in waiting:
            if number % 20 == 0:
                print(f"{category}, {way} grammar: {number} of {len(questions)}", file=sys.stderr)
            message, text = await answer(runtime, question, grammar=way == "with")
            why = failing(message, question)
            if why is not None:
                failures[number] = f"- {question.id}, {way} grammar: {why}\n{_told(question, text)}"

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(work)
    return Score(
        category=category,
        way=way,
        right=len(questions) - len(failures),
        of=len(questions),
        seconds=perf_counter() - began,
        failures=tuple(failures[number] for number in sorted(failures)),
    )


def _told(question: Question, text: str) -> str:
    asked = " ".join(message.text for message in question.messages)
    wanted = "; ".join(f"{call.name} {dict(call.arguments)}" for call in question.wanted)
    return f"  - asked: {asked!r}\n  - wanted: {wanted or 'no call'}\n  - got: {text!r}"


async def measure(
    model: str, questions: Mapping[str, Sequence[Question]], *, ways: Sequence[str]
) -> list[Score]:
    """Ask every category `with` grammar, `without`, or both: all scores of a category together.

    The model is opened anew for each way, so that no prompt is in its cache from the way before.
    """
    scores: list[Score] = []
    for way in ways:
        runtime = await open_runtime(model)
        try:
            if way == "with" and "calls" not in runtime.constrains:
                print(f"{runtime.name!r} has no grammar for calls.", file=sys.stderr)
                continue
            scores += [await ask(runtime, name, some, way=way) for name, some in questions.items()]
        finally:
            await runtime.aclose()
    order = list(questions)
    return sorted(scores, key=lambda score: order.index(score.category))


def model_string(model: str) -> str:
    """A model string as it is, or that of a model's folder."""
    is_folder = bundled_name(model) is None and Path(model).is_dir()
    return f"transformers:{model}" if is_folder else model


async def run(options: argparse.Namespace) -> None:
    """Ask, and print the table."""
    model = model_string(options.model)
    scores = await measure(model, options.questions, ways=options.ways)
    print(f"{model}, temperature 0.\n\n{HEAD}")
    for score in scores:
        print(score.row)
    if options.out:
        found = {
            f"{score.category} {score.way} grammar": Share(score.right, score.of).as_json()
            for score in scores
        }
        options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if options.show:
        print("\nNot right:\n")
        print("\n".join(failure for score in scores for failure in score.failures) or "none")


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options, and the questions that they ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="cria", help="any model string, or a folder")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CATEGORIES,
        default=["simple", "irrelevance"],
        metavar="CATEGORY",
        help=f"of {', '.join(CATEGORIES)}; by default simple and irrelevance",
    )
    parser.add_argument("--limit", type=int, help="of each category, evenly from all of it")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("CORRAL_BFCL_DIR"),
        help="the folder with BFCL's files, by default CORRAL_BFCL_DIR",
    )
    ways = parser.add_mutually_exclusive_group()
    for way in ("with", "without"):
        ways.add_argument(
            f"--{way}-grammar",
            dest="ways",
            action="store_const",
            const=(way,),
            default=("without", "with"),
            help=f"ask {way} grammar only; by default in both ways, where the runtime can",
        )
    parser.add_argument("--out", type=Path, help="write the shares there, as JSON")
    parser.add_argument("--show", action="store_true", help="list what wasn't right, and why")
    options = parser.parse_args(arguments)
    if options.data is None or not options.data.is_dir():
        parser.error("name the folder with BFCL's files by --data or in CORRAL_BFCL_DIR")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be 1 or more")
    options.questions = dict(_chosen(options))
    for category, questions in options.questions.items():
        if not questions:
            parser.error(f"{str(options.data)!r} has no file of the category {category!r}")
    return options


def _chosen(options: argparse.Namespace) -> Iterator[tuple[str, list[Question]]]:
    for category in options.only:
        yield category, evenly(load(options.data, category), options.limit)


def main() -> None:
    """The command."""
    anyio.run(run, read_options())


if __name__ == "__main__":
    main()
