"""The conversation store, on real SQLite files."""

from __future__ import annotations

import asyncio  # noqa: TID251  (users who cancel the asyncio way)
import base64
import dataclasses
import gc
import json
import subprocess
import weakref
from contextlib import closing
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_helpers import call, check, outcomes, result, say, turn, turns
from sqlite_utils.utils import sqlite3

from corral.errors import ConfigError, SessionBusy, StoreError
from corral.events import ShieldChecked, Usage, Verdict
from corral.memory import INTERRUPTED, SQLiteStore, repair
from corral.memory._lease import Keeper, Owner, is_gone
from corral.messages import (
    AssistantMessage,
    ImagePart,
    InvalidCall,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolResult,
    UserMessage,
)


@pytest.fixture
async def store(tmp_path):
    async with await SQLiteStore.open(tmp_path / "corral.db") as opened:
        yield opened


# What is said comes back


async def test_a_conversation_is_there_after_reopening(tmp_path):
    path = tmp_path / "corral.db"
    said = [UserMessage(content="one"), call("c1"), result("c1"), AssistantMessage(text="two")]
    async with await SQLiteStore.open(path) as store, turn(store) as t:
        for message in said:
            await t.append(message)
        await t.finish("answered")
    async with await SQLiteStore.open(path) as store, turn(store) as t:
        await t.append(UserMessage(content="three"))
        assert await t.history() == [*said, UserMessage(content="three")]
        await t.finish("answered")


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(content="nul \0, lone surrogate \ud800, emoji 🦙, newline\n"),
        UserMessage(
            content=(
                TextPart(text="look"),
                ImagePart(media_type="image/png", data=base64.b64encode(bytes(range(256)))),
            )
        ),
        AssistantMessage(
            text="x",
            calls=(ToolCall(id="a", name="f", arguments={"deep": [1, None, {"x": 10**30}]}),),
            stop_reason="end_of_message",
            warnings=("w",),
        ),
        AssistantMessage(invalid=InvalidCall(id="b", raw="[f(", code="syntax", message="cut off")),
    ],
    ids=["odd text", "image", "calls", "unreadable call"],
)
async def test_every_message_comes_back_unchanged(store, message):
    async with turn(store) as t:
        await t.append(message)
        await t.finish("answered")
    assert (await store.items("main"))[0].message == message


async def test_a_verdict_is_in_the_log_and_never_in_the_history(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="hello"))
        await t.record(check("input", blocked=False))
        assert await t.history() == [UserMessage(content="hello")]
        await t.finish("answered")
    first, second = await store.items("main")
    assert (first.kind, first.seq, first.verdict) == ("message", 1, None)
    assert (second.kind, second.seq, second.message) == ("verdict", 2, None)
    assert second.verdict == check("input", blocked=False)
    assert first.turn_id == second.turn_id and not first.hidden


async def test_a_system_message_is_refused(store):
    async with turn(store) as t:
        with pytest.raises(ValueError, match="SystemMessage"):
            await t.append(SystemMessage(text="be kind"))
        await t.finish("answered")
    assert await store.items("main") == []


async def test_sessions_are_listed_with_the_last_used_first(store):
    await say(store, "the first\n\tline \x1b[31m" + "and more " * 20, session="one")
    await say(store, "hello", session="two")
    await say(store, "again", session="one")
    one, two = await store.sessions()
    assert (one.key, one.agent, one.turns, one.items) == ("one", "herder", 2, 4)
    assert one.title.startswith("the first line [31mand more and") and len(one.title) <= 80
    assert one.title.endswith("…") and one.title.isprintable()
    assert (two.key, two.title, two.turns, two.items) == ("two", "hello", 1, 2)
    assert one.created_at < two.created_at < one.updated_at <= datetime.now(UTC)


async def test_usage_and_reason_are_in_the_export(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="hi"))
        await t.record(check("answer", blocked=False))
        used = Usage(prompt_tokens=9, cached_tokens=4, output_tokens=2)
        await t.finish("limit", reason="steps", usage=used)
    lines = [json.loads(line) async for line in store.export("main")]
    assert [line["kind"] for line in lines] == ["session", "turn", "message", "verdict"]
    assert lines[1]["status"] == "limit" and lines[1]["reason"] == "steps"
    assert (lines[1]["prompt_tokens"], lines[1]["output_tokens"]) == (9, 2)
    assert lines[1]["model"] == "cria" and lines[1]["hidden"] is False
    assert lines[2]["message"] == {"role": "user", "content": "hi"}
    assert [line async for line in store.export("unknown")] == []


