"""`Agent`: a model, its instructions, its tools, its shield and its memory, ready to be asked.

Everything heavy is opened at the first turn (or by `async with agent`), and let go by `aclose`.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import anyio
import anyio.lowlevel

from corral.agents.limits import Limits
from corral.agents.result import TurnResult
from corral.agents.turn import TurnParts, TurnRun
from corral.errors import ConfigError, InputError
from corral.events import Event, TurnFinished, TurnStarted
from corral.memory import Store
from corral.memory.store import check_key
from corral.messages import UserMessage
from corral.model_runtime.opening import BUNDLED, Progress, check_model_string, open_runtime
from corral.model_runtime.runtime import Runtime, Sampling
from corral.safety import Action, LlamaGuard, Shield
from corral.tools.function import FunctionTool, tool
from corral.tools.tool import Tool

__all__ = ["Agent", "GuardSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Which guard model shields an agent, and what it does about what it finds."""

    model: str
    policy: Mapping[str, Action] | None = None
    """Category code -> `block`, `warn` or `allow`; see `corral.safety.LlamaGuard`."""
    threshold: float = 0.5


@dataclass(slots=True)
class _Opened:
    runtime: Runtime
    shield: Shield | None
    store: Store
    owned: list[Runtime | Store]


class Agent:
    """An agent on a Llama model. Any number of turns may run at once, one in each session."""

    def __init__(
        self,
        *,
        model: str | Runtime,
        instructions: str = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        shields: str | GuardSettings | Shield = "auto",
        name: str = "agent",
        limits: Limits = Limits(),
        sampling: Sampling = Sampling(),
        memory: str | Path | Store | None = None,
        today: Callable[[], datetime.date] = datetime.date.today,
    ) -> None:
        """Describe an agent. Nothing is loaded yet.

        Args:
            model: A model string (`cria`, `ollama:llama3.2:3b`, `transformers:FOLDER-OR-ID`), or an
                open runtime, which the caller keeps and closes.
            instructions: The system prompt.
            tools: Tools, or typed functions with docstrings, which become tools.
            shields: A guard's model string or settings, a shield, `"auto"` (the guard of the
                model's own kind), or `"none"`: an agent that nothing shields has to say so.
            name: What sessions and events call it.
            limits: The bounds of each turn.
            sampling: How tokens are drawn.
            memory: Where conversations are kept: a database's path, a store, `"temporary"` for
                this object's life only; by default the user's own database.
            today: The date that the model is told.

        Raises:
            ConfigError: Something of it can't be used.
        """
        if isinstance(model, str):
            check_model_string(model)
        self.name = name
        self.model = model if isinstance(model, str) else model.name
        self._model = model
        self._instructions = instructions
        self._tools = _tools(tools)
        self._shields = _shields(shields, model)
        self._limits = limits
        self._sampling = sampling
        self._memory = memory
        self._today = today
        self._opened: _Opened | None = None
        self._opening = anyio.Lock()

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        model: str | None = None,
        shields: str | None = None,
        memory: str | Path | Store | None = None,
    ) -> Agent:
        """The agent that a YAML file describes; the arguments take precedence over the file.

        Raises:
            ConfigError: The file can't be read, or something in it can't be used: says where.
        """
        from corral.agents.spec import load_agent

        return load_agent(Path(path), model=model, shields=shields, memory=memory)

    async def stream(
        self, message: str | UserMessage, *, session: str | None = None
    ) -> AsyncGenerator[Event]:
        """Run a turn and yield its events as they happen, the last a `TurnFinished`.

        Leaving the loop early, or cancelling the task, stops the model within a token and records
        the turn as cancelled. To leave early at once, and not when the generator is collected,
        wrap it in `contextlib.aclosing`.

        Args:
            message: What the user says.
            session: The conversation to go on with, or to begin; by default a new one.

        Raises:
            InputError: The message is empty or no text.
            ConfigError: `session` can't name a session.
            SessionBusy: Another turn runs in this session.
            CorralError: The model or the store failed. `TurnFinished` has been yielded before.
        """
        message = self.check_turn(message, session)
        opened = await self.open()
        parts = TurnParts(
            agent=self.name,
            instructions=self._instructions,
            runtime=opened.runtime,
            tools=self._tools,
            shield=opened.shield,
            limits=self._limits,
            sampling=self._sampling,
            date=self._today(),
        )
        key = session if session is not None else self.new_session()
        leased = opened.store.turn(
            key,
            agent=self.name,
            model=opened.runtime.name,
            shielded=opened.shield is not None,
        )
        async with leased as turn:
            async with aclosing(TurnRun(parts, turn).events(message)) as events:
                async for event in events:
                    yield event

    async def run(self, message: str | UserMessage, *, session: str | None = None) -> TurnResult:
        """Run a turn to its end. Arguments and errors are those of `stream`."""
        events: list[Event] = []
        key = ""
        async with aclosing(self.stream(message, session=session)) as stream:
            async for event in stream:
                events.append(event)
                if isinstance(event, TurnStarted):
                    key = event.session
        last = events[-1]
        assert isinstance(last, TurnFinished)
        return TurnResult(
            outcome=last.outcome,
            text=last.text,
            session=key,
            reason=last.reason,
            usage=last.usage,
            events=tuple(events),
        )

    def run_sync(self, message: str | UserMessage, *, session: str | None = None) -> TurnResult:
        """`run`, for code that isn't async.

        Raises:
            ConfigError: An event loop is running in this thread already.
        """
        try:
            anyio.lowlevel.current_token()
        except anyio.NoEventLoopError:

            async def run() -> TurnResult:
                return await self.run(message, session=session)

            return anyio.run(run)
        raise ConfigError(
            "run_sync was called from async code, which it would block. Use: await agent.run(...)"
        )

    async def open(self, *, progress: Progress | None = None) -> _Opened:
        """Load what the agent needs, unless that is done.

        Args:
            progress: Told of downloads and loading; see `corral.model_runtime.opening.Progress`.

        Raises:
            RuntimeUnavailable: A model can't be had.
            SandboxUnavailable: A tool needs the sandbox, and this machine can't confine code.
            StoreError: The memory can't be opened.
        """
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open(progress)
            return self._opened

    async def _open(self, progress: Progress | None) -> _Opened:
        owned: list[Runtime | Store] = []
        try:
            store = await _open_store(self._memory)
            if store is not self._memory:
                owned.append(store)
            for each in self._tools:
                await each.ready()
            if isinstance(self._model, str):
                runtime = await open_runtime(self._model, progress=progress)
                owned.append(runtime)
            else:
                runtime = self._model
            shield = self._shields
            if isinstance(shield, GuardSettings):
                guard = await open_runtime(shield.model, progress=progress)
                owned.append(guard)
                shield = LlamaGuard(guard, policy=shield.policy, threshold=shield.threshold)
        except BaseException:
            with anyio.CancelScope(shield=True):
                for thing in reversed(owned):
                    await thing.aclose()
            raise
        return _Opened(runtime, shield, store, owned)

    async def aclose(self) -> None:
        """Let go of what was opened. A later turn opens it again."""
        async with self._opening:
            opened, self._opened = self._opened, None
            for thing in reversed(opened.owned if opened else []):
                await thing.aclose()

    async def __aenter__(self) -> Self:
        """Open the agent."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    @property
    def memory_place(self) -> str:
        """Where conversations are kept, for people to read."""
        if self._memory is None:
            from corral.memory.sqlite import default_path

            return str(default_path())
        if isinstance(self._memory, (str, Path)):
            return (
                "memory, until this program ends"
                if self._memory == "temporary"
                else str(self._memory)
            )
        return "the agent's store"

    @staticmethod
    def check_turn(message: str | UserMessage, session: str | None) -> UserMessage:
        """The message as a turn takes it, without starting one or loading anything.

        Raises:
            InputError: It is empty, or not valid text.
            ConfigError: `session` can't name a session.
        """
        if session is not None:
            check_key(session)
        return _user_message(message)

    def new_session(self) -> str:
        """A key for a conversation that isn't there yet."""
        return f"{self._today():%Y-%m-%d}-{secrets.token_hex(4)}"


