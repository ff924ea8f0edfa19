"""Texts made to slow a parser down: each kind repeats what makes some parser look back or ahead.

    python benchmarks/parser_hostile.py            # 64 KB and 1 MB of each kind, side by side

The parser is given 16 times the text, and may take at most 20 times as long for it; whole, and one
character at a time. The tests hold the same on smaller texts by counting steps.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from time import process_time

from corral.messages import ToolSpec
from corral.model_runtime.parser import OutputParser, parse_output
from corral.model_runtime.runtime import Piece

TOOLS = [
    ToolSpec(name="ping", description=""),
    ToolSpec(
        name="get_it",
        description="",
        parameters={
            "type": "object",
            "properties": {
                "a": {"type": "array", "items": {"type": "integer"}},
                "b": {"anyOf": [{"type": "string"}, {"type": "array"}]},
            },
        },
    ),
    *(ToolSpec(name=f"ping_{'x' * size}", description="") for size in range(1, 9)),
    ToolSpec(name="code", description="", kind="code_interpreter"),
]


def _repeat(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    return lambda size: (
        before + unit * max(1, (size - len(before) - len(after)) // len(unit)) + after
    )


CALL = '{"name": "ping", "parameters": {"a": '
HOSTILE: dict[str, Callable[[int], str]] = {
    "open lists": _repeat("["),
    "open objects": _repeat("{"),
    "open objects with keys": _repeat('{"a": '),
    "open calls": _repeat("ping("),
    "open lists of calls": _repeat("[ping("),
    "nested calls": _repeat("ping(a=", "["),
    "closing brackets": _repeat("]}", CALL),
    "lists in a call": lambda size: CALL + "[" * (size // 2) + "]" * (size // 2) + "}}",
    "lists in a list of calls": lambda size: "[ping(a=" + "[" * (size // 2) + "]" * (size // 2),
    "flat numbers": _repeat("1, ", CALL + "[", "1]}}"),
    "flat numbers in Python": _repeat("1, ", "[get_it(a=[", "])]"),
    "numbers in strings": _repeat('"1", ', '{"name": "get_it", "parameters": {"a": [', '"1"]}}'),
    "groups": _repeat("(1), ", "[ping(a=[", "])]"),
    "a string without end": _repeat("x", CALL + '"'),
    "a list in a string": _repeat("[", '{"name": "get_it", "parameters": {"a": "', '"}}'),
    "an object in a string": _repeat("{", '{"name": "ping", "parameters": "', '"}'),
    "single quotes": _repeat("'", "[ping(a="),
    "double quotes": _repeat('"', "[ping(a="),
    "triple quotes": _repeat("'''\"\"\"", "[ping(a="),
    "quotes in JSON": _repeat("\"'", CALL),
    "backslashes": _repeat("\\", CALL + '"'),
    "escaped quotes": _repeat("\\'", "[ping(a='"),
    "escaped quotes in JSON": _repeat('\\"', CALL + '"', '"}}'),
    "halves of characters": _repeat("\\ud83d", CALL + '"', '"}}'),
    "bad escapes": _repeat("\\q", CALL + '"', '"}}'),
    "one long number": _repeat("9", CALL, "}}"),
    "one long number in Python": _repeat("9", "[ping(a=", ")]"),
    "one long name": _repeat("p", "[", "()]"),
    "one long word": _repeat("p"),
    "near names": _repeat("ping_xxxxxxxxy "),
    "near calls": _repeat("ping_xxxxxxxxy()\n"),
    "near calls in a list": _repeat("ping_x(), ", "[", "ping_xy()]"),
    "prefixes of names": _repeat("ping_"),
    "tags": _repeat("<function="),
    "tags with braces": _repeat("<function=a>{"),
    "tags with objects": _repeat("<function=ping>{'a': 1}</function>"),
    "tags without objects": _repeat("<function=ping></function>"),
    "tags without ends": _repeat("<function=ping>{}"),
    "tags with strays": _repeat(">", "<function=ping>{}"),
    "half tags": _repeat("<function"),
    "objects": _repeat('{"name": "ping", "parameters": {}}; '),
    "objects in single quotes": _repeat("{'name': 'ping', 'parameters': {}} "),
    "objects that are no calls": _repeat('{"name": "x", "size": 1}\n'),
    "halves of calls": _repeat('{"parameters": {}}, ', "["),
    "broken halves of calls": _repeat('{"parameters": {}} ', "["),
    "calls in an answer": _repeat('{"name": "ping", "parameters": {}}, ', '{"calls": [', "0]}"),
    "lists of calls": _repeat("[ping()]\n"),
    "links": _repeat("[ping()](x)"),
    "bare calls": _repeat("ping()\n"),
    "bare calls, then prose": _repeat("ping()\n", "", "and so on"),
    "calls of built-ins": _repeat("ping.call(a=1); "),
    "keys": _repeat('"k": 1, ', CALL + "{", '"z": 1}}}'),
    "keys in Python": _repeat("a=1, ", "[ping(", ")]"),
    "fences": _repeat("```\n"),
    "fences with calls": _repeat("```json\n[ping()]\n```\n"),
    "backquotes": _repeat("`"),
    "quotes of calls": _repeat('x "name": "ping'),
    "quotes of names": _repeat("an ping( b"),
    "blanks": _repeat(" ", "[ping("),
    "blanks in front": _repeat(" "),
    "lines": _repeat("\n", CALL),
    "semicolons": _repeat(";", '{"name": "ping", "parameters": {}}'),
    "semicolons in front": _repeat(";"),
    "commas": _repeat(",", "[ping(a=["),
    "equals signs": _repeat("=", "[ping(a"),
    "names of control tokens": _repeat("<|python_tag|>"),
    "null characters": _repeat("\0", "[ping(a='"),
    "letters of two bytes": _repeat("é", CALL + '"', '"}}'),
    "code": _repeat("x = [{}]\n"),
    "prose": _repeat("Call [ping()] or {x}. "),
}
"""Kind -> a text of about that many characters."""


def whole(text: str, *, tagged: bool) -> None:
    """Read a text at once."""
    parse_output([*[Piece("<|python_tag|>", is_special=True)] * tagged, text], tools=TOOLS)


def streamed(text: str, *, tagged: bool) -> None:
    """Read a text one character at a time."""
    parser = OutputParser(TOOLS)
    if tagged:
        parser.feed(Piece("<|python_tag|>", is_special=True))
    for char in text:
        parser.feed(char)
    parser.finish()


def seconds(action: Callable[[], None], *, repeat: int) -> float:
    """The least processor time of several runs."""
    best = float("inf")
    for _ in range(repeat):
        gc.collect()
        start = process_time()
        action()
        best = min(best, process_time() - start)
    return best


def main() -> int:
    """Print a table; exit 1 if any kind grows faster than it may."""
    small, large = 1 << 16, 1 << 20
    worst = 0.0
    print(f"{'':40}{'64 KB, ms':>10}{'1 MB, ms':>10}{'ratio':>7}")
    for way in (whole, streamed):
        for name, make in HOSTILE.items():
            for tagged in (False, True) if way is whole else (False,):
                short, long = make(small), make(large)
                # Below a millisecond the clock's own grain and the caches speak louder.
                first = max(seconds(lambda: way(short, tagged=tagged), repeat=3), 0.001)  # noqa: B023
                second = seconds(lambda: way(long, tagged=tagged), repeat=1)  # noqa: B023
                if second > 20 * first:  # A busy machine, or the parser? Look again.
                    first = max(seconds(lambda: way(short, tagged=tagged), repeat=9), 0.001)  # noqa: B023
                    second = seconds(lambda: way(long, tagged=tagged), repeat=4)  # noqa: B023
                ratio = second / first
                worst = max(worst, ratio)
                label = f"{way.__name__}, {'tagged, ' * tagged}{name}"
                flag = " <--" if ratio > 20 else ""
                print(f"{label:40}{first * 1e3:>10.1f}{second * 1e3:>10.1f}{ratio:>7.1f}{flag}")
    print(f"the worst ratio: {worst:.1f}")
    return 0 if worst <= 20 else 1


if __name__ == "__main__":
    sys.exit(main())
