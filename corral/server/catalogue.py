"""What a server serves: agents by name, and models whose raw prompts the operator has opened."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from corral.agents import Agent
from corral.errors import ConfigError
from corral.memory import Store
from corral.model_runtime import Runtime, open_runtime
from corral.model_runtime.opening import Progress, check_model_string
from corral.server.clearance import Clearance
from corral.server.errors import ApiError

__all__ = ["Catalogue", "ServedAgent", "ServedModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAgent:
    """An agent that is open.

    `memory` keeps its sessions; `scratch` holds the turns of clients without one, and only while
    they run.
    """

    name: str
    agent: Agent
    runtime: Runtime
    memory: Store
    scratch: Store
    clearance: Clearance
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that answers raw prompts, without an agent, a shield or tools of the server."""

    name: str
    runtime: Runtime
    created: int


class Catalogue:
    """The names that clients may ask for. Make one with `Catalogue.open`."""

    def __init__(self, agents: Sequence[ServedAgent], models: Sequence[ServedModel]) -> None:
        """Hold what is open already."""
        self.agents = {served.name: served for served in agents}
        self.models = {served.name: served for served in models}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, agents: Sequence[Agent], *, raw: Sequence[str] = (), progress: Progress | None = None
    ) -> AsyncGenerator[Catalogue]:
        """Load the agents and the raw models, and close them at the block's end.

        Args:
            agents: Each is served under its own name.
            raw: Model strings, or `NAME=MODEL`. A model that several use is loaded once.
            progress: Told of downloads and loading.

        Raises:
            ConfigError: Two things have one name, or there is nothing to serve.
            CorralError: Something of it can't be opened.
        """
        names = [agent.name for agent in agents]
        wanted = [_named(each) for each in raw]
        _check_names([*names, *(name for name, _ in wanted)])
        now = int(time.time())
        async with AsyncExitStack() as stack:
            runtimes: dict[str, Runtime] = {}

            async def opener(model: str) -> Runtime:
                if model not in runtimes:
                    runtimes[model] = await open_runtime(model, progress=progress)
                    stack.push_async_callback(runtimes[model].aclose)
                return runtimes[model]

            served = [await _open_agent(agent, stack, opener, created=now) for agent in agents]
            for each in served:  # those that were given open
                runtimes.setdefault(each.runtime.name, each.runtime)
            models = [
                ServedModel(name=name, runtime=await opener(model), created=now)
                for name, model in wanted
            ]
            yield cls(served, models)

    @property
    def names(self) -> list[str]:
        """Every name, agents first."""
        return [*self.agents, *self.models]

    def find(self, name: str) -> ServedAgent | ServedModel:
        """What is served as `name`, or as `name:latest`.

        Raises:
            ApiError: 404, nothing is.
        """
        for each in (name, name.removesuffix(":latest")):
            if found := self.agents.get(each) or self.models.get(each):
                return found
        known = ", ".join(repr(each) for each in self.names)
        raise ApiError(
            404,
            f"model {name!r} not found. This server has {known}.",
            code="model_not_found",
            param="model",
        )

    def find_agent(self, name: str) -> ServedAgent:
        """The agent `name`.

        Raises:
            ApiError: There is none: 404, or 400 if the name is a raw model's.
        """
        found = self.find(name)
        if isinstance(found, ServedAgent):
            return found
        raise ApiError(
            400,
            f"{name!r} is a model that is served raw, and no agent. Send a prompt to /api/generate "
            "with raw: true, or name an agent.",
            code="not_an_agent",
            param="model",
        )


async def _open_agent(
    agent: Agent,
    stack: AsyncExitStack,
    opener: Callable[[str], Awaitable[Runtime]],
    *,
    created: int,
) -> ServedAgent:
    from corral.memory import SQLiteStore

    opened = await agent.open(opener=opener)
    stack.push_async_callback(agent.aclose)
    scratch = await SQLiteStore.open(None)
    stack.push_async_callback(scratch.aclose)
    return ServedAgent(
        name=agent.name,
        agent=agent,
        runtime=opened.runtime,
        memory=opened.store,
        scratch=scratch,
        clearance=Clearance(opened.shield),
        created=created,
    )


def _named(raw: str) -> tuple[str, str]:
    name, equals, model = raw.partition("=")
    if not equals:
        name, model = raw.removeprefix("ollama:").removeprefix("transformers:"), raw
    check_model_string(model)
    if not name:
        raise ConfigError(f"{raw!r} names no model to serve raw. Write --raw NAME=MODEL.")
    return name, model


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("There is nothing to serve. Name an agent's YAML file.")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Two things would be served as {name!r}. Give one agent another name: in its "
                "file, or write --raw NAME=MODEL."
            )