def _tools(given: Sequence[Tool | Callable[..., Any]]) -> tuple[Tool, ...]:
    tools = tuple(each if isinstance(each, Tool) else _function_tool(each) for each in given)
    names = [each.spec.name for each in tools]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two tools are called {name!r}. Give one of them another name.")
    return tools


def _function_tool(given: object) -> FunctionTool[..., Any]:
    if callable(given):
        return tool(cast("Callable[..., Any]", given))
    raise ConfigError(f"{given!r} is no tool. Give a function with types and a docstring.")


def _shields(
    given: str | GuardSettings | Shield, model: str | Runtime
) -> GuardSettings | Shield | None:
    if not isinstance(given, str):
        if isinstance(given, GuardSettings):
            check_model_string(given.model)
        return given
    if given == "none":
        return None
    chosen = _own_guard(model) if given == "auto" else given
    check_model_string(chosen)
    return GuardSettings(model=chosen)


def _own_guard(model: str | Runtime) -> str:
    """The guard that runs where the model runs."""
    name = model if isinstance(model, str) else model.name
    if name in BUNDLED:
        return "cria-guard"
    if name.startswith("ollama:"):
        return "ollama:llama-guard3:1b"
    if name.startswith("transformers:meta-llama/"):
        return "transformers:meta-llama/Llama-Guard-3-1B"
    raise ConfigError(
        f"Corral doesn't know which guard goes with {name!r}. Name one "
        "(shields: ollama:llama-guard3:1b), or say that there is none (shields: none)."
    )


async def _open_store(memory: str | Path | Store | None) -> Store:
    if memory is not None and not isinstance(memory, (str, Path)):
        return memory
    from corral.memory.sqlite import SQLiteStore, default_path

    if memory == "temporary":
        return await SQLiteStore.open(None)
    return await SQLiteStore.open(default_path() if memory is None else _path(memory))


def _path(memory: str | Path) -> Path:
    return Path(memory).expanduser()


def _user_message(message: str | UserMessage) -> UserMessage:
    if isinstance(message, str):
        message = UserMessage(content=message)
    try:
        message.text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "The message is not valid text: it holds half of a surrogate pair. Send it as UTF-8."
        ) from error
    if isinstance(message.content, str) and not message.content.strip():
        raise InputError("The message is empty. Say something.")
    return message
