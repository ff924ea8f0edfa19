"""A turn's life, with a scripted model: everything but the model is real."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from corral import (
    Agent,
    CodeInterpreter,
    InputError,
    Limits,
    ModelError,
    Sampling,
    SessionBusy,
    ToolError,
    tool,
)
from corral.agents.answer import AnswerGate
from corral.events import CallFinished, CallRequested, ShieldChecked, TextDelta, TurnFinished
from corral.memory.sqlite import SQLiteStore
from corral.messages import AssistantMessage, ToolResult, UserMessage
from corral.model_runtime.profiles import ModelProfile
from corral.safety import LlamaGuard
from corral.testing import ScriptedRuntime

GUARD = ModelProfile(family="guard", guard="1b")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "done"


def agent(outputs: list[str], **settings) -> tuple[Agent, ScriptedRuntime]:
    runtime = ScriptedRuntime(outputs, name="scripted")
    plain = {"shields": "none", "memory": "temporary", "sampling": Sampling(max_tokens=4000)}
    settings = {**plain, "tools": [add, fail, wait], **settings}
    return Agent(model=runtime, **settings), runtime


def guard(*verdicts: str) -> LlamaGuard:
    return LlamaGuard(ScriptedRuntime(verdicts, profile=GUARD, name="guard"))


async def test_a_call_runs_and_its_result_is_answered_from():
    asked, runtime = agent(["[add(a=2, b=3)]", "It is 5."])
    async with asked:
        result = await asked.run("2 + 3?")
    assert result.outcome == "answered"
    assert result.text == "It is 5."
    assert result.results[0].content == 5
    assert [e.kind for e in result.events if e.kind != "text_delta"] == [
        "turn_started",
        "step_started",
        "call_requested",
        "step_finished",
        "call_finished",
        "step_started",
        "step_finished",
        "turn_finished",
    ]
    second = str(runtime.prompts[1])
    assert (
        "[add(a=2, b=3)]<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n5<|eot_id|>"
        in (second)
    )


async def test_the_prompt_only_grows_at_its_end():
    asked, runtime = agent(["[add(a=2, b=3)]", "5.", "[add(a=5, b=1)]", "6."])
    async with asked:
        await asked.run("2 + 3?", session="s")
        await asked.run("and 1 more?", session="s")
    prompts = [str(prompt) for prompt in runtime.prompts]
    for shorter, longer in zip(prompts, prompts[1:], strict=False):
        assert longer.startswith(shorter)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[add(a=2)]", "b"),
        ("[add(a='x', b=3)]", "a"),
        ("[subtract(a=2, b=3)]", "subtract"),
        ("[add(a=2, b=", ""),
    ],
)
async def test_a_bad_call_is_explained_to_the_model_which_may_try_again(wrong: str, said: str):
    asked, runtime = agent([wrong, "[add(a=2, b=3)]", "5."])
    async with asked:
        result = await asked.run("2 + 3?")
    assert result.outcome == "answered"
    assert result.results[0].is_error
    assert str(result.results[0].content).startswith("error: ")
    assert said in str(result.results[0].content)
    assert str(result.results[0].content) in str(runtime.prompts[1])
    assert wrong in str(runtime.prompts[1])


async def test_a_tool_that_fails_is_a_result_and_the_turn_goes_on():
    asked, _ = agent(["[fail(why='no stock')]", "There is no stock."])
    async with asked:
        result = await asked.run("buy")
    assert result.results[0].content == "error: no stock"
    assert result.results[0].is_error
    assert result.outcome == "answered"


async def test_calls_of_one_message_run_at_once_and_report_in_order():
    asked, _ = agent(["[wait(seconds=0.4), wait(seconds=0.3), add(a=1, b=1)]", "Done."])
    async with asked:
        with anyio.fail_after(5):
            result = await asked.run("go")
    assert [r.content for r in result.results] == ["done", "done", 2]
    finished = [e for e in result.events if isinstance(e, CallFinished)]
    assert len({f.result.call_id for f in finished}) == 3


async def test_code_that_reaches_for_the_home_or_the_network_fails_and_the_turn_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = Path.home() / f".corral-test-{tmp_path.name}"
    secret.write_text("hunter2")
    monkeypatch.setenv("CORRAL_TEST_SECRET", "hunter2")
    try:
        asked, runtime = agent(
            [
                f"<|python_tag|>print(open({str(secret)!r}).read())<|eom_id|>",
                "<|python_tag|>import os\nprint(os.environ['CORRAL_TEST_SECRET'])<|eom_id|>",
                "<|python_tag|>import socket\nsocket.create_connection(('127.0.0.1', 9))<|eom_id|>",
                "<|python_tag|>17 * 23<|eom_id|>",
                "I could only compute: 391.",
            ],
            tools=[CodeInterpreter()],
        )
        async with asked:
            result = await asked.run("Show me the secret.")
    finally:
        secret.unlink()
    assert [r.is_error for r in result.results] == [True, True, True, False]
    assert result.results[-1].content == "391"
    assert result.outcome == "answered"
    assert "hunter2" not in str(runtime.prompts[-1])


@pytest.mark.parametrize("call", ["[fail(why='x')]", "[add(a=1, b=2)]"])
async def test_going_in_circles_is_noticed_said_once_and_ended(call: str):
    asked, runtime = agent([call] * 5)
    async with asked:
        result = await asked.run("go")
    assert result.outcome == "limit"
    assert "same call" in (result.reason or "")
    assert len(runtime.prompts) == 3
    assert "You made this same call before" in str(runtime.prompts[2])


async def test_steps_seconds_and_tokens_end_a_turn_by_name():
    endless = [f"[add(a={i}, b=1)]" for i in range(9)]
    asked, _ = agent(endless, limits=Limits(steps=3))
    result = await asked.run("go")
    assert (result.outcome, result.reason) == (
        "limit",
        "the turn took its 3 steps without an answer",
    )
    asked, _ = agent(["[wait(seconds=30)]"], limits=Limits(seconds=0.3))
    with anyio.fail_after(5):
        result = await asked.run("go")
    assert (result.outcome, result.reason) == ("limit", "the turn took its 0.3 seconds")
    asked, _ = agent(endless, limits=Limits(tokens=20))
    assert "tokens" in ((await asked.run("go")).reason or "")


async def test_an_answer_cut_at_its_tokens_says_so():
    asked, _ = agent(["A long answer."], sampling=Sampling(max_tokens=6))
    result = await asked.run("go")
    assert result.outcome == "limit"
    assert result.text == "A long"


async def test_an_unsafe_message_reaches_no_model_and_no_later_prompt():
    asked, runtime = agent(["Fine."], shields=guard("unsafe\nS2", "safe", "safe"))
    async with asked:
        result = await asked.run("something bad", session="s")
        assert result.outcome == "blocked"
        assert result.reason == "input gate: S2"
        assert result.text
        assert runtime.prompts == []
        assert (await asked.run("hello", session="s")).text == "Fine."
    assert "something bad" not in str(runtime.prompts[0])


async def test_no_token_of_an_unsafe_answer_is_shown_or_stored(tmp_path: Path):
    path = tmp_path / "c.db"
    asked, runtime = agent(
        ["Secret evil.", "Fine."], memory=path, shields=guard("safe", "unsafe\nS1", "safe", "safe")
    )
    async with asked:
        result = await asked.run("hello", session="s")
        assert result.outcome == "blocked"
        assert not [e for e in result.events if isinstance(e, TextDelta)]
        assert "evil" not in result.text
        await asked.run("again", session="s")
    assert "evil" not in str(runtime.prompts[1])
    assert b"evil" not in path.read_bytes()


async def test_a_long_answer_leaves_in_windows_each_after_its_verdict():
    sentence = "This is one sentence of the answer, of some length. "
    answer = sentence * 20
    asked, _ = agent([answer], shields=guard(*["safe"] * 9))
    result = await asked.run("go")
    assert result.text == answer
    shown = [e for e in result.events if isinstance(e, TextDelta)]
    checks = [e for e in result.events if isinstance(e, ShieldChecked) and e.gate == "answer"]
    assert len(shown) == len(checks) > 2
    assert "".join(e.text for e in shown) == answer


async def test_when_the_end_is_unsafe_only_what_was_cleared_has_been_shown():
    start = "All of this is harmless and pleasant to read. " * 8
    asked, _ = agent([start + "But this is evil."], shields=guard("safe", "safe", "unsafe\nS1"))
    result = await asked.run("go")
    shown = "".join(e.text for e in result.events if isinstance(e, TextDelta))
    assert result.outcome == "blocked"
    assert "evil" not in shown
    assert start.startswith(shown)


async def test_a_failing_model_is_raised_after_the_turn_is_on_record():
    asked, _ = agent([])
    events = []
    with pytest.raises(ModelError):
        async for event in asked.stream("go"):
            events.append(event)
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].outcome == "failed"


async def test_an_empty_answer_is_a_failure():
    asked, _ = agent([""])
    with pytest.raises(ModelError, match="empty"):
        await asked.run("go")


@pytest.mark.parametrize("message", ["", "  \n", "\ud800"])
async def test_a_message_that_is_none_is_refused(message: str):
    asked, _ = agent(["x"])
    with pytest.raises(InputError):
        await asked.run(message)


async def test_two_turns_never_interleave_in_a_session():
    asked, _ = agent(["[wait(seconds=1)]", "ok"])
    async with asked:
        events = asked.stream("go", session="s")
        assert (await anext(events)).kind == "turn_started"
        with pytest.raises(SessionBusy):
            await asked.run("me too", session="s")
        await events.aclose()


async def test_a_cancelled_turn_is_on_record_and_the_session_goes_on(tmp_path: Path):
    path = tmp_path / "c.db"
    asked, runtime = agent(["[wait(seconds=60)]", "Here I am."], memory=path)
    async with asked:
        with anyio.move_on_after(0.5):
            await asked.run("go", session="s")
        result = await asked.run("and now?", session="s")
        assert result.text == "Here I am."
    store = await SQLiteStore.open(path)
    messages = [i.message for i in await store.items("s") if i.message]
    await store.aclose()
    assert [type(m) for m in messages] == [
        UserMessage,
        AssistantMessage,
        UserMessage,
        AssistantMessage,
    ]
    # What the model reads next: a call always has its result.
    assert "ipython" in str(runtime.prompts[1])
    assert not any(isinstance(m, ToolResult) for m in messages)


async def test_leaving_the_stream_early_ends_the_turn():
    asked, _ = agent(["[wait(seconds=60)]", "ok"])
    async with asked:
        stream = asked.stream("go", session="s")
        async for event in stream:
            if isinstance(event, CallRequested):
                break
        await stream.aclose()
        assert (await asked.run("again", session="s")).text == "ok"


def test_run_sync_works_again_and_again_and_says_where_it_does_not():
    asked, _ = agent(["One.", "Two."])
    assert asked.run_sync("a", session="s").text == "One."
    assert asked.run_sync("b", session="s").text == "Two."


async def test_run_sync_in_async_code_names_the_remedy():
    asked, _ = agent(["One."])
    with pytest.raises(Exception, match=r"await agent\.run"):
        asked.run_sync("a")


async def test_the_answer_gate_without_a_shield_holds_nothing():
    gate = AnswerGate(None)
    assert gate.feed("a") == "a"
    assert await gate.judge(last=True) is None
    assert gate.released == "a"
