"""Approval: what a person is asked, what runs on a yes, and what survives the end of a process."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from corral import Agent, ConfigError, Limits, Sampling, SessionBusy, tool
from corral.events import (
    ApprovalAnswered,
    ApprovalRequested,
    CallFinished,
    Event,
    TurnFinished,
    TurnStarted,
)
from corral.memory import NOT_BEGUN, UNKNOWN, WITHDRAWN
from corral.testing import ScriptedRuntime

DELETE = "[delete(name='a.txt')]"


class Desk:
    """An agent whose tools note what they did, and whose model says what it is told to."""

    def __init__(self, outputs: list[str], **settings: object) -> None:
        self.done: list[str] = []

        @tool(needs_approval=True)
        def delete(name: str) -> str:
            """Delete a file."""
            self.done.append(name)
            return f"deleted {name}"

        @tool(needs_approval=lambda arguments: arguments["amount"] > 100 and "it is a lot")
        def pay(amount: int) -> str:
            """Pay."""
            self.done.append(str(amount))
            return "paid"

        @tool
        def look(at: str) -> str:
            """Look."""
            self.done.append(f"looked at {at}")
            return "seen"

        self.runtime = ScriptedRuntime(outputs)
        plain = {"shields": "none", "memory": "temporary", "sampling": Sampling(max_tokens=4000)}
        self.agent = Agent(model=self.runtime, tools=[delete, pay, look], **{**plain, **settings})


async def kinds(stream: AsyncIterator[Event]) -> list[str]:
    return [event.kind async for event in stream if event.kind != "text_delta"]


# In one process


async def test_a_call_runs_once_it_is_approved_while_the_stream_waits():
    desk = Desk([DELETE, "Gone."])
    events: list[Event] = []
    async with desk.agent as agent:
        async for event in agent.stream("delete it", session="s"):
            events.append(event)
            if isinstance(event, ApprovalRequested):
                assert (event.session, event.call.arguments) == ("s", {"name": "a.txt"})
                assert event.why
                assert desk.done == []
                assert [p.call.id for p in await agent.pending("s")] == [event.call.id]
                await agent.approve("s", event.call.id)
                assert await agent.pending("s") == []
    assert desk.done == ["a.txt"]
    assert [e.kind for e in events if e.kind != "text_delta"] == [
        "turn_started",
        "step_started",
        "call_requested",
        "step_finished",
        "approval_requested",
        "approval_answered",
        "call_finished",
        "step_started",
        "step_finished",
        "turn_finished",
    ]


async def test_another_task_may_answer_while_the_stream_waits():
    desk = Desk([DELETE, "Gone."])
    async with desk.agent as agent:

        async def answer() -> None:
            while not (waiting := await agent.pending("s")):  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await agent.approve("s", waiting[0].call.id)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer)
                assert "turn_finished" in await kinds(agent.stream("delete it", session="s"))
    assert desk.done == ["a.txt"]


async def test_a_denied_call_does_not_run_and_the_model_reads_why():
    desk = Desk([DELETE, "As you wish."])
    async with desk.agent as agent:
        async for event in agent.stream("delete it", session="s"):
            if isinstance(event, ApprovalRequested):
                await agent.deny("s", event.call.id, "it is my only copy")
            if isinstance(event, ApprovalAnswered):
                assert (event.approved, event.reason) == (False, "it is my only copy")
            if isinstance(event, CallFinished):
                assert event.result.is_error
    assert desk.done == []
    assert "it is my only copy" in str(desk.runtime.prompts[1])
    assert "did not run" in str(desk.runtime.prompts[1])


async def test_nobody_is_asked_twice_about_the_same_call():
    asked: list[str] = []

    async def approve(request: ApprovalRequested) -> bool | str:
        asked.append(str(request.call.arguments["name"]))
        return "no"

    desk = Desk([DELETE, DELETE, "[delete(name='b.txt')]", "Well."], approve=approve)
    result = await desk.agent.run("delete it")
    assert (result.outcome, asked, desk.done) == ("answered", ["a.txt", "b.txt"], [])


@pytest.mark.parametrize(
    ("said", "ran", "read"),
    [
        (True, ["a.txt"], "deleted a.txt"),
        (False, [], "was not allowed"),
        ("not today", [], "not today"),
        (1, [], "was not allowed"),
    ],
)
async def test_a_callback_answers(said: object, ran: list[str], read: str):
    asked: list[ApprovalRequested] = []

    async def approve(request: ApprovalRequested) -> bool | str:
        asked.append(request)
        return said  # type: ignore[return-value]

    desk = Desk([DELETE, "Done."], approve=approve)
    result = await desk.agent.run("delete it")
    assert result.outcome == "answered"
    assert desk.done == ran
    assert read in str(desk.runtime.prompts[1])
    assert [request.call.name for request in asked] == ["delete"]


async def test_a_callback_that_fails_is_a_no_that_says_so():
    async def approve(request: ApprovalRequested) -> bool:
        raise OSError("the pager is off")

    desk = Desk([DELETE, "Done."], approve=approve)
    result = await desk.agent.run("delete it")
    assert desk.done == []
    assert "the pager is off" in str(result.results[0].content)


async def test_somebody_elses_answer_comes_before_a_callback_that_takes_its_time():
    async def approve(request: ApprovalRequested) -> bool:
        await desk.agent.deny(request.session, request.call.id, "too late")
        await anyio.sleep_forever()
        return True

    desk = Desk([DELETE, "Done."], approve=approve)
    with anyio.fail_after(30):
        result = await desk.agent.run("delete it")
    assert desk.done == []
    assert "too late" in str(result.results[0].content)


async def test_only_the_calls_that_a_predicate_names_are_asked_about():
    desk = Desk(["[pay(amount=5), pay(amount=500)]", "Paid."])
    requests: list[ApprovalRequested] = []
    async with desk.agent as agent:
        async for event in agent.stream("pay", session="s"):
            if isinstance(event, ApprovalRequested):
                requests.append(event)
                # Whoever is asked decides before anything of the message has happened.
                assert desk.done == []
                await agent.approve("s", event.call.id)
    assert [(r.call.arguments, r.why) for r in requests] == [({"amount": 500}, "it is a lot")]
    assert sorted(desk.done) == ["5", "500"]  # they ran together


async def test_a_predicate_that_fails_asks():
    @tool(needs_approval=lambda arguments: arguments["nothing"])
    def act() -> str:
        """Act."""
        return "done"

    agent = Agent(
        model=ScriptedRuntime(["[act()]"]), tools=[act], shields="none", memory="temporary"
    )
    result = await agent.run("go")
    assert result.outcome == "waiting"
    assert "KeyError" in result.pending[0].why


async def test_results_stand_in_the_order_of_the_calls():
    desk = Desk(["[delete(name='a'), look(at='b'), delete(name='c')]", "Done."])
    results: list[str] = []
    async with desk.agent as agent:
        async for event in agent.stream("go", session="s"):
            if isinstance(event, ApprovalRequested):
                answer = agent.approve if event.call.arguments["name"] == "c" else agent.deny
                await answer("s", event.call.id)
            if isinstance(event, CallFinished):
                results.append(str(event.result.content)[:12])
    assert results == ["error: this ", "seen", "deleted c"]


async def test_nobody_is_asked_about_a_call_that_could_not_run():
    @tool(needs_approval=True)
    def at(when: datetime.date) -> str:
        """Do."""
        return str(when)

    agent = Agent(
        model=ScriptedRuntime(["[at(when='never')]", "No."]),
        tools=[at],
        shields="none",
        memory="temporary",
    )
    result = await agent.run("go")
    assert result.outcome == "answered"
    assert "date" in str(result.results[0].content)


async def test_the_turns_seconds_stand_still_while_somebody_decides():
    desk = Desk([DELETE, "Gone."], limits=Limits(seconds=2))
    async with desk.agent as agent:
        async for event in agent.stream("delete it", session="s"):
            if isinstance(event, ApprovalRequested):
                await anyio.sleep(2.5)
                await agent.approve("s", event.call.id)
            if isinstance(event, TurnFinished):
                assert event.outcome == "answered", event.reason
                assert event.seconds < 2
    assert desk.done == ["a.txt"]


async def test_an_answer_cannot_be_given_twice_or_for_a_call_that_does_not_wait():
    desk = Desk([DELETE, "Gone."])
    async with desk.agent as agent:
        with pytest.raises(ConfigError, match="No call waits"):
            await agent.approve("s", "call_1")
        waiting = (await agent.run("delete it", session="s")).pending[0].call.id
        with pytest.raises(ConfigError, match=f"'call_1'.*{waiting}"):
            await agent.approve("s", "call_1")
        await agent.approve("s", waiting)
        with pytest.raises(ConfigError, match="was approved before"):
            await agent.deny("s", waiting)
        with pytest.raises(ConfigError, match="was approved before"):
            await agent.approve("s", waiting)
        assert (await agent.run_resumed("s")).text == "Gone."
        with pytest.raises(ConfigError, match="No call waits"):
            await agent.approve("s", waiting)
        with pytest.raises(ConfigError, match="no turn to go on with"):
            await agent.run_resumed("s")
    assert desk.done == ["a.txt"]


# Without waiting


async def test_run_ends_as_waiting_and_goes_on_from_there():
    desk = Desk([DELETE, "Gone."])
    async with desk.agent as agent:
        result = await agent.run("delete it", session="s")
        assert (result.outcome, desk.done) == ("waiting", [])
        assert [request.call.name for request in result.pending] == ["delete"]
        await agent.approve("s", result.pending[0].call.id)
        rest = await agent.run_resumed("s")
    assert (rest.outcome, rest.text, desk.done) == ("answered", "Gone.", ["a.txt"])
    assert [e.kind for e in rest.events if e.kind != "text_delta"] == [
        "turn_started",
        "approval_answered",
        "call_finished",
        "step_started",
        "step_finished",
        "turn_finished",
    ]
    started = [e for r in (result, rest) for e in r.events if isinstance(e, TurnStarted)]
    assert started[0].turn_id == started[1].turn_id
    assert [e.resumed for e in started] == [False, True]
    assert rest.usage.output_tokens > result.usage.output_tokens > 0


def test_run_sync_ends_as_waiting_too():
    desk = Desk([DELETE])
    assert desk.agent.run_sync("delete it").outcome == "waiting"


async def test_a_resumed_turn_asks_again_for_what_is_not_answered():
    desk = Desk(["[delete(name='a'), delete(name='b')]", "Done."])
    async with desk.agent as agent:
        first, second = (await agent.run("go", session="s")).pending
        await agent.approve("s", first.call.id)
        again = await agent.run_resumed("s")
        assert (again.outcome, desk.done) == ("waiting", [])
        assert [p.call.id for p in again.pending] == [second.call.id]
        await agent.deny("s", second.call.id)
        assert (await agent.run_resumed("s")).outcome == "answered"
    assert desk.done == ["a"]


async def test_leaving_the_stream_while_a_call_waits_leaves_it_waiting():
    desk = Desk([DELETE, "Gone."])
    async with desk.agent as agent:
        async with aclosing(agent.stream("delete it", session="s")) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    break
        with anyio.move_on_after(0.3):
            await kinds(agent.resume("s"))
        (waiting,) = await agent.pending("s")
        await agent.approve("s", waiting.call.id)
        async with aclosing(agent.resume("s")) as stream:
            assert (await anext(stream)).kind == "turn_started"
            with pytest.raises(SessionBusy):
                await kinds(agent.resume("s"))
        assert (await agent.run_resumed("s")).outcome == "answered"
    assert desk.done == ["a.txt"]


@pytest.mark.parametrize(
    ("answer", "read"), [(None, WITHDRAWN), (True, NOT_BEGUN), (False, "was not allowed")]
)
async def test_a_new_message_withdraws_what_waits(answer: bool | None, read: str):
    desk = Desk([DELETE, "Something else."])
    async with desk.agent as agent:
        waiting = (await agent.run("delete it", session="s")).pending[0]
        if answer is not None:
            await (agent.approve if answer else agent.deny)("s", waiting.call.id)
        assert (await agent.run("never mind", session="s")).text == "Something else."
        with pytest.raises(ConfigError, match="withdrawn"):
            await agent.approve("s", waiting.call.id)
        with pytest.raises(ConfigError, match="no turn to go on with"):
            await agent.run_resumed("s")
        assert await agent.pending("s") == []
    assert desk.done == []
    assert read in str(desk.runtime.prompts[1])


# In several processes

PROGRAM = """
import sys
from pathlib import Path
import anyio
from corral import Agent, Sampling, tool
from corral.testing import ScriptedRuntime

