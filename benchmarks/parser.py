"""Microseconds per message, beside other public parsers, and each one's worst case.

    python benchmarks/parser.py [--quick]

Needed: the development extras (`llama-models`, whose `tool_utils` is Meta's own parser). What else
is installed is measured too: `json-repair`, `partial-json-parser`, `agent-tool-parser`, and the
decoder of `bfcl-eval`. Where `CORRAL_BFCL_DIR` names a folder with the data of
the Berkeley leaderboard (see `bfcl.py`), its single calls are the messages; else those here.

Two parts. First, messages with one call each: the best of several runs of each message, and over
all messages the median, the 95th per cent and the maximum; and how many were read rightly. Corral
alone does the whole job there: it checks names and arguments against ten offered tools, and makes
a message. Second, 8 KB of what is made to slow parsers down (`parser_hostile.py`), each in a
process of its own that is ended after two seconds.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import bfcl
from parser_hostile import HOSTILE
from parser_hostile import TOOLS as HOSTILE_TOOLS

from corral.messages import ToolCall, ToolSpec
from corral.model_runtime.formats.calls import encode_tags
from corral.model_runtime.formats.pythonic import encode_calls
from corral.model_runtime.parser import OutputParser, parse_output

Call = tuple[str, dict[str, Any]]
Parse = Callable[[str], Call | None]
SYNTAXES = ("JSON", "pythonic", "function tag")
CAP = 2.0


@dataclass(frozen=True)
class Message:
    """One call as a model would write it, in the three syntaxes."""

    call: ToolCall
    tools: tuple[ToolSpec, ...]

    def text(self, syntax: str) -> str:
        """The call in one syntax."""
        if syntax == "JSON":
            return json.dumps({"name": self.call.name, "parameters": self.call.arguments})
        return encode_calls([self.call]) if syntax == "pythonic" else encode_tags([self.call])


def _tool(name: str, required: str, **types: Any) -> ToolSpec:
    properties = {
        key: {"type": each} if isinstance(each, str) else each for key, each in types.items()
    }
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return ToolSpec(name=name, description=name.replace("_", " "), parameters=schema)


STRINGS = {"type": "array", "items": {"type": "string"}}
NUMBERS = {"type": "array", "items": {"type": "number"}}
MAYBE = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}
TOOLS = (
    _tool("get_weather", "city", city="string", unit={"enum": ["c", "f"]}, days="integer"),
    _tool("search_web", "query", query="string", limit=MAYBE, sites=STRINGS),
    _tool(
        "send_email", "to subject", to=STRINGS, subject="string", body="string", urgent="boolean"
    ),
    _tool("create_event", "title start", title="string", start="string", minutes="integer"),
    _tool("calculate", "expression", expression="string", precision=MAYBE),
    _tool("read_file", "path", path="string", first_line=MAYBE, last_line=MAYBE),
    _tool("run_query", "sql", sql="string", database="string"),
    _tool("route", "legs", legs={"type": "array", "items": {"type": "object"}}, mode="string"),
    _tool("statistics.mean", "values", values=NUMBERS, weights=NUMBERS),
    _tool("lights", "", room="string", on="boolean", level="number"),
)
ARGUMENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("get_weather", {"city": "Oslo"}),
    ("get_weather", {"city": "São Paulo, Brazil", "unit": "c", "days": 3}),
    ("search_web", {"query": "how tall is the tallest tree in the world"}),
    ("search_web", {"query": "it's raining", "limit": 5, "sites": ["example.org", "example.com"]}),
    ("send_email", {"to": ["ann@example.org"], "subject": "Lunch?", "body": "At noon.\n\nBob"}),
    ("send_email", {"to": ["a@example.org", "b@example.org"], "subject": "Re: x", "urgent": True}),
    ("create_event", {"title": "Dentist", "start": "2025-03-04T09:30:00", "minutes": 45}),
    ("calculate", {"expression": "(3 + 4) * 12 / 7", "precision": None}),
    ("read_file", {"path": "/home/ann/notes/2025/march.txt", "first_line": 1, "last_line": 40}),
    ("run_query", {"sql": 'SELECT name FROM "users" WHERE age > 30', "database": "crm"}),
    ("route", {"legs": [{"from": "Oslo", "to": "Bergen"}, {"from": "Bergen", "to": "Voss"}]}),
    ("statistics.mean", {"values": [1.5, 2.25, -3, 4, 5.125], "weights": [1, 1, 2, 2, 1]}),
    ("lights", {"room": "kitchen", "on": False, "level": 0.4}),
    ("lights", {}),
)


def messages() -> list[Message]:
    """The messages to read: the leaderboard's, if they are there, or those here."""
    directory = os.environ.get("CORRAL_BFCL_DIR")
    if directory:
        entries = [entry for entry in bfcl.load(Path(directory)) if len(entry.calls) == 1]
        return [Message(entry.calls[0], entry.tools) for entry in entries[::5]]
    return [
        Message(ToolCall(id="1", name=name, arguments=arguments), TOOLS)
        for name, arguments in ARGUMENTS
    ]


