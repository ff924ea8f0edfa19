"""How calls are run: beside one another or alone, in time, again, with the program's own things."""

from __future__ import annotations

import datetime
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import anyio
import pytest
from pydantic import JsonValue

from corral import Agent, CodeInterpreter, ConfigError, Limits, Sampling, ToolError, tool
from corral.agents.mending import MENDED, NOT_MENDED, calls_schema
from corral.errors import ToolRetry
from corral.events import CallFinished, CallRequested
from corral.memory import UNKNOWN
from corral.memory.sqlite import SQLiteStore
from corral.messages import AssistantMessage, Attachment, ToolSpec
from corral.model_runtime.runtime import Constraint
from corral.testing import ScriptedRuntime
from corral.tools import RunContext, SchemaTool, ToolContext, ToolOutput, with_options
from corral.tools.options import ToolOptions
from corral.tools.sandbox import Permissions


def agent(outputs: list[str], *tools: object, **settings: object) -> tuple[Agent, ScriptedRuntime]:
    runtime = ScriptedRuntime(outputs)
    plain = {"shields": "none", "memory": "temporary", "sampling": Sampling(max_tokens=4000)}
    return Agent(model=runtime, tools=tools, **{**plain, **settings}), runtime


async def results(outputs: list[str], *tools: object, **settings: object) -> list[object]:
    asked, _ = agent([*outputs, "Done."], *tools, **settings)
    async with asked:
        result = await asked.run("go")
    assert result.outcome == "answered", result.reason
    return [each.content for each in result.results]


# Side by side


