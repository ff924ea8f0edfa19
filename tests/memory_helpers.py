"""What the tests of the store say, and how they say it."""

from __future__ import annotations

import json

from corral.events import Outcome, ShieldChecked, Verdict
from corral.memory import Store
from corral.messages import (
    AssistantMessage,
    ToolCall,
    ToolResult,
    UserMessage,
)


def turn(store: Store, session: str = "main", *, wait: float = 0):
    return store.turn(session, agent="herder", model="cria", wait=wait)


def call(call_id: str, name: str = "add") -> AssistantMessage:
    return AssistantMessage(calls=(ToolCall(id=call_id, name=name, arguments={"a": 1}),))


def result(call_id: str, content: str = "2") -> ToolResult:
    return ToolResult(call_id=call_id, name="add", content=content)


def check(gate, *, blocked: bool) -> ShieldChecked:
    verdict = Verdict(safe=not blocked, categories=("S1",) if blocked else ())
    return ShieldChecked(gate=gate, shield="guard", verdict=verdict, blocked=blocked, seconds=0.1)


async def say(
    store: Store,
    text: str,
    *,
    session: str = "main",
    outcome: Outcome = "answered",
    wait: float = 0,
):
    async with turn(store, session, wait=wait) as t:
        await t.append(UserMessage(content=text))
        await t.append(AssistantMessage(text=f"answer to {text}"))
        await t.finish(outcome)


async def turns(store: Store, session: str = "main") -> list[dict]:
    lines = [json.loads(line) async for line in store.export(session)]
    return [line for line in lines if line["kind"] == "turn"]


async def outcomes(store: Store, session: str = "main") -> list[str]:
    return [line["status"] for line in await turns(store, session)]