async def test_an_unknown_session_has_no_items(store):
    assert await store.items("nobody") == [] and await store.sessions() == []


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\0", "\x1b[31m", "a\u2028b", "\ud800"])
async def test_a_key_that_cannot_be_shown_is_refused(store, key):
    with pytest.raises(ConfigError, match="key"):
        async with turn(store, key):
            pass
    with pytest.raises(ConfigError):
        await store.items(key)
    with pytest.raises(ConfigError):
        await store.forget(key)


@pytest.mark.parametrize("key", [" ", "x" * 200, "../etc", "'; DROP TABLE items; --", "日本 🦙"])
async def test_any_other_key_is_a_session_of_its_own(store, key):
    await say(store, "hi", session=key)
    assert [info.key for info in await store.sessions()] == [key]
    assert len(await store.items(key)) == 2


# Turns


@pytest.mark.parametrize("outcome", ["answered", "limit", "failed", "cancelled"])
async def test_a_turn_that_no_shield_stopped_is_remembered(store, outcome):
    await say(store, "one", outcome=outcome)
    async with turn(store) as t:
        assert [m.text for m in await t.history()] == ["one", "answer to one"]
        await t.finish("answered")


async def test_a_blocked_turn_is_hidden_from_the_model_and_kept_in_the_log(store):
    await say(store, "before")
    await say(store, "how to build a bomb", outcome="blocked")
    async with turn(store) as t:
        await t.append(UserMessage(content="after"))
        assert [m.text for m in await t.history()] == ["before", "answer to before", "after"]
        await t.finish("answered")
    items = await store.items("main")
    assert [item.hidden for item in items] == [False, False, True, True, False]


async def test_a_running_turn_sees_its_own_message_even_after_a_verdict_against_it(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="bad"))
        await t.record(check("input", blocked=True))
        assert await t.history() == [UserMessage(content="bad")]
        await t.finish("blocked")


@pytest.mark.parametrize("gate", ["input", "answer"])
async def test_what_a_shield_stopped_stays_hidden_when_the_turn_then_fails(store, gate):
    with pytest.raises(RuntimeError):
        async with turn(store) as t:
            await t.append(UserMessage(content="bad"))
            await t.record(check(gate, blocked=True))
            raise RuntimeError("before finish")
    async with turn(store) as t:
        assert await t.history() == []
        await t.finish("answered")
    assert all(item.hidden for item in await store.items("main"))


async def test_a_blocked_call_does_not_hide_a_turn_that_was_answered(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="go"))
        await t.record(check("call", blocked=True))
        await t.finish("answered")
    async with turn(store) as t:
        assert await t.history() == [UserMessage(content="go")]
        await t.finish("answered")


async def test_two_turns_never_share_a_session(store):
    async with turn(store) as t:
        with pytest.raises(SessionBusy, match="'main'.*'herder'"):
            async with turn(store):
                pass
        await say(store, "meanwhile", session="other")
        await t.finish("answered")
    await say(store, "then")
    assert await outcomes(store) == ["answered", "answered"]


async def test_a_turn_can_wait_for_the_one_before_it(store):
    order = []

    async def first(ready):
        async with turn(store) as t:
            ready.set()
            await anyio.sleep(0.1)
            order.append("first")
            await t.finish("answered")

    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        tasks.start_soon(first, ready)
        await ready.wait()
        async with turn(store, wait=5) as t:
            order.append("second")
            await t.finish("answered")
    assert order == ["first", "second"]


async def test_waiting_ends_after_the_time_that_was_given(store):
    async with turn(store) as t:
        before = anyio.current_time()
        with pytest.raises(SessionBusy):
            async with turn(store, wait=0.15):
                pass
        assert 0.15 <= anyio.current_time() - before < 2
        await t.finish("answered")


async def test_a_cancelled_turn_is_recorded_with_what_it_had(store):
    with anyio.move_on_after(0.05):
        async with turn(store) as t:
            await t.append(UserMessage(content="hi"))
            await t.append(call("c1"))
            await anyio.sleep(30)
    assert await outcomes(store) == ["cancelled"]
    async with turn(store) as t:
        history = await t.history()
        await t.finish("answered")
    assert history[:2] == [UserMessage(content="hi"), call("c1")]
    assert history[2] == ToolResult(call_id="c1", name="add", content=INTERRUPTED, is_error=True)


async def test_what_happened_before_a_cancellation_is_stored_during_it(store):
    with anyio.CancelScope() as scope:
        async with turn(store) as t:
            await t.append(UserMessage(content="hi"))
            scope.cancel()
            await t.append(AssistantMessage(text="half an ans", stop_reason="cancelled"))
            await t.finish("cancelled", reason="asked to")
            await anyio.sleep(30)
    assert await outcomes(store) == ["cancelled"]
    assert len(await store.items("main")) == 2


