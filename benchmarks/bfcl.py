"""Writes the calls of the Berkeley Function Calling Leaderboard in every way, and reads them back.

    CORRAL_BFCL_DIR=DIRECTORY python benchmarks/bfcl.py

The directory, which may be given as an argument too, is laid out as the leaderboard publishes it:
`BFCL_v4_simple_python.json` and so on, one entry a line with its `question` and `function`, and
beside them `possible_answer/` with files of the same names. Any version's files will do. The data
are not part of this repository; the wheel `bfcl-eval` has them in `bfcl_eval/data` (Apache-2.0).

Each entry's ground truth is made into calls, which are written in every format: those that
`render_prompt` knows, as the assistant's turn of a conversation, and what models write besides.
What `parse_output` reads must be the same calls, down to the types of numbers. Then each tool is
talked about in answers that call nothing, and nothing must be called.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from corral.messages import AssistantMessage, ToolCall, ToolSpec, UserMessage
from corral.model_runtime.formats import FORMATS, render_prompt
from corral.model_runtime.parser import ParserOptions, parse_output
from corral.model_runtime.prompt import Special
from corral.model_runtime.runtime import Piece

TAG = Piece("<|python_tag|>", is_special=True)
AS_GIVEN = ParserOptions(coerce=False, validate=False, max_calls=100)
"""The leaderboard compares what a model wrote: nothing may be mended on the way."""


@dataclass(frozen=True)
class Entry:
    """One question: what was offered, and what should be called."""

    id: str
    tools: tuple[ToolSpec, ...]
    calls: tuple[ToolCall, ...]


def load(directory: Path) -> Iterator[Entry]:
    """The entries of every file that has answers of the single-turn form, in order."""
    for answers in sorted(directory.glob("possible_answer/BFCL_v*.json")):
        truths = {line["id"]: line["ground_truth"] for line in lines(answers)}
        for line in lines(directory / answers.name):
            tools = _tools(line.get("function"))
            truth = truths.get(line["id"])
            if tools and _is_single_turn(truth):
                yield Entry(line["id"], tools, tuple(_calls(truth, line["function"])))


def load_irrelevant(directory: Path) -> Iterator[tuple[ToolSpec, ...]]:
    """What is offered in the entries where nothing should be called."""
    for path in sorted(directory.glob("BFCL_v*irrelevance.json")):
        for line in lines(path):
            tools = _tools(line.get("function"))
            if tools:
                yield tools


def lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # A line ends with a line feed and nothing else: values hold other ends of lines.
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def _tools(functions: Any) -> tuple[ToolSpec, ...]:
    return tuple(
        ToolSpec(
            name=function["name"],
            description=function.get("description", ""),
            parameters=function["parameters"],
        )
        for function in functions or ()
    )


def _is_single_turn(truth: Any) -> bool:
    return bool(truth) and all(isinstance(call, dict) and len(call) == 1 for call in truth)


def _calls(truth: list[Any], functions: list[dict[str, Any]]) -> Iterator[ToolCall]:
    schemas = {function["name"]: function["parameters"] for function in functions}
    for index, call in enumerate(truth):
        ((name, answers),) = call.items()
        schema = schemas.get(name, {})
        arguments = {
            key: _first(options)
            for key, options in answers.items()
            if key in schema.get("required", ())
            or (key in schema.get("properties", {}) and any(option != "" for option in options))
        }
        yield ToolCall(id=f"call_{index}", name=name, arguments=arguments)


def _first(options: list[Any]) -> Any:
    """The first allowed answer that says anything."""
    return _plain(next((option for option in options if option != ""), ""))


def _plain(answer: Any) -> Any:
    """An answer as a value: inside objects, each member is again a list of what is allowed."""
    if isinstance(answer, dict):
        return {
            key: _first(options) if isinstance(options, list) else options
            for key, options in answer.items()
        }
    if isinstance(answer, list):
        return [_plain(item) for item in answer]
    return answer


# -- ways to write calls


Writer = Callable[[Entry], list[Piece]]


def _rendered(format: str) -> Writer:
    """The assistant's turn of a conversation, as a prompt format writes it."""

    def write(entry: Entry) -> list[Piece]:
        asked = [UserMessage(content="Please.")]
        said = AssistantMessage(calls=entry.calls)
        before = render_prompt(asked, tools=entry.tools, format=format)
        after = render_prompt([*asked, said], tools=entry.tools, format=format)
        return [
            Piece(each.token, is_special=True) if isinstance(each, Special) else Piece(each.text)
            for each in after.segments[len(before.segments) :]
        ]

    return write


def _object(call: ToolCall, arguments: str = "parameters") -> dict[str, Any]:
    return {"name": call.name, arguments: call.arguments}


def _joined(separator: str, arguments: str = "parameters") -> Writer:
    return lambda entry: [
        Piece(separator.join(json.dumps(_object(call, arguments)) for call in entry.calls))
    ]


def _fenced(entry: Entry) -> list[Piece]:
    return [Piece(f"```json\n{json.dumps([_object(call) for call in entry.calls])}\n```")]