class Counting:
    """Tools that note how many of them run at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.log: list[str] = []

    async def _run(self, name: str) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        self.log.append(name)
        await anyio.sleep(0.05)
        self.now -= 1
        return name

    @tool
    async def beside(self, name: str) -> str:
        """Run beside others."""
        return await self._run(name)

    @tool(parallel=False)
    async def alone(self, name: str) -> str:
        """Run alone."""
        assert self.now == 0
        return await self._run(name)


async def test_calls_run_at_once_but_for_those_that_want_to_be_alone():
    tools = Counting()
    kinds = {"a": "beside", "b": "beside", "c": "alone", "d": "alone", "e": "beside", "f": "beside"}
    wrote = f"[{', '.join(f'{kind}(name={name!r})' for name, kind in kinds.items())}]"
    said = await results([wrote], tools.beside, tools.alone)
    assert said == ["a", "b", "c", "d", "e", "f"]
    assert tools.most == 2
    assert sorted(tools.log[:2]) == ["a", "b"] and tools.log[2:4] == ["c", "d"]


# In time


async def test_a_call_that_takes_too_long_is_given_up_by_name_and_the_turn_goes_on():
    cancelled = anyio.Event()

    @tool(timeout=0.1)
    async def slow() -> str:
        """Be slow."""
        try:
            await anyio.sleep(60)
        finally:
            cancelled.set()
        return "never"

    with anyio.fail_after(20):
        (said,) = await results(["[slow()]"], slow)
    assert "slow took longer than its 0.1 seconds" in str(said)
    assert cancelled.is_set()


async def test_a_sync_call_that_takes_too_long_is_left_to_itself():
    go_on, ended = threading.Event(), threading.Event()

    @tool(timeout=0.1)
    def slow() -> str:
        """Be slow."""
        go_on.wait(60)
        ended.set()
        return "late"

    with anyio.fail_after(20):
        (said,) = await results(["[slow()]"], slow)
    assert "may have taken effect" in str(said)
    assert not ended.is_set()
    go_on.set()
    assert await anyio.to_thread.run_sync(ended.wait, 20)


async def test_a_turn_that_runs_out_of_time_leaves_a_sync_call_too():
    go_on = threading.Event()

    @tool
    def stuck() -> str:
        """Hang."""
        go_on.wait(60)
        return "late"

    asked, _ = agent(["[stuck()]"], stuck, limits=Limits(seconds=0.3))
    with anyio.fail_after(20):
        result = await asked.run("go")
    go_on.set()
    assert result.reason == "the turn took its 0.3 seconds"


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"retries": -1}])
def test_bounds_that_cannot_be_kept_are_refused(options: dict[str, float]):
    with pytest.raises(ConfigError, match="Give"):
        tool(**options)  # type: ignore[call-overload]


# Again


async def test_a_tool_may_ask_for_the_call_again_so_many_times():
    seen: list[int] = []

    @tool(retries=2)
    def dial(context: RunContext, number: str) -> str:
        """Dial a number."""
        seen.append(context.retry)
        raise ToolRetry(f"{number} has no country code.")

    wrote = [f"[dial(number='{n}')]" for n in range(4)]
    said = [str(each) for each in await results(wrote, dial)]
    assert seen == [0, 1, 2, 3]
    assert ["Make the call again" in each for each in said] == [True, True, False, False]
    assert ["Do not try dial again" in each for each in said] == [False, False, True, True]
    assert said[0].startswith("error: 0 has no country code.")


async def test_a_tool_that_never_retries_says_so_at_once():
    @tool(retries=0)
    def dial() -> str:
        """Dial."""
        raise ToolRetry("busy")

    (said,) = await results(["[dial()]"], dial)
    assert "Make the call again" not in str(said)


# With the program's own things


class Warehouse:
    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock


@tool
def stock(context: RunContext[Warehouse], item: str) -> int:
    """Say how many there are."""
    assert context.session == "s" and context.turn_id and context.call_id.startswith("call_")
    return context.deps.stock[item]


async def test_a_tool_finds_what_its_program_gave_it():
    asked, _ = agent(["[stock(item='nail')]", "3.", "[stock(item='nail')]", "9."], stock)
    asked, runtime = agent(
        ["[stock(item='nail')]", "3.", "[stock(item='nail')]", "9."],
        stock,
        deps=Warehouse({"nail": 3}),
    )
    async with asked:
        first = await asked.run("how many?", session="s")
        second = await asked.run("there?", session="s", deps=Warehouse({"nail": 9}))
    assert [first.results[0].content, second.results[0].content] == [3, 9]
    assert "context" not in str(runtime.prompts[0])


async def test_a_tool_that_would_find_nothing_is_said_before_the_model_is_asked():
    asked, runtime = agent(["never"], stock)
    with pytest.raises(ConfigError, match=r"'stock' wants a Warehouse.*Agent\(deps=\.\.\.\)"):
        await asked.run("how many?")
    assert runtime.prompts == []


async def test_a_tool_that_wants_nothing_in_particular_needs_nothing():
    @tool
    def who(context: RunContext) -> str:
        """Say who."""
        return context.session

    @tool
    def maybe(context: RunContext[Warehouse | None]) -> bool:
        """Say whether."""
        return context.deps is None

    assert (await results(["[who(), maybe()]"], who, maybe))[1] is True


# What comes back


async def test_the_files_that_a_tool_made_come_with_the_result():
    @tool
    def plot() -> ToolOutput:
        """Plot."""
        file = Attachment(name="plot.png", media_type="image/png", data=b"cGxvdA==")
        return ToolOutput(content="a plot", attachments=(file,))

    asked, runtime = agent(["[plot()]", "There."], plot)
    async with asked:
        result = await asked.run("go")
    assert [(file.name, file.data) for file in result.attachments] == [("plot.png", b"plot")]
    (finished,) = [e for e in result.events if isinstance(e, CallFinished)]
    assert finished.attachments == result.attachments
    assert result.results[0].content == "a plot"
    assert "cGxvdA" not in str(runtime.prompts[1])


async def test_a_call_that_was_cut_off_is_told_so_in_the_next_turn(tmp_path: Path):
    began = anyio.Event()

    @tool
    async def send() -> str:
        """Send."""
        began.set()
        await anyio.sleep(60)
        return "sent"

    asked, runtime = agent(["[send()]", "Hm."], send, memory=tmp_path / "c.db")
    async with asked:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await asked.run("send it", session="s")

            tasks.start_soon(run)
            await began.wait()
            tasks.cancel_scope.cancel()
        await asked.run("and?", session="s")
    assert UNKNOWN in str(runtime.prompts[1])


# Schemas, options, and tools that hold something


async def test_a_tool_of_a_schema_takes_json_and_refuses_what_the_schema_does():
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 5}},
        "required": ["word"],
    }

    async def look_up(arguments: dict[str, JsonValue], context: RunContext) -> JsonValue:
        return {"session": bool(context.session), **arguments}

    made = SchemaTool("look_up", "Look a word up.", schema, look_up)
    assert await results(["[look_up(word='llama')]"], made) == [{"session": True, "word": "llama"}]
    with pytest.raises(ToolError, match="word"):
        await made.call({"word": "alpaca"}, ToolContext(session="s", turn_id="t", call_id="c"))
    with pytest.raises(ConfigError, match="no JSON Schema"):
        SchemaTool("x", "X.", {"properties": {"a": {"type": "strng"}}}, look_up)
    asking = SchemaTool("x", "X.", None, look_up, options=ToolOptions(needs_approval=True))
    asked, _ = agent(["[x()]"], asking)
    assert (await asked.run("go")).outcome == "waiting"


async def test_any_tool_can_be_given_other_options():
    asked, _ = agent(
        ["<|python_tag|>1 + 1<|eom_id|>"], with_options(CodeInterpreter(), needs_approval=True)
    )
    result = await asked.run("go")
    assert result.outcome == "waiting"
    assert result.pending[0].call.arguments == {"code": "1 + 1"}


class Line:
    """A tool that holds a line open, and notes what became of it."""

    def __init__(self, log: list[str], name: str, *, broken: bool = False) -> None:
        self.log, self.name, self.broken = log, name, broken
        self.permissions = Permissions(wall_seconds=9)

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(name=self.name, description="Call.")

    async def ready(self) -> None:
        self.log.append(f"open {self.name}")
        if self.broken:
            raise ToolError("no line")

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        return ToolOutput(content=self.permissions.wall_seconds)

    def narrowed(self, ceiling: Permissions) -> Line:
        other = Line(self.log, self.name)
        other.permissions = self.permissions.narrowed(ceiling)
        return other

    async def aclose(self) -> None:
        self.log.append(f"close {self.name}")


async def test_tools_are_closed_with_their_agent_and_opened_again():
    log: list[str] = []
    asked, _ = agent(["One.", "Two."], Line(log, "a"), Line(log, "b"))
    for _ in range(2):
        async with asked:
            await asked.run("go")
    assert log == ["open a", "open b", "close b", "close a"] * 2


async def test_when_one_tool_cannot_be_had_the_others_are_closed():
    log: list[str] = []
    asked, _ = agent([], Line(log, "a"), Line(log, "b", broken=True))
    with pytest.raises(ToolError, match="no line"):
        await asked.open()
    assert log == ["open a", "open b", "close b", "close a"]


async def test_no_tool_goes_beyond_the_agents_ceiling():
    log: list[str] = []
    ceiling = Permissions(wall_seconds=2)
    assert await results(["[a()]"], Line(log, "a"), permissions=ceiling) == [2]
    wrapped = with_options(Line(log, "a"), retries=0)
    assert await results(["[a()]"], wrapped, permissions=ceiling) == [2]


async def test_a_source_of_tools_is_asked_when_the_agent_opens_and_closed_with_it():
    log: list[str] = []

    class Server:
        async def tools(self) -> list[Line]:
            log.append("connect")
            return [Line(log, "far")]

        async def aclose(self) -> None:
            log.append("disconnect")

    asked, _ = agent(["[far()]", "Done."], Server(), permissions=Permissions(wall_seconds=3))
    assert asked.tools == ()
    async with asked:
        assert [each.spec.name for each in asked.tools] == ["far"]
        result = await asked.run("go")
    assert result.results[0].content == 3
    assert log == ["connect", "open far", "disconnect"]
    twice, _ = agent([], Server(), Line(log, "far"))
    with pytest.raises(ConfigError, match="Two tools are called 'far'"):
        await twice.open()


# A call that can't be read, written again


class Constrained(ScriptedRuntime):
    """A scripted model that can be held to a JSON Schema, and notes which."""

    def __init__(self, outputs: list[str]) -> None:
        super().__init__(outputs)
        self.constraints: list[Constraint | None] = []

    @property
    def constrains(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"json"})

    def generate(self, prompt, *, sampling, constraint=None):  # type: ignore[no-untyped-def]
        self.constraints.append(constraint)
        return super().generate(prompt, sampling=sampling, constraint=constraint)


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


BROKEN = "[add(a=2, c="


async def test_a_call_that_cannot_be_read_is_written_again_before_it_is_an_error(tmp_path: Path):
    runtime = Constrained([BROKEN, '[{"name": "add", "parameters": {"a": 2, "b": 3}}]', "5."])
    path = tmp_path / "c.db"
    asked = Agent(model=runtime, tools=[add], shields="none", memory=path)
    async with asked:
        result = await asked.run("2 + 3?", session="s")
    assert (result.outcome, [r.content for r in result.results]) == ("answered", [5])
    assert [c and c.kind for c in runtime.constraints] == [None, "json", None]
    again, after = str(runtime.prompts[1]), str(runtime.prompts[2])
    assert again.startswith(str(runtime.prompts[0])) and BROKEN in again and "error: " in again
    # The log holds what was meant, and that it took a second attempt.
    assert BROKEN not in after and "[add(a=2, b=3)]" in after
    async with await SQLiteStore.open(path) as store:
        (said,) = [
            item.message
            for item in await store.items("s")
            if isinstance(item.message, AssistantMessage) and item.message.calls
        ]
    assert MENDED in said.warnings
    requested = [e for e in result.events if isinstance(e, CallRequested)]
    assert len(requested) == 1


@pytest.mark.parametrize("second", ["[]", "I'd rather not.", '[{"name": "add"'])
async def test_a_call_that_stays_unreadable_is_the_error_that_it_was(second: str):
    runtime = Constrained([BROKEN, second, "[add(a=2, b=3)]", "5."])
    asked = Agent(model=runtime, tools=[add], shields="none", memory="temporary")
    result = await asked.run("2 + 3?")
    assert result.outcome == "answered"
    assert [r.is_error for r in result.results] == [True, False]
    assert BROKEN in str(runtime.prompts[2])


async def test_there_is_one_second_attempt_for_a_message_and_it_counts_as_tokens():
    runtime = Constrained([BROKEN, "[]", "Never mind."])
    asked = Agent(model=runtime, tools=[add], shields="none", memory="temporary")
    result = await asked.run("2 + 3?")
    assert len(runtime.prompts) == 3
    assert result.usage.output_tokens == len(BROKEN) + 2 + len("Never mind.")
    assert NOT_MENDED not in result.text


async def test_a_real_model_that_is_held_to_the_schema_mends_its_call(cria):
    @tool
    def weather(airport: Literal["OSL", "BGO"]) -> str:
        """Tell the weather at an airport.

        Args:
            airport: The airport's city.
        """
        return "rain"

    asked = Agent(
        model=cria,
        tools=[weather],
        shields="none",
        memory="temporary",
        constrained=False,
        limits=Limits(steps=1),
        sampling=Sampling(max_tokens=60),
    )
    result = await asked.run("What's the weather in Oslo?", session="s")
    # Left to itself it writes 'Oslo', which is no airport's code.
    (requested,) = [e for e in result.events if isinstance(e, CallRequested)]
    assert requested.call.arguments["airport"] in ("OSL", "BGO")
    items = await (await asked.open()).store.items("s")
    (said,) = [i.message for i in items if isinstance(i.message, AssistantMessage)]
    assert MENDED in said.warnings
    await asked.aclose()


def test_the_schema_of_calls_keeps_each_tools_own_definitions_apart():
    @tool
    def one(at: datetime.date, place: Place) -> None:
        """Do."""

    @tool
    def two(place: OtherPlace) -> None:
        """Do."""

    from jsonschema import Draft202012Validator

    schema = calls_schema([one.spec, two.spec], most=1)
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema).is_valid
    assert valid([{"name": "two", "parameters": {"place": {"lat": 1.5}}}])
    assert not valid([{"name": "two", "parameters": {"place": {"city": "Oslo"}}}])
    both = {"at": "2026-01-01", "place": {"city": "Oslo"}}
    assert valid([{"name": "one", "parameters": both}])
    assert not valid([{"name": "three", "parameters": {}}])
    assert not valid([])
    assert not valid([{"name": "two", "parameters": {"place": {"lat": 1.5}}}] * 2)


def _places() -> tuple[type, type]:
    from pydantic import BaseModel, create_model

    return (
        create_model("Place", __base__=BaseModel, city=(str, ...)),
        create_model("Place", __base__=BaseModel, lat=(float, ...)),
    )


Place, OtherPlace = _places()


async def test_leaving_the_stream_does_not_wait_for_a_sync_call():
    go_on = threading.Event()

    @tool
    def stuck() -> str:
        """Hang."""
        go_on.wait(30)
        return "late"

    asked, _ = agent(["[stuck()]"], stuck)
    before = time.monotonic()
    with anyio.move_on_after(0.3):
        async with aclosing(asked.stream("go")) as stream:
            async for _ in stream:
                pass
    assert time.monotonic() - before < 20
    go_on.set()