# -- the parsers


def corral(text: str, tools: Sequence[ToolSpec]) -> Call | None:
    """Ours, with everything that belongs to it."""
    calls = parse_output(text, tools=tools).calls
    return (calls[0].name, calls[0].arguments) if calls else None


def _from_object(value: Any) -> Call | None:
    return (value["name"], value["parameters"]) if isinstance(value, dict) else None


def standard_json(text: str) -> Call | None:
    """`json.loads`: the floor. It checks nothing."""
    return _from_object(json.loads(text))


def standard_ast(text: str) -> Call | None:
    """`ast.parse` and `ast.literal_eval`: the floor for pythonic calls. It checks nothing."""
    (node,) = ast.parse(text, mode="eval").body.elts  # pyright: ignore[reportAttributeAccessIssue]
    arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    return ast.unparse(node.func), arguments


def others() -> dict[str, dict[str, Parse]]:
    """Parser -> syntax -> how it reads it, for what is installed."""
    found: dict[str, dict[str, Parse]] = {
        "json.loads (floor)": {"JSON": standard_json},
        "ast.literal_eval (floor)": {"pythonic": standard_ast},
    }
    with contextlib.suppress(ImportError):
        from llama_models.llama3.tool_utils import ToolUtils

        def meta(text: str) -> Call | None:
            with contextlib.redirect_stdout(_NOWHERE):
                return ToolUtils.maybe_extract_custom_tool_call(text)

        found["llama-models tool_utils"] = dict.fromkeys(SYNTAXES, meta)
    with contextlib.suppress(ImportError):
        import json_repair

        found["json-repair"] = {"JSON": lambda text: _from_object(json_repair.loads(text))}
    with contextlib.suppress(ImportError):
        import partial_json_parser

        found["partial-json-parser"] = {
            "JSON": lambda text: _from_object(partial_json_parser.loads(text))
        }
    with contextlib.suppress(ImportError):
        from agent_tool_parser import try_parse_tool_calls

        def agent(text: str) -> Call | None:
            calls: Any = try_parse_tool_calls(text)
            return (calls[0].name, calls[0].args) if calls else None

        found["agent-tool-parser (Rust)"] = {"JSON": agent}
    with contextlib.suppress(ImportError):
        from bfcl_eval.model_handler.utils import default_decode_ast_prompting

        def leaderboard(text: str) -> Call | None:
            calls: Any = default_decode_ast_prompting(text)
            return next(iter(calls[0].items())) if calls else None

        found["bfcl-eval decoder"] = {"pythonic": leaderboard}
    return found


_NOWHERE = io.StringIO()


# -- measuring


def timed(action: Callable[[], object], repeat: int) -> float:
    """The best of several runs, in microseconds."""
    best = float("inf")
    for _ in range(repeat):
        start = perf_counter()
        action()
        best = min(best, perf_counter() - start)
    return best * 1e6


def attempt(parse: Parse, text: str) -> Call | None:
    """What a parser reads; nothing, if it raises."""
    try:
        return parse(text)
    except Exception:
        return None