folder = Path(sys.argv[1])

def note(text):
    with (folder / "done").open("a") as file:
        file.write(text + "\\n")

@tool(needs_approval=True)
def delete(name: str) -> str:
    '''Delete a file.'''
    note(f"began {name}")
    if name == "slow.txt":
        import time
        time.sleep(60)
    return f"deleted {name}"

@tool
def look(at: str) -> str:
    '''Look.'''
    note(f"looked {at}")
    if at == "long":
        import time
        time.sleep(60)
    return "seen"

def agent(outputs):
    return Agent(model=ScriptedRuntime(outputs), tools=[delete, look], shields="none",
                 memory=folder / "c.db", sampling=Sampling(max_tokens=4000))

async def follow(stream):
    async for event in stream:
        if event.kind != "text_delta":
            print(event.kind, flush=True)

async def main():
    outputs = sys.argv[3:]
    async with agent(outputs) as one:
        if sys.argv[2] == "stream":
            await follow(one.stream("go", session="s"))
        else:
            await follow(one.resume("s"))
"""


class Process:
    """A real process that runs a turn, told event by event."""

    def __init__(self, folder: Path, what: str, *outputs: str) -> None:
        command = [sys.executable, "-c", PROGRAM + "\nanyio.run(main)\n", str(folder), what]
        self.process = subprocess.Popen([*command, *outputs], stdout=subprocess.PIPE, text=True)

    def until(self, kind: str) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.strip() == kind:
                return
        raise AssertionError(f"it ended before {kind}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        assert self.process.stdout
        self.process.stdout.read()
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path):
    started: list[Process] = []

    def start(what: str, *outputs: str) -> Process:
        started.append(Process(tmp_path, what, *outputs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        assert process.process.stdout
        process.process.stdout.close()


def here(folder: Path, *outputs: str) -> Agent:
    """The same agent, in this process."""
    names: dict[str, object] = {}
    argv = sys.argv
    sys.argv = ["", str(folder)]
    try:
        exec(PROGRAM, names)
    finally:
        sys.argv = argv
    return names["agent"](list(outputs))  # type: ignore[operator]


def done(folder: Path) -> list[str]:
    file = folder / "done"
    return file.read_text().splitlines() if file.exists() else []


async def noted(folder: Path, what: str) -> None:
    with anyio.fail_after(30):
        while what not in done(folder):  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_after_kill_9_a_restarted_process_answers_and_goes_on(tmp_path: Path, start):
    process = start("stream", DELETE)
    process.until("approval_requested")
    process.kill()
    async with here(tmp_path, "Gone.") as agent:
        (waiting,) = await agent.pending("s")
        assert waiting.call.arguments == {"name": "a.txt"}
        await agent.approve("s", waiting.call.id)
        result = await agent.run_resumed("s")
    assert (result.outcome, result.text) == ("answered", "Gone.")
    assert done(tmp_path) == ["began a.txt"]


async def test_an_approved_call_whose_process_died_before_it_began_runs_exactly_once(
    tmp_path: Path, start
):
    process = start("stream", DELETE)
    process.until("approval_requested")
    process.kill()
    agent = here(tmp_path)
    (waiting,) = await agent.pending("s")
    await agent.approve("s", waiting.call.id)
    # Two processes go on at once: one of them does, and the call runs in that one alone.
    both = [start("resume", "Gone."), start("resume", "Gone.")]
    codes = [one.wait() for one in both]
    assert 0 in codes
    assert done(tmp_path) == ["began a.txt"]


async def test_a_call_that_had_begun_when_its_process_died_is_not_run_again(tmp_path: Path, start):
    process = start("stream", "[delete(name='slow.txt')]")
    process.until("approval_requested")
    agent = here(tmp_path, "I can't tell.")
    (waiting,) = await agent.pending("s")
    await agent.approve("s", waiting.call.id)
    await noted(tmp_path, "began slow.txt")
    process.kill()
    async with agent:
        result = await agent.run_resumed("s")
    assert result.outcome == "answered"
    assert result.results[0].content == UNKNOWN
    assert done(tmp_path) == ["began slow.txt"]


async def test_a_turn_whose_process_died_in_a_call_that_nobody_had_to_approve_goes_on_too(
    tmp_path: Path, start
):
    process = start("stream", "[look(at='long'), look(at='short')]")
    await noted(tmp_path, "looked short")
    await noted(tmp_path, "looked long")
    process.kill()
    async with here(tmp_path, "Hm.") as agent:
        result = await agent.run_resumed("s")
    assert result.text == "Hm."
    assert UNKNOWN in [r.content for r in result.results]
    assert sorted(done(tmp_path)) == ["looked long", "looked short"]


async def test_an_answer_from_another_process_reaches_the_one_that_waits(tmp_path: Path, start):
    process = start("stream", DELETE, "Gone.")
    process.until("approval_requested")
    agent = here(tmp_path)
    (waiting,) = await agent.pending("s")
    await agent.approve("s", waiting.call.id)
    process.until("call_finished")
    assert process.wait() == 0
    assert done(tmp_path) == ["began a.txt"]


async def test_a_killed_turns_call_is_withdrawn_by_the_next_message(tmp_path: Path, start):
    process = start("stream", DELETE)
    process.until("approval_requested")
    process.kill()
    agent = here(tmp_path, "Hello.")
    async with agent:
        assert (await agent.run("hello", session="s")).text == "Hello."
    prompt = str(agent._model.prompts[0])  # type: ignore[union-attr]
    assert WITHDRAWN in prompt
    assert done(tmp_path) == []