async def test_cancelling_the_asyncio_way_is_recorded_too(store):
    async def work():
        async with turn(store) as t:
            await t.append(UserMessage(content="hi"))
            await asyncio.sleep(30)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.1)
    assert await outcomes(store) == ["cancelled"]
    await say(store, "next")


async def test_cancelling_at_any_moment_leaves_no_session_busy(store):
    for moment in range(40):
        with anyio.move_on_after(moment * 0.0002):
            async with turn(store) as t:
                await t.append(UserMessage(content="hi"))
                await t.history()
                await t.finish("answered")
    for moment in range(40):
        task = asyncio.ensure_future(say(store, "x"))
        await asyncio.sleep(moment * 0.0002)
        task.cancel()
        await asyncio.wait([task])
    await say(store, "free", session="main")
    assert "running" not in await outcomes(store)


async def test_an_error_in_a_turn_is_recorded_and_raised_as_it_was(store):
    with pytest.raises(ZeroDivisionError):
        async with turn(store) as t:
            await t.append(UserMessage(content="hi"))
            _ = 1 / 0
    (ended,) = await turns(store)
    assert ended["status"] == "failed" and ended["reason"] == "ZeroDivisionError: division by zero"


async def test_a_turn_that_is_left_without_an_outcome_failed(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="hi"))
    assert await outcomes(store) == ["failed"]


async def stream(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="hi"))
        for number in range(5):
            yield number
        await t.finish("answered")


async def test_a_caller_who_stops_listening_early_leaves_the_session_free(store):
    async for _ in stream(store):
        break
    gc.collect()
    await say(store, "next", wait=5)
    with anyio.fail_after(5):
        events = stream(store)
        await anext(events)
    # A turn that held a cancel scope open here could not be closed outside of the timeout.
    await events.aclose()
    assert await outcomes(store) == ["cancelled", "answered", "cancelled"]


async def test_a_finished_turn_takes_nothing_more(store):
    async with turn(store) as t:
        await t.finish("answered")
        for late in (
            t.append(UserMessage(content="late")),
            t.record(check("input", blocked=False)),
            t.finish("failed"),
            t.history(),
        ):
            with pytest.raises(StoreError, match="over"):
                await late
        # The session is free from `finish` on.
        await say(store, "next")
    assert await outcomes(store) == ["answered", "answered"]


async def test_a_turn_that_stood_still_for_too_long_loses_its_session(tmp_path):
    path = tmp_path / "corral.db"
    async with await SQLiteStore.open(path) as slow, await SQLiteStore.open(path) as quick:
        async with turn(slow) as lost:
            await lost.append(UserMessage(content="slow"))
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE turns SET lease_until = '2020-01-01T00:00:00.000000+00:00'")
            async with turn(quick) as t:
                await t.append(UserMessage(content="quick"))
                with pytest.raises(StoreError, match="no longer holds"):
                    await lost.append(AssistantMessage(text="too late"))
                with pytest.raises(StoreError, match="no longer holds"):
                    await lost.finish("answered")
                assert [m.text for m in await t.history()] == ["slow", "quick"]
                await t.finish("answered")
        assert await outcomes(quick) == ["interrupted", "answered"]


async def test_a_lease_is_renewed_while_its_turn_runs_and_not_after(store):
    def until() -> str | None:
        with closing(sqlite3.connect(store.path)) as db:
            return db.execute("SELECT lease_until FROM turns").fetchone()[0]

    renewed = []

    def renew(held):
        renewed.append(len(held))
        store._renew(held)

    store._keeper = Keeper(renew, every=0.02)
    async with turn(store) as t:
        first = until()
        with anyio.fail_after(5):
            while until() == first:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        await t.finish("answered")
    thread = store._keeper._thread
    if thread is not None:
        await anyio.to_thread.run_sync(thread.join, 5)
    assert store._keeper._thread is None and set(renewed) == {1} and until() is None


async def test_a_turn_that_nobody_refers_to_is_not_kept_alive():
    class Held:
        pass

    held, calls = Held(), []
    gone = weakref.ref(held)
    keeper = Keeper(lambda turns: calls.append(len(list(turns))), every=0.02)
    keeper.hold(held)
    with anyio.fail_after(5):
        while not calls:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        del held
        while keeper._thread is not None:
            gc.collect()
            await anyio.sleep(0.01)
    assert gone() is None


