"""Networks and servers fail in every way: none becomes a wrong answer, a hang or a lost session.

A proxy between the runtimes and real servers breaks what passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import asking
import pytest
from completions_server import serve_completions
from faulty_proxy import Changed, Cut, Fault, FaultyProxy, Stall, Status, break_things
from ollama_server import serve

from corral import Agent
from corral.errors import ContextTruncated, CorralError, ModelError
from corral.memory.sqlite import SQLiteStore
from corral.messages import UserMessage
from corral.model_runtime import Finish, Runtime, Sampling, render_prompt
from corral.model_runtime.ollama import OllamaRuntime
from corral.model_runtime.openai import OpenAIRuntime
from corral.model_runtime.wire import Patience

QUESTION = render_prompt([UserMessage(content="What is the capital of Italy?")])
SAMPLING = Sampling(max_tokens=5)


@dataclass
class Setup:
    """A runtime whose requests go through a proxy, and the answer that it gave once."""

    proxy: FaultyProxy
    make: Callable[[Patience], Runtime]
    text: str
    runtime: Runtime
    """One that never tries twice."""


@pytest.fixture(params=["ollama", "openai"])
async def setup(request, cria) -> AsyncIterator[Setup]:
    with ExitStack() as stack:
        if request.param == "ollama":
            server = stack.enter_context(serve({"cria": cria}))
            proxy = stack.enter_context(break_things(server.url, "/api/generate"))

            def make(patience: Patience) -> Runtime:
                return OllamaRuntime("cria", host=proxy.url, patience=patience)

        else:
            served = stack.enter_context(serve_completions({"cria": cria}, kind="llama.cpp"))
            url = served.url.removesuffix("/v1")
            proxy = stack.enter_context(break_things(url, "/v1/completions"))

            def make(patience: Patience) -> Runtime:
                return OpenAIRuntime("cria", base_url=f"{proxy.url}/v1", patience=patience)

        runtime = make(Patience(attempts=1, first=120, between=120))
        text, _ = await write(runtime)
        await anyio.to_thread.run_sync(proxy.keeping.wait, 60)
        yield Setup(proxy=proxy, make=make, text=text, runtime=runtime)


async def write(runtime: Runtime) -> tuple[str, Finish]:
    with anyio.fail_after(300):
        return await asking.write(runtime, QUESTION, max_tokens=SAMPLING.max_tokens)


async def test_an_answer_cut_behind_any_byte_is_an_error_or_whole(setup):
    setup.proxy.faults.clear()
    whole = len(setup.proxy.kept)
    broken = 0
    for after in [*range(0, whole, 11), *range(whole - 24, whole + 1)]:
        setup.proxy.faults.append(Cut(after))
        try:
            text, finish = await write(setup.runtime)
        except ModelError:
            broken += 1
        else:
            assert text == setup.text, after
            assert finish.reason == "max_tokens"
    assert broken > whole // 11 // 2


async def test_what_is_lost_before_the_first_token_is_asked_for_again(setup):
    patience = Patience(attempts=4, wait=0.01)
    runtime = setup.make(patience)
    lost: list[Fault] = [Cut(0), Status(503), Status(429, {"Retry-After": "0"})]
    before = setup.proxy.seen
    setup.proxy.faults.extend(lost)
    text, _ = await write(runtime)
    assert text == setup.text
    assert setup.proxy.seen == before + 4


async def test_what_is_lost_after_the_first_token_is_never_asked_for_again(setup):
    runtime = setup.make(Patience(attempts=4, wait=0.01))
    before = setup.proxy.seen
    setup.proxy.faults.append(Cut(_after_first_token(setup.proxy.kept)))
    with pytest.raises(ModelError, match="broke off"):
        await write(runtime)
    assert setup.proxy.seen == before + 1


async def test_a_server_that_asks_for_a_long_pause_is_not_waited_for(setup):
    runtime = setup.make(Patience(attempts=4, wait=0.01, longest_wait=2))
    before = setup.proxy.seen
    setup.proxy.faults.append(Status(429, {"Retry-After": "3600"}))
    with pytest.raises(ModelError):
        await write(runtime)
    assert setup.proxy.seen == before + 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502])
async def test_an_error_of_the_server_is_a_named_error(setup, status):
    setup.proxy.faults.append(Status(status, body=b"<html>oops</html>"))
    with pytest.raises(CorralError):
        await write(setup.runtime)


def _after_first_token(answer: bytes) -> int:
    """Where the second of an answer's tokens begins."""
    key = b'"response": "' if b'"response": "' in answer else b'"text": "'
    return answer.index(key, answer.index(key) + 1)


