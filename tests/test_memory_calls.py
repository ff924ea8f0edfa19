"""What the store knows of calls: requests, answers, beginnings, and turns that are gone on with."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from memory_helpers import call, check, outcomes, result, say, turn
from sqlite_utils import Database, Migrations
from sqlite_utils.utils import sqlite3

from corral.errors import ConfigError, SessionBusy, StoreError
from corral.events import Usage
from corral.memory import NOT_BEGUN, UNKNOWN, WITHDRAWN, CallState, SQLiteStore, denied
from corral.memory._schema import _first
from corral.messages import ToolResult, UserMessage

USED = Usage(prompt_tokens=7, output_tokens=3)


@pytest.fixture
async def store(tmp_path: Path):
    async with await SQLiteStore.open(tmp_path / "corral.db") as opened:
        yield opened


async def park(store: SQLiteStore, *ids: str, session: str = "main") -> None:
    """A turn that is left while these calls wait."""
    async with turn(store, session) as t:
        await t.append(UserMessage(content="go"))
        for call_id in ids:
            await t.append(call(call_id))
        await t.request_approval(dict.fromkeys(ids, "it deletes"), usage=USED)
        await t.finish("waiting", usage=USED)


async def test_a_request_waits_until_it_is_answered_and_the_answer_stays(store):
    await park(store, "c1", "c2")
    found = await store.unfinished("main")
    assert found is not None and (found.agent, found.model) == ("herder", "cria")
    assert [(p.call.id, p.call.name, p.why) for p in found.pending] == [
        ("c1", "add", "it deletes"),
        ("c2", "add", "it deletes"),
    ]
    await store.answer("main", "c1", approved=False, reason="no")
    await store.answer("main", "c2", approved=True)
    assert (await store.unfinished("main")).pending == ()
    async with store.resume("main") as t:
        assert t.id == found.id and t.usage == USED
        assert await t.calls() == {
            "c1": CallState(why="it deletes", approved=False, reason="no"),
            "c2": CallState(why="it deletes", approved=True),
        }
        await t.finish("answered")
    assert await outcomes(store) == ["answered"]
    assert await store.unfinished("main") is None


async def test_a_call_begins_once_and_never_without_the_approval_that_it_needs(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="go"))
        await t.append(call("c1"))
        await t.begin("c1")
        with pytest.raises(StoreError, match="begun before"):
            await t.begin("c1")
        await t.append(call("c2"))
        await t.request_approval({"c2": "why"}, usage=USED)
        with pytest.raises(StoreError, match="isn't approved"):
            await t.begin("c2")
        await store.answer("main", "c2", approved=False)
        with pytest.raises(StoreError, match="isn't approved"):
            await t.begin("c2")
        with closing(sqlite3.connect(store.path)) as db, pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE calls SET began_at = 'now' WHERE call_id = 'c2'")
        assert (await t.calls())["c1"] == CallState(began=True)
        await t.finish("answered")


async def test_of_many_answers_at_once_one_counts(store, tmp_path: Path):
    await park(store, "c1")
    counted: list[bool] = []

    async def answer(other: SQLiteStore, approved: bool) -> None:
        try:
            await other.answer("main", "c1", approved=approved)
            counted.append(approved)
        except ConfigError:
            pass

    async with await SQLiteStore.open(tmp_path / "corral.db") as second:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(answer, (store, second)[number % 2], number % 3 == 0)
    assert len(counted) == 1
    async with store.resume("main") as t:
        assert (await t.calls())["c1"].approved is counted[0]
        await t.finish("answered")


async def test_only_one_goes_on_with_a_turn(store):
    await park(store, "c1")
    async with store.resume("main") as t:
        with pytest.raises(SessionBusy):
            async with store.resume("main"):
                pass
        with pytest.raises(SessionBusy):
            async with turn(store):
                pass
        # The answer of somebody else reaches the turn that runs.
        await store.answer("main", "c1", approved=True)
        assert (await t.calls())["c1"].approved
        await t.finish("answered")


async def test_a_turn_that_is_resumed_and_left_can_be_resumed_again(store):
    await park(store, "c1")
    with pytest.raises(ZeroDivisionError):
        async with store.resume("main"):
            _ = 1 / 0
    assert [p.call.id for p in (await store.unfinished("main")).pending] == ["c1"]


@pytest.mark.parametrize("outcome", ["answered", "limit", "failed", "cancelled", "blocked"])
async def test_a_turn_that_ended_is_not_gone_on_with(store, outcome):
    await say(store, "hi", outcome=outcome)
    with pytest.raises(ConfigError, match="no turn to go on with"):
        async with store.resume("main"):
            pass
    with pytest.raises(ConfigError, match="no turn to go on with"):
        async with store.resume("nobody"):
            pass
    with pytest.raises(ConfigError, match="No call waits"):
        await store.answer("main", "c1", approved=True)


async def test_a_turn_whose_input_was_not_judged_or_was_blocked_is_not_gone_on_with(store):
    for judged in (False, True):
        async with store.turn("main", agent="a", model="m", shielded=True) as t:
            await t.append(UserMessage(content="hm"))
            if judged:
                await t.record(check("input", blocked=True))
            await t.finish("waiting")
        with pytest.raises(ConfigError, match="no turn to go on with"):
            async with store.resume("main"):
                pass


@pytest.mark.parametrize(
    ("answer", "began", "read"),
    [
        (None, False, WITHDRAWN),
        (True, False, NOT_BEGUN),
        (False, False, denied("no")),
        (True, True, UNKNOWN),
    ],
)
async def test_the_next_turn_reads_what_became_of_a_call(store, answer, began, read):
    async with turn(store) as t:
        await t.append(UserMessage(content="go"))
        await t.append(call("c1"))
        await t.request_approval({"c1": "why"}, usage=USED)
        if answer is not None:
            await store.answer("main", "c1", approved=answer, reason=None if answer else "no")
        if began:
            await t.begin("c1")
        await t.finish("waiting")
    async with turn(store) as t:
        history = await t.history()
        await t.finish("answered")
    assert history[2] == ToolResult(call_id="c1", name="add", content=read, is_error=True)
    with pytest.raises(ConfigError, match="No call waits"):
        await store.answer("main", "c1", approved=True)


async def test_a_result_counts_whatever_was_asked_before_it(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="go"))
        await t.append(call("c1"))
        await t.begin("c1")
        await t.append(result("c1"))
        await t.finish("answered")
    async with turn(store) as t:
        assert (await t.history())[2] == result("c1")
        await t.finish("answered")


async def test_another_tenant_neither_sees_nor_answers(store, tmp_path: Path):
    await park(store, "c1")
    async with await SQLiteStore.open(tmp_path / "corral.db", tenant="other") as other:
        assert await other.unfinished("main") is None
        with pytest.raises(ConfigError):
            await other.answer("main", "c1", approved=True)
        with pytest.raises(ConfigError):
            async with other.resume("main"):
                pass


async def test_what_was_asked_and_answered_is_in_the_export_and_forgotten_with_the_rest(store):
    await park(store, "c1")
    await store.answer("main", "c1", approved=False, reason="the secret reason")
    lines = [json.loads(line) async for line in store.export("main")]
    (approval,) = [line for line in lines if line["kind"] == "approval"]
    assert (approval["call_id"], approval["approved"]) == ("c1", False)
    assert approval["reason"] == "the secret reason" and approval["began_at"] is None
    assert await store.forget("main")
    files = store.path.parent.glob("corral.db*")
    assert not any(b"secret reason" in file.read_bytes() for file in files)


async def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path):
    path = tmp_path / "old.db"
    steps = Migrations("corral")
    steps(name="0001_sessions_turns_items")(_first)
    with closing(sqlite3.connect(path)) as connection:
        steps.apply(Database(connection, execute_plugins=False))
        for statement in (
            "INSERT INTO sessions (key, agent, created_at, updated_at, next_seq)"
            " VALUES ('main', 'a', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00', 2)",
            "INSERT INTO turns (session_id, key, agent, model, status, started_at)"
            " VALUES (1, 't', 'a', 'm', 'answered', '2026-01-01T00:00:00+00:00')",
            "INSERT INTO items (session_id, turn_id, seq, kind, role, content, created_at)"
            """ VALUES (1, 1, 1, 'message', 'user', '{"role":"user","content":"old"}',"""
            " '2026-01-01T00:00:00+00:00')",
        ):
            connection.execute(statement)
        connection.commit()
    async with await SQLiteStore.open(path) as store:
        assert [item.message for item in await store.items("main")] == [UserMessage(content="old")]
        await park(store, "c1")
        await store.answer("main", "c1", approved=True)
        assert len(await store.items("main")) == 3