def _python(entry: Entry) -> list[Piece]:
    """Python's own spelling of every value."""
    calls = (
        f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
        for call in entry.calls
    )
    return [Piece(f"[{', '.join(calls)}]")]


def _tagged(entry: Entry) -> list[Piece]:
    typed = ({"type": "function", **_object(call)} for call in entry.calls)
    return [TAG, Piece("; ".join(map(json.dumps, typed)))]


WRITERS: dict[str, Writer] = {
    **{f"format {name}": _rendered(name) for name, each in FORMATS.items() if each.calls != "none"},
    "JSON, several joined by ;": _joined("; "),
    "JSON with arguments": _joined("; ", "arguments"),
    "JSON, one a line": _joined("\n"),
    "JSON list": lambda entry: [Piece(json.dumps([_object(call) for call in entry.calls]))],
    "JSON with type behind a tag": _tagged,
    "JSON in a fence": _fenced,
    "Python dictionaries": lambda entry: [Piece("; ".join(repr(_object(c)) for c in entry.calls))],
    "pythonic, as Python spells values": _python,
}
"""Way of writing -> its writer. One that can't write an entry raises `NotImplementedError`."""

ANSWERS = (
    "I'm sorry, but I can't help with that.",
    "[]",
    "The function {name} is not the right one for this.",
    "None of the functions fit. {name} needs other parameters.",
    "You could call {name}(x=1), but it would not help.",
    'Here is how it would look: {{"name": "{name}", "parameters": {{}}}}',
    "```python\n# {name} does something else\n```",
    '{{"answer": "no function fits", "closest": "{name}"}}',
)


@dataclass
class Score:
    """How one way of writing fared."""

    entries: int = 0
    same: int = 0
    skipped: int = 0
    seconds: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    @property
    def share(self) -> float:
        """Per cent that came back the same."""
        return 100 * self.same / self.entries if self.entries else 0.0


def key(calls: Sequence[ToolCall]) -> str:
    """Calls as a string in which 1, 1.0 and true are three things."""
    return json.dumps([[call.name, call.arguments] for call in calls])


def run(entries: Sequence[Entry]) -> dict[str, Score]:
    """Write every entry in every way and read it back."""
    scores = {name: Score() for name in WRITERS}
    for entry in entries:
        expected = key(entry.calls)
        for name, writer in WRITERS.items():
            score = scores[name]
            try:
                pieces = writer(entry)
            except NotImplementedError:
                score.skipped += 1
                continue
            start = perf_counter()
            message = parse_output(pieces, tools=entry.tools, options=AS_GIVEN)
            score.seconds.append(perf_counter() - start)
            score.entries += 1
            if key(message.calls) == expected:
                score.same += 1
            else:
                score.wrong.append(entry.id)
    return scores


def run_irrelevant(offers: Sequence[tuple[ToolSpec, ...]]) -> tuple[int, int]:
    """How many answers that call nothing were read, and in how many of them calls were seen."""
    read = seen = 0
    for tools in offers:
        for answer in ANSWERS:
            text = answer.format(name=tools[0].name)
            read += 1
            seen += bool(parse_output(text, tools=tools).calls)
    return read, seen


def main() -> int:
    """Print a table; exit 1 if less than 99.9 per cent came back the same, or if anything ran."""
    parser = argparse.ArgumentParser(description="BFCL's calls, written and read back.")
    parser.add_argument("directory", nargs="?", default=os.environ.get("CORRAL_BFCL_DIR"))
    directory = parser.parse_args().directory
    if directory is None or not Path(directory).is_dir():
        parser.error("name the folder with BFCL's files, here or in CORRAL_BFCL_DIR")
    entries = list(load(Path(directory)))
    if not entries:
        parser.error(f"no BFCL_v*.json with answers is in {directory!r}")
    scores = run(entries)
    print(f"{len(entries)} entries, {sum(len(entry.calls) for entry in entries)} calls")
    print(f"{'':36}{'entries':>8}{'the same':>10}{'per cent':>10}{'median us':>11}")
    for name, score in scores.items():
        micros = median(score.seconds) * 1e6 if score.seconds else 0.0
        print(f"{name:36}{score.entries:>8}{score.same:>10}{score.share:>10.2f}{micros:>11.1f}")
        for wrong in score.wrong[:5]:
            print(f"    {wrong}")
    strict = sum(bool(parse_output(_python(entry), tools=entry.tools).calls) for entry in entries)
    print(f"with validation on, {strict} of {len(entries)} entries' own answers fit their schemas")
    read, seen = run_irrelevant(list(load_irrelevant(Path(directory))))
    print(f"{read} answers that call nothing: calls seen in {seen}")
    total = sum(score.entries for score in scores.values())
    same = sum(score.same for score in scores.values())
    print(f"in all: {same} of {total} the same ({100 * same / total:.3f} per cent)")
    return 0 if same >= 0.999 * total and not seen else 1


if __name__ == "__main__":
    sys.exit(main())