def test_an_owner_is_dead_when_its_process_is_or_its_lease_ran_out():
    later = datetime.now(UTC) + timedelta(seconds=30)
    me = Owner.this_process()
    assert Owner.from_json(me.to_json()) == me
    assert not is_gone(me, later)
    assert is_gone(me, datetime.now(UTC))
    assert is_gone(dataclasses.replace(me, started="1"), later), "a process id that was reused"
    assert not is_gone(dataclasses.replace(me, place="elsewhere", pid=1 << 22), later)
    assert is_gone(None, later) and Owner.from_json("{}") is None and Owner.from_json(None) is None
    with subprocess.Popen(["sleep", "60"]) as process:
        other = dataclasses.replace(me, pid=process.pid, started="")
        assert not is_gone(other, later)
        process.kill()
    assert is_gone(other, later)


# Any conversation

texts = st.text(max_size=8)
ids = st.sampled_from("abcd")
messages = st.one_of(
    st.builds(UserMessage, content=texts),
    st.builds(
        AssistantMessage,
        text=texts,
        calls=st.lists(
            st.builds(ToolCall, id=ids, name=st.just("f"), arguments=st.just({})),
            max_size=3,
            unique_by=lambda call: call.id,
        ).map(tuple),
        invalid=st.none()
        | st.builds(InvalidCall, id=st.just("e"), raw=texts, code=st.just("syntax"), message=texts),
    ),
    st.builds(ToolResult, call_id=ids | st.just("e"), name=st.just("f"), content=texts),
)
conversations = st.lists(messages, max_size=12)
outcome = st.sampled_from(["answered", "blocked", "limit", "failed", "cancelled"])


def assert_whole(whole: list[Message]) -> None:
    """A conversation begins with a user, and each call has its result in its place."""
    assert not whole or isinstance(whole[0], UserMessage)
    rest = iter(whole)
    for message in rest:
        assert not isinstance(message, ToolResult), "a result without its call"
        if isinstance(message, AssistantMessage):
            for call_id in message.call_ids:
                answer = next(rest, None)
                assert isinstance(answer, ToolResult) and answer.call_id == call_id


@given(conversations)
def test_repair_makes_any_log_whole(log):
    whole = repair(log)
    assert_whole(whole)
    assert repair(whole) == whole
    users = [m for m in log if isinstance(m, UserMessage)]
    assert [m for m in whole if isinstance(m, UserMessage)] == users
    answers = [m for m in whole if isinstance(m, ToolResult) and m.content != INTERRUPTED]
    assert all(answer in log for answer in answers)


@given(conversations, conversations)
def test_repair_never_changes_what_the_model_has_seen(log, more):
    seen = repair(log)
    if seen == [m for m in seen if not isinstance(m, ToolResult) or m.content != INTERRUPTED]:
        assert repair([*log, UserMessage(content="next"), *more])[: len(seen)] == seen


def test_the_first_of_several_results_counts_and_results_stand_in_call_order():
    asked = AssistantMessage(calls=(*call("a").calls, *call("b").calls))
    log = [UserMessage(content="x"), asked, result("b"), result("z"), result("a"), result("b", "!")]
    assert repair(log) == [log[0], asked, result("a"), result("b")]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(conversations, outcome, st.booleans()), max_size=5))
def test_the_history_is_what_the_turns_said(script):
    async def play():
        visible: list[Message] = []
        number = 0
        async with await SQLiteStore.open(None) as store:
            for said, end, stopped in script:
                async with turn(store) as t:
                    for message in said:
                        await t.append(message)
                    number += len(said)
                    if stopped:
                        await t.record(check("answer", blocked=True))
                        number += 1
                    history = await t.history()
                    assert_whole(history)
                    assert history == repair([*visible, *said])
                    await t.finish(end)
                if end in ("answered", "limit") or (end != "blocked" and not stopped):
                    visible += said
            items = await store.items("main")
            assert [item.seq for item in items] == list(range(1, number + 1))

    anyio.run(play)


async def test_a_turn_that_ends_before_its_input_was_judged_is_not_shown_to_the_model(
    store: SQLiteStore,
) -> None:
    safe = ShieldChecked(
        gate="input", shield="g", verdict=Verdict(safe=True), blocked=False, seconds=0
    )
    async with store.turn("s", agent="a", model="m", shielded=True) as turn:
        await turn.append(UserMessage(content="never judged"))
        await turn.finish("cancelled")
    async with store.turn("s", agent="a", model="m", shielded=True) as turn:
        await turn.append(UserMessage(content="judged"))
        await turn.record(safe)
        await turn.finish("cancelled")
    async with store.turn("s", agent="a", model="m", shielded=True) as turn:
        assert await turn.history() == [UserMessage(content="judged")]
        await turn.finish("cancelled")
