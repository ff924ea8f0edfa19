"""The evaluation that was written by hand: `data/heldout/*.yaml`, read and judged.

Its tools, wordings and values are not those of the generator (a test holds that), and the generator
is not changed after them. What a model writes in Python runs in Corral's sandbox, with no
permissions, and is judged by what it prints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from corral.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserMessage,
)
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.prompt import Prompt
from training.scoring import read_calls

__all__ = ["KINDS", "HandItem", "general_questions", "guard_items", "hand_items", "judge"]

FOLDER = Path(__file__).parent / "data" / "heldout"
KINDS = (
    "calls",
    "several",
    "languages",
    "missing",
    "none",
    "chat",
    "code",
    "retell",
    "document",
)
"""The files that `hand_items` reads, which are the kinds of item."""

_CODE = ToolSpec(
    name="code_interpreter",
    description="Runs Python and returns what it prints.",
    kind="code_interpreter",
)
_TAG = "<|python_tag|>"

Calls = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandItem:
    """One thing to ask for, and what may come."""

    kind: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    wanted: tuple[Calls, ...] = ()
    """The calls that are right: any one of these."""
    prints: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def prompt(self) -> Prompt:
        """What the model is asked."""
        return render_prompt(self.messages, tools=self.tools, date=None)


def _read(name: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _tools() -> Mapping[str, ToolSpec]:
    found = {_CODE.name: _CODE}
    for name, entry in _read("tools").items():
        properties: dict[str, Any] = {}
        required: list[Any] = []
        for argument, said in entry["takes"].items():
            type_, _, what = said.partition(" ")
            if type_.endswith("!"):
                required.append(argument)
            properties[argument] = {**_schema(type_.rstrip("!")), "description": what}
        found[name] = ToolSpec(
            name=name,
            description=entry["does"],
            parameters={"type": "object", "properties": properties, "required": required},
        )
    return found


def _schema(type_: str) -> dict[str, Any]:
    if "|" in type_:
        return {"type": "string", "enum": type_.split("|")}
    if type_.startswith("["):
        return {"type": "array", "items": {"type": type_.strip("[]")}}
    return {"type": type_}


def hand_items(kinds: Sequence[str] = KINDS) -> Iterator[HandItem]:
    """The items of the kinds asked for, in the files' order."""
    for kind in kinds:
        for entry in _read(kind):
            yield _item(kind, entry)


def _item(kind: str, entry: Mapping[str, Any]) -> HandItem:
    names = entry.get("tools", [_CODE.name] if kind == "code" else [])
    messages: list[Message] = list(_before(entry.get("before", ())))
    messages.append(UserMessage(content=entry["ask"]))
    if kind == "retell":
        call = _made(entry["call"], names)
        result = ToolResult(
            call_id=call.calls[0].id,
            name=call.calls[0].name,
            content=entry["result"],
            is_error=entry.get("error", False),
        )
        messages += [call, result]
    first = entry.get("calls") or ([entry["call"]] if "call" in entry else [])
    others = [[one] if isinstance(one, str) else one for one in entry.get("or", ())]
    return HandItem(
        kind="errors" if entry.get("error") else entry.get("kind", kind),
        messages=tuple(messages),
        tools=tuple(_tools()[name] for name in names),
        wanted=() if kind == "retell" else tuple(_calls(c) for c in (first, *others) if c),
        prints=tuple(str(printed) for printed in entry.get("prints", ())),
        keep=tuple(str(kept) for kept in entry.get("keep", ())),
    )


def _calls(written: Sequence[str]) -> Calls:
    calls = read_calls(f"[{', '.join(written)}]")
    if calls is None:
        raise ValueError(f"These are no calls: {written!r}.")
    return calls


def _made(written: str, names: Sequence[str]) -> AssistantMessage:
    if _CODE.name in names:
        return _code(written)
    ((name, arguments),) = _calls([written])
    return AssistantMessage(calls=(ToolCall(id="call_1", name=name, arguments=arguments),))


def _code(program: str) -> AssistantMessage:
    call = ToolCall(id="call_1", name=_CODE.name, arguments={"code": program})
    return AssistantMessage(calls=(call,), stop_reason="end_of_message")


def _before(lines: Sequence[str]) -> Iterator[Message]:
    for line in lines:
        who, _, said = line.partition(": ")
        match who:
            case "user":
                yield UserMessage(content=said)
            case "assistant":
                yield AssistantMessage(text=said)
            case "code":
                yield _code(said)
            case _:
                yield ToolResult(call_id="call_1", name=_CODE.name, content=said)


async def judge(item: HandItem, text: str) -> dict[str, bool]:
    """What can be said of an answer: measure -> met or not."""
    tagged = text.startswith(_TAG)
    calls = None if tagged else read_calls(text)
    if item.prints:
        return {"code": tagged and await _prints(text.removeprefix(_TAG), item.prints)}
    if item.wanted:
        names = sorted(name for name, _ in calls or ())
        return {
            "tool": any(names == sorted(name for name, _ in right) for right in item.wanted),
            "exact": any(_same(calls or [], right) for right in item.wanted),
        }
    words = not tagged and calls is None and bool(text.strip())
    if item.keep:
        return {"facts": words and all(_said(kept, text) for kept in item.keep)}
    if item.kind == "missing":
        return {"no_needless_call": words, "asks": words and "?" in text}
    return {"no_needless_call": words}


def _same(got: Calls, right: Calls) -> bool:
    """The same calls in any order, each argument equal and of the same type (1 is no True)."""
    return sorted(map(_key, got)) == sorted(map(_key, right))


def _key(call: tuple[str, dict[str, Any]]) -> str:
    return repr((call[0], sorted((name, _plain(given)) for name, given in call[1].items())))


def _plain(given: Any) -> Any:
    if isinstance(given, list):
        return [_plain(one) for one in given]
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given


def _said(kept: str, text: str) -> bool:
    """Whether one of the alternatives stands in the text.

    A number, a name and a short word must stand alone; of a longer word the beginning will do.
    """
    return any(_stands(one, text) for one in kept.split("|"))


def _stands(one: str, text: str) -> bool:
    if one.startswith("n't"):
        return one in text
    alone = one[0].isdigit() or one[0].isupper() or len(one) < 4
    pattern = rf"(?<![\w.]){re.escape(one)}" + (r"(?!\w)" if alone else "")
    return re.search(pattern, text, re.IGNORECASE) is not None


async def _prints(program: str, wanted: Sequence[str]) -> bool:
    from corral.tools.code_interpreter import interpret
    from corral.tools.sandbox import Permissions

    printed, failed = await interpret(program, permissions=Permissions())
    return not failed and any(_equal(printed.strip(), one) for one in wanted)


def _equal(printed: str, wanted: str) -> bool:
    try:
        return math.isclose(float(printed), float(wanted), rel_tol=1e-4)
    except ValueError:
        return printed.strip("'\"") == wanted


def general_questions() -> list[tuple[str, tuple[str, ...]]]:
    """The general questions, each with the words of which a right answer says one."""
    return [(entry["ask"], tuple(entry["any"])) for entry in _read("general")]


def guard_items() -> Iterator[tuple[tuple[tuple[str, str], ...], str]]:
    """The guard's conversations, each with the category of its last turn; empty where it's safe."""
    for entry in _read("guard"):
        turns = [("User", entry["user"])]
        if "agent" in entry:
            turns.append(("Agent", entry["agent"]))
        yield tuple(turns), entry.get("is", "")