def _first_text(body: bytes, new: bytes) -> bytes:
    for key in (b'"response": "', b'"text": "'):
        if key in body:
            return body.replace(key, key + new, 1)
    raise AssertionError(body)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"{", b"[", 1),
        lambda body: body.replace(b"}\n", b"\n", 1),
        lambda body: _first_text(body, b"\xc3"),
        lambda body: b"null\n" + body if body.startswith(b"{") else b"data: null\n\n" + body,
        lambda body: b"",
    ],
    ids=["a bracket", "a lost end", "half a character", "no object", "nothing"],
)
async def test_a_damaged_answer_is_a_named_error(setup, change):
    setup.proxy.faults.append(Changed(change))
    with pytest.raises(ModelError):
        await write(setup.runtime)


async def test_a_stalled_answer_is_given_up(setup):
    runtime = setup.make(Patience(attempts=1, first=30, between=0.2))
    await runtime.count(QUESTION)
    setup.proxy.faults.append(Stall(_after_first_token(setup.proxy.kept)))
    with pytest.raises(ModelError, match="said nothing"):
        await write(runtime)
    silent = setup.make(Patience(attempts=1, first=1.5))
    setup.proxy.faults.append(Stall(0))
    with pytest.raises(ModelError, match="said nothing"):
        await write(silent)
    hurried = setup.make(Patience(attempts=1, overall=1.5))
    setup.proxy.faults.append(Stall(0))
    with pytest.raises(ModelError, match="not done after"):
        await write(hurried)


async def test_an_agents_session_survives_every_fault(setup, tmp_path: Path):
    path = tmp_path / "memory.db"
    agent = Agent(
        model=setup.runtime,
        shields="none",
        memory=path,
        sampling=SAMPLING,
    )
    faults: list[Fault] = [
        Cut(0),
        Cut(_after_first_token(setup.proxy.kept)),
        Status(500),
        Changed(lambda body: _first_text(body, b"\xc3")),
    ]
    async with agent:
        for i, fault in enumerate(faults):
            setup.proxy.faults.append(fault)
            with pytest.raises(ModelError):
                await agent.run(f"Question {i}?", session="s")
        good = await agent.run("And now?", session="s")
    assert good.outcome in ("answered", "limit")
    async with await SQLiteStore.open(path) as store:
        lines = [line async for line in store.export("s")]
    text = "\n".join(lines)
    for i in range(len(faults)):
        assert f"Question {i}?" in text
    assert text.count('"failed"') >= len(faults)


async def test_a_prompt_that_ollama_cut_fails_the_turn_and_not_the_session(cria, tmp_path: Path):
    with serve({"cria": cria}) as server:
        agent = Agent(
            model=OllamaRuntime("cria", host=server.url),
            shields="none",
            memory=tmp_path / "memory.db",
            sampling=SAMPLING,
        )
        async with agent:
            server.context = 60
            with pytest.raises(ContextTruncated):
                await agent.run("one two three four " * 30, session="s")
            server.context = None
            good = await agent.run("Hello.", session="s")
    assert good.outcome in ("answered", "limit")
    assert server.requests[-1]["prompt"].count("one two three four") == 30