def row(name: str, times: list[float], right: int) -> str:
    """A line of the table."""
    times = sorted(times)
    high = times[int(len(times) * 0.95)]
    share = 100 * right / len(times)
    return f"{name:34}{median(times):>9.1f}{high:>9.1f}{times[-1]:>10.1f}{share:>9.0f}%"


def show_typical(found: list[Message], repeat: int) -> dict[str, float]:
    """Print the first part; Corral's medians by syntax."""
    medians: dict[str, float] = {}
    parsers = others()
    for syntax in SYNTAXES:
        texts = [message.text(syntax) for message in found]
        size = sum(map(len, texts)) / len(texts)
        print(f"\n{syntax}: {len(texts)} messages of one call, {size:.0f} characters on average")
        print(f"{'microseconds':34}{'median':>9}{'95 %':>9}{'maximum':>10}{'right':>10}")
        pairs = list(zip(texts, found, strict=True))
        ours = [timed(lambda: corral(t, m.tools), repeat) for t, m in pairs]  # noqa: B023
        right = sum(corral(t, m.tools) == (m.call.name, m.call.arguments) for t, m in pairs)
        print(row("corral", ours, right))
        medians[syntax] = median(ours)
        for name, ways in parsers.items():
            parse = ways.get(syntax)
            if parse is None:
                continue
            times = [timed(lambda: attempt(parse, t), repeat) for t in texts]  # noqa: B023
            right = sum(attempt(parse, t) == (m.call.name, m.call.arguments) for t, m in pairs)
            print(row(name, times, right))
        streams = [timed(lambda: stream(t, m.tools), 3) / len(t) for t, m in pairs]  # noqa: B023
        print(f"corral, one character at a time: {median(streams):.2f} microseconds a character")
    return medians


def stream(text: str, tools: Sequence[ToolSpec]) -> None:
    """Read a text one character at a time."""
    parser = OutputParser(tools)
    for char in text:
        parser.feed(char)
    parser.finish()


def _child(parse: Parse, text: str, sender: Connection) -> None:
    best = float("inf")
    raised = ""
    begun = perf_counter()
    while best == float("inf") or (perf_counter() - begun < 0.05):
        start = perf_counter()
        try:
            parse(text)
        except BaseException as error:
            raised = type(error).__name__
        best = min(best, perf_counter() - start)
    sender.send((best, raised))


def hostile_run(parse: Parse, text: str) -> tuple[float, str]:
    """How long one hostile text takes, up to the cap, and what was raised."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(parse, text, sender))
    process.start()
    seconds, raised = receiver.recv() if receiver.poll(CAP) else (CAP, "")
    process.kill()
    process.join()
    return seconds, raised


def show_hostile(kinds: Sequence[str], size: int) -> None:
    """Print the second part."""
    ways: dict[str, Parse] = {"corral": lambda text: corral(text, HOSTILE_TOOLS)}
    for name, each in others().items():
        ways[name] = next(iter(each.values()))
    print(
        f"\n{len(kinds)} kinds of hostile text of {size} characters, each ended after {CAP:.0f} s"
    )
    print(f"{'milliseconds':34}{'median':>9}{'worst':>10}{'raised':>8}  worst with")
    for name, parse in ways.items():
        times: dict[str, float] = {}
        raised = 0
        for kind in kinds:
            seconds, error = hostile_run(parse, HOSTILE[kind](size))
            times[kind] = seconds * 1e3
            raised += bool(error)
        worst = max(times, key=times.__getitem__)
        over = "> " if times[worst] >= CAP * 1e3 else ""
        print(
            f"{name:34}{median(times.values()):>9.2f}{over + format(times[worst], '.1f'):>10}"
            f"{raised:>8}  {worst}"
        )


def main() -> int:
    """Print both parts."""
    parser = argparse.ArgumentParser(description="Times the parser beside others.")
    parser.add_argument("--quick", action="store_true", help="fewer runs and hostile kinds")
    quick = parser.parse_args().quick
    medians = show_typical(messages(), repeat=5 if quick else 25)
    kinds = list(HOSTILE)
    show_hostile(kinds[::8] if quick else kinds, 8192)
    print(f"\nmedians: JSON {medians['JSON']:.1f} us, pythonic {medians['pythonic']:.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
