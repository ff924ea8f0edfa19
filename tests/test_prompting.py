"""What an agent asks its model: the prompt, its format, its sampling, its grammar."""

from __future__ import annotations

import datetime

import pytest

from corral import Agent, ConfigError, Sampling, tool
from corral.agents.prompting import Prompting, count_parts
from corral.messages import ToolSpec
from corral.model_runtime.profiles import PROFILES
from corral.model_runtime.runtime import Constraint, ConstraintKind
from corral.testing import ScriptedRuntime


@tool
def brave_search(query: str) -> str:
    """Search the web."""
    return query


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent(family: str = "llama-3.2", **options) -> Agent:
    runtime = ScriptedRuntime(["Hi."], profile=PROFILES[family])
    return Agent(model=runtime, shields="none", memory="temporary", **options)


async def prompting(given: Agent) -> Prompting:
    async with given:
        return (await given.preview("Hello"))[0]


async def test_the_models_profile_decides_where_nothing_is_said():
    settled = await prompting(agent("llama-3.1"))
    assert settled.format == "llama3.1-json"
    assert settled.sampling == Sampling(temperature=0.6, top_p=0.9)


async def test_what_is_said_of_sampling_comes_on_top_of_the_profile():
    settled = await prompting(agent(sampling={"max_tokens": 9}))
    assert settled.sampling == Sampling(temperature=0.6, top_p=0.9, max_tokens=9)
    exact = Sampling(temperature=0.0)
    assert (await prompting(agent(sampling=exact))).sampling == exact


async def test_another_format_can_be_chosen():
    given = agent(format="llama3.2-later", tools=[add])
    async with given:
        _, prompt = await given.preview("Hello")
    assert "you should only use them if they are required" in str(prompt)
    with pytest.raises(ConfigError, match="llama3.2"):
        agent(format="llama3.3-usr")


async def test_a_tool_that_a_model_knows_by_training_is_told_by_name_alone():
    known = agent("llama-3.1", tools=[brave_search, add])
    async with known:
        _, prompt = await known.preview("Hello")
    assert "Tools: brave_search" in str(prompt)
    assert '"name": "brave_search"' not in str(prompt)
    unknown = agent("llama-3.2", tools=[brave_search])
    async with unknown:
        _, prompt = await unknown.preview("Hello")
    assert '"name": "brave_search"' in str(prompt)


async def test_tools_are_refused_for_a_model_that_calls_none():
    with pytest.raises(ConfigError, match="can't call tools"):
        await prompting(agent("llama-3.2-base", tools=[add]))


async def test_a_grammar_is_asked_for_where_the_runtime_can_hold_to_one(cria):
    spec = add.spec
    given = Agent(model=cria, tools=[add], shields="none", memory="temporary")
    assert (await prompting(given)).constraint == Constraint(tools=(spec,), syntax="pythonic")
    free = Agent(model=cria, tools=[add], shields="none", memory="temporary", constrained=False)
    assert (await prompting(free)).constraint is None
    assert (await prompting(agent(tools=[add]))).constraint is None


class Constraining(ScriptedRuntime):
    """A script that says it can be held to calls."""

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        return frozenset({"calls"})


@pytest.mark.parametrize(
    ("family", "several"), [("llama-3.1", False), ("llama-3.2", True), ("llama-3.3", True)]
)
async def test_a_model_that_makes_one_call_at_a_time_is_held_to_one(family, several):
    runtime = Constraining([], profile=PROFILES[family])
    settled = await prompting(Agent(model=runtime, tools=[add], shields="none", memory="temporary"))
    assert settled.constraint is not None
    assert settled.constraint.parallel is several


async def test_parts_are_counted_as_the_runtime_counts(cria):
    given = Agent(model=cria, tools=[add], shields="none", memory="temporary")
    async with given:
        settled, prompt = await given.preview("Hello")
        counts = await count_parts(settled.runtime, prompt)
    assert counts == prompt.tokens(cria.tokenizer)
    assert list(counts) == ["system", "tools", "user 1", "assistant 1"]


async def test_a_preview_asks_nothing_and_keeps_nothing():
    runtime = ScriptedRuntime(["Hello to you.", "Again."])
    given = Agent(model=runtime, shields="none", memory="temporary")
    async with given:
        await given.run("First", session="s")
        _, prompt = await given.preview("Second", session="s")
        assert len(runtime.prompts) == 1
        assert "First" in str(prompt) and "Hello to you." in str(prompt)
        await given.run("Second", session="s")
        assert str(runtime.prompts[-1]) == str(prompt)


def test_specs_of_kind_function_stay_functions_where_they_take_more():
    spec = ToolSpec(
        name="brave_search",
        description="Searches.",
        parameters={"type": "object", "properties": {"query": {}, "n": {}}},
    )
    runtime = ScriptedRuntime([], profile=PROFILES["llama-3.1"])
    settled = Prompting.of(runtime, instructions="", tools=[spec], date=datetime.date(2026, 1, 1))
    assert settled.tools[0].kind == "function"
