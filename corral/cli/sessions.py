"""`corral sessions`: what is remembered on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import click

from corral.cli.files import forget_files
from corral.cli.show import call_text, printable, result_text
from corral.errors import ConfigError
from corral.events import ShieldChecked
from corral.memory import Item, PendingCall, Store
from corral.memory.sqlite import SQLiteStore, default_path
from corral.messages import AssistantMessage, ToolResult, UserMessage

__all__ = [
    "forget_session",
    "list_sessions",
    "open_store",
    "pending_json",
    "pending_text",
    "show_session",
]


@asynccontextmanager
async def open_store(memory: Path | None) -> AsyncGenerator[Store]:
    """The database at `memory`, or the user's own."""
    store = await SQLiteStore.open(memory or default_path())
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.aclose()


async def list_sessions(memory: Path | None) -> int:
    """Print a line for each session."""
    async with open_store(memory) as store:
        found = await store.sessions()
    if not found:
        click.echo("No conversations are kept here yet.", err=True)
    for info in found:
        title = printable(info.title).replace("\n", " ")
        when = f"{info.updated_at.astimezone():%Y-%m-%d %H:%M}"
        click.echo(f"{info.key}\t{when}\t{info.turns} turns\t{info.agent}\t{title}")
    return 0


async def show_session(key: str, memory: Path | None, *, as_json: bool) -> int:
    """Print the items of a session."""
    async with open_store(memory) as store:
        items = await store.items(key)
        unfinished = await store.unfinished(key)
    if not items:
        raise _unknown(key)
    for item in items:
        click.echo(_json(item) if as_json else _plain(item))
    for waiting in unfinished.pending if unfinished else ():
        click.echo(pending_json(waiting) if as_json else pending_text(waiting))
    return 0


async def forget_session(key: str, memory: Path | None, *, yes: bool) -> int:
    """Delete a session, after asking."""
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("Forgetting can't be undone, so it asks. Say --yes to go ahead.")
        if not click.confirm(f"Delete the conversation {key!r} for good?", err=True):
            return 1
    async with open_store(memory) as store:
        if not await store.forget(key):
            raise _unknown(key)
    forget_files(key, memory)
    click.echo(f"Forgot {key}.", err=True)
    return 0


def pending_text(waiting: PendingCall) -> str:
    """A call that waits for approval, as a person reads it."""
    call = f"{call_text(waiting.call)}\n    {waiting.call.id}: {printable(waiting.why)}"
    return f"waits for approval {call}"


def pending_json(waiting: PendingCall) -> str:
    """A call that waits for approval, as a line of JSON."""
    return json.dumps(
        {
            "kind": "pending",
            "turn_id": waiting.turn_id,
            "call": waiting.call.model_dump(mode="json"),
            "why": waiting.why,
            "requested_at": waiting.requested_at.isoformat(),
        },
        ensure_ascii=False,
    )


def _unknown(key: str) -> ConfigError:
    return ConfigError(f"There is no conversation {key!r}. See: corral sessions list")


def _json(item: Item) -> str:
    said = item.message or item.verdict
    body = said.model_dump(mode="json") if said else None
    return json.dumps(
        {
            "seq": item.seq,
            "turn_id": item.turn_id,
            "kind": item.kind,
            "hidden": item.hidden,
            "created_at": item.created_at.isoformat(),
            item.kind: body,
        },
        ensure_ascii=False,
    )


def _plain(item: Item) -> str:
    mark = " (hidden from the model)" if item.hidden else ""
    match item.message or item.verdict:
        case UserMessage() as message:
            return printable(f"user{mark}: {message.text}")
        case AssistantMessage() as message:
            calls = [f"call {call_text(call)}" for call in message.calls]
            broken = [f"unreadable call: {message.invalid.raw}"] if message.invalid else []
            said = [message.text] if message.text else []
            return printable(f"agent{mark}: " + "\n".join([*said, *calls, *broken]))
        case ToolResult() as message:
            return f"result {result_text(message)}"
        case ShieldChecked() as check:
            word = "safe" if check.verdict.safe else "unsafe " + ",".join(check.verdict.categories)
            return f"shield {check.gate}: {word}"
        case _:
            return item.kind
