"""A corral server on a free port of the loopback interface, for the time of a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx

from corral import Agent, Limits, Sampling
from corral.model_runtime import Finish, Piece, Prompt
from corral.model_runtime.runtime import Constraint
from corral.server import ServerSettings, serve
from corral.testing import ScriptedRuntime

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds that a test waits for what must happen, on however loaded a machine."""


@asynccontextmanager
async def serving(*agents: Agent, raw: Sequence[str] = (), **settings: Any) -> AsyncGenerator[str]:
    """Serve in this event loop; gives the server's URL. Leaving stops it as a signal would."""
    urls: list[str] = []
    ready = anyio.Event()

    def tell(url: str, names: Sequence[str]) -> None:
        urls.append(url)
        ready.set()

    async def run() -> None:
        await serve(agents, ServerSettings(port=0, **settings), raw=raw, ready=tell)

    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await ready.wait()
        try:
            yield urls[0]
        except Exception as error:  # raised below: the task group would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def scripted(*outputs: str, name: str = "agent", **options: Any) -> tuple[Agent, ScriptedRuntime]:
    """An agent that says these outputs, one after another, and the runtime that says them."""
    runtime = ScriptedRuntime(outputs, name="scripted")
    chosen = {"shields": "none", "memory": "temporary", **options}
    return Agent(model=runtime, name=name, **chosen), runtime


class Endless(ScriptedRuntime):
    """A model that never comes to an end by itself."""

    async def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        while True:
            await anyio.sleep(0.01)
            yield Piece("and on ")


def endless(**options: Any) -> Agent:
    """An agent whose answer goes on until it is stopped."""
    chosen = {"shields": "none", "memory": "temporary", **options}
    limits = Limits(seconds=10 * PATIENCE, tokens=10**6)
    return Agent(model=Endless([], name="endless"), name="agent", limits=limits, **chosen)


def plain(cria: Any, *, name: str = "plain", tokens: int = 12, **options: Any) -> Agent:
    """An agent on the demonstration model, without a guard, whose answers are short."""
    chosen = {"shields": "none", "memory": "temporary", **options}
    return Agent(model=cria, name=name, sampling=Sampling(max_tokens=tokens), **chosen)


def http(url: str, **options: Any) -> httpx.AsyncClient:
    """A client without manners of its own."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, **options)


async def in_thread(function: Callable[[], T]) -> T:
    """Call what blocks, such as a client that isn't async."""
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(function)


async def until(done: Callable[[], Any]) -> None:
    """Wait until `done()` is true, which may be async."""
    with anyio.fail_after(PATIENCE):
        while True:
            found = done()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return
            await anyio.sleep(0.02)
