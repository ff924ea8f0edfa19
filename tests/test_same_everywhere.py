"""One conversation with three tools is the same on every runtime: prompts to the byte, and calls.

The weights are the same everywhere: cria's. On llama.cpp the engine's arithmetic is another, so
that test compares what the model decides and not how sure it is.
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from completions_server import serve_completions
from ollama_server import serve
from served import plain, serving

from corral import Agent, Limits
from corral.events import CallRequested, StepFinished
from corral.model_runtime import Finish, Piece, Runtime, Sampling
from corral.model_runtime.cria.fetch import ensure_merged
from corral.model_runtime.ollama import OllamaRuntime
from corral.model_runtime.openai import OpenAIRuntime

LLAMA_CPP = os.environ.get("CORRAL_LLAMA_CPP_PYTHON")
QUESTIONS = ("Book a table at Luigi for 4 people.", "What is the weather in Oslo?", "Thank you.")


def order_status(order_id: int) -> dict:
    """Get the status of an order.

    Args:
        order_id: The number of the order.
    """
    return {"order_id": order_id, "status": "shipped"}


def get_weather(city: str) -> dict:
    """Get the weather in a city.

    Args:
        city: The name of the city.
    """
    return {"city": city, "degrees": 3, "sky": "sunny"}


def book_table(restaurant: str, people: int) -> dict:
    """Book a table at a restaurant.

    Args:
        restaurant: The name of the restaurant.
        people: How many people come.
    """
    return {"booked": True}


@dataclass
class Conversation:
    """What passed between an agent and its model."""

    prompts: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    steps: int = 0


class Watched:
    """A runtime that is watched, and otherwise as it is."""

    def __init__(self, runtime: Runtime, seen: Conversation) -> None:
        self._runtime = runtime
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    async def generate(self, prompt, **options) -> AsyncGenerator[Piece | Finish]:
        self._seen.prompts.append(prompt.escaped())
        text = ""
        async with aclosing(self._runtime.generate(prompt, **options)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    self._seen.outputs.append(text)
                else:
                    text += piece.text
                yield piece


async def talk(runtime: Runtime) -> Conversation:
    seen = Conversation()
    agent = Agent(
        model=Watched(runtime, seen),
        tools=[order_status, get_weather, book_table],
        shields="none",
        memory="temporary",
        sampling=Sampling(max_tokens=24),
        limits=Limits(steps=2, seconds=3600),
        constrained=False,  # not every runtime can
        today=lambda: datetime.date(2026, 1, 1),
    )
    async with agent:
        for question in QUESTIONS:
            result = await agent.run(question, session="s")
            seen.answers.append(result.text)
            for event in result.events:
                seen.steps += isinstance(event, StepFinished)
                if isinstance(event, CallRequested):
                    seen.calls.append((event.call.name, event.call.arguments))
    return seen


@pytest.fixture(scope="module")
async def here(cria) -> Conversation:
    """The conversation in this process."""
    seen = await talk(cria)
    assert seen.steps >= 5
    assert {name for name, _ in seen.calls} == {"book_table", "get_weather"}
    return seen


async def test_on_ollama(cria, here):
    with serve({"cria": cria}) as server:
        there = await talk(OllamaRuntime("cria", host=server.url))
    assert there == here


async def test_on_ollama_as_corral_itself_serves_it(cria, here):
    async with serving(plain(cria), raw=["cria"]) as url:
        there = await talk(OllamaRuntime("cria", host=url))
    assert there == here


async def test_on_a_completions_server_that_takes_token_ids(cria, here):
    with serve_completions({"cria": cria}, kind="vllm") as server:
        runtime = OpenAIRuntime("cria", base_url=server.url, tokenizer=await ensure_merged("cria"))
        there = await talk(runtime)
    assert there == here


@contextmanager
def serve_llama_cpp(python: str, file: Path) -> Iterator[str]:
    """llama-cpp-python's server on a GGUF file."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    words = ["--model", str(file), "--model_alias", "cria", "--n_ctx", "4096", "--port", port]
    with file.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "llama_cpp.server", *words], stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            assert process.poll() is None, file.with_suffix(".log").read_text()
            try:
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(
    LLAMA_CPP is None,
    reason="set CORRAL_LLAMA_CPP_PYTHON to a Python that has llama-cpp-python[server]",
)
async def test_on_llama_cpp(cria, here, tmp_path: Path):
    from training.gguf import write_gguf

    assert LLAMA_CPP is not None
    file = tmp_path / "cria.gguf"
    write_gguf(await ensure_merged("cria"), file, name="cria", wide=True)
    with serve_llama_cpp(LLAMA_CPP, file) as url:
        runtime = OpenAIRuntime("cria", base_url=url)
        there = await talk(runtime)
    assert there.calls == here.calls
    # Where the engine's arithmetic words an answer in another way, later prompts hold that answer.
    same = next(
        (
            i
            for i, pair in enumerate(zip(there.outputs, here.outputs, strict=True))
            if len({*pair}) > 1
        ),
        len(here.outputs),
    )
    assert same >= 3
    assert there.prompts[: same + 1] == here.prompts[: same + 1]
    assert runtime.server is not None and runtime.server.name == "llama-cpp-python"
