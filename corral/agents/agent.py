"""`Agent`: a model, its instructions, its tools, its shield and its memory, ready to be asked.

Everything heavy is opened at the first turn (or by `async with agent`), and let go by `aclose`.
"""

from __future__ import annotations

import copy
import datetime
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel

from corral.agents.calls import Approve
from corral.agents.limits import Limits
from corral.agents.prompting import Prompting
from corral.agents.result import TurnResult
from corral.agents.tools import AgentTools, CanClose, Given, check_deps, close_all
from corral.agents.turn import TurnParts, TurnRun
from corral.errors import ConfigError, InputError
from corral.events import Event
from corral.memory import PendingCall, Store, Turn, UnfinishedTurn
from corral.memory.repair import repair
from corral.memory.store import check_key
from corral.messages import UserMessage
from corral.model_runtime.formats import find_format
from corral.model_runtime.opening import (
    Progress,
    bundled_name,
    check_model_string,
    open_runtime,
)
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Runtime, Sampling
from corral.safety import Action, LlamaGuard, Shield
from corral.tools.sandbox import Permissions
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
    tools: tuple[Tool, ...]
    owned: list[CanClose]


_UNSET = object()
"""Stands for `deps` that were not given, since None is something that one may give."""


class Agent:
    """An agent on a Llama model. Any number of turns may run at once, one in each session."""

    def __init__(
        self,
        *,
        model: str | Runtime,
        instructions: str = "",
        tools: Sequence[Given] = (),
        shields: str | GuardSettings | Shield = "auto",
        name: str = "agent",
        limits: Limits = Limits(),
        sampling: Sampling | Mapping[str, Any] | None = None,
        format: str | None = None,
        constrained: bool = True,
        memory: str | Path | Store | None = None,
        today: Callable[[], datetime.date] = datetime.date.today,
        deps: object = None,
        approve: Approve | None = None,
        permissions: Permissions | None = None,
        source: str | Path | None = None,
    ) -> None:
        """Describe an agent. Nothing is loaded yet.

        Args:
            model: A model string (`cria`, `ollama:llama3.2:3b`, `transformers:FOLDER-OR-ID`), or an
                open runtime, which the caller keeps and closes.
            instructions: The system prompt.
            tools: Tools, typed functions with docstrings, which become tools, and sources of tools.
                What they hold open is closed with the agent.
            shields: A guard's model string or settings, a shield, `"auto"` (the guard of the
                model's own kind), or `"none"`: an agent that nothing shields has to say so.
            name: What sessions and events call it.
            limits: The bounds of each turn.
            sampling: How tokens are drawn, or some of a `Sampling`'s fields; what is left out is as
                the model's makers have it.
            format: The prompt format, a key of `corral.model_runtime.FORMATS`; by default that of
                the model's profile.
            constrained: Whether a grammar holds the model to valid calls, where its runtime can.
            memory: Where conversations are kept: a database's path, a store, `"temporary"` for
                this object's life only; by default the user's own database.
            today: The date that the model is told.
            deps: What tools find as `RunContext.deps`, unless a turn is given its own.
            approve: Asked about every call that needs approval: an async function of the
                `ApprovalRequested`, which gives `True`, `False`, or a string, a no with its reason.
                Without it, `approve` and `deny` answer.
            permissions: A ceiling: what no tool may go beyond, whatever it was given itself.
            source: The file that describes the agent. Each turn notes it, so that `corral approve`
                finds it.

        Raises:
            ConfigError: Something of it can't be used.
        """
        if isinstance(model, str):
            check_model_string(model)
        self.name = name
        self.model = model if isinstance(model, str) else model.name
        self._model = model
        self._instructions = instructions
        self._tools = AgentTools(tools, ceiling=permissions)
        self._shields = _shields(shields, model)
        self._limits = limits
        self._sampling = sampling
        self._format = None if format is None else find_format(format).name
        self._constrained = constrained
        self._memory = memory
        self._today = today
        self._deps = deps
        self._approve = approve
        self._source = None if source is None else str(Path(source).absolute())
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
        self,
        message: str | UserMessage,
        *,
        session: str | None = None,
        deps: object = _UNSET,
        wait: bool = True,
    ) -> AsyncGenerator[Event]:
        """Run a turn and yield its events as they happen, the last a `TurnFinished`.

        Leaving the loop early, or cancelling the task, stops the model within a token and records
        the turn as cancelled; but where it waits for an approval it goes on waiting on disk, for
        `resume`. To leave early at once, and not when the generator is collected, wrap it in
        `contextlib.aclosing`.

        Args:
            message: What the user says. Calls of the turn before that still wait are withdrawn.
            session: The conversation to go on with, or to begin; by default a new one.
            deps: What tools find as `RunContext.deps` in this turn, instead of the agent's.
            wait: Whether to wait where a call needs approval and the agent has no `approve`
                function: for `approve` or `deny`, from any task or process. If not, the turn ends
                as `waiting` unless they are called before the next event is asked for.

        Raises:
            InputError: The message is empty or no text.
            ConfigError: `session` can't name a session, or a tool wants `deps` and has none.
            SessionBusy: Another turn runs in this session.
            CorralError: The model or the store failed. `TurnFinished` has been yielded before.
        """
        message = self.check_turn(message, session)
        key = session if session is not None else self.new_session()

        def lease(store: Store, model: str, shielded: bool) -> AbstractAsyncContextManager[Turn]:
            return store.turn(
                key, agent=self.name, model=model, shielded=shielded, source=self._source
            )

        async with aclosing(self._events(lease, message, deps=deps, wait=wait)) as events:
            async for event in events:
                yield event

    async def resume(
        self, session: str, *, deps: object = _UNSET, wait: bool = True
    ) -> AsyncGenerator[Event]:
        """Go on with a session's last turn, which waits for an answer or whose process died.

        The events are those of the same turn from where it stood. A call that was approved
        meanwhile runs now, and only once; one that was denied becomes a result that the model
        reads; one that still waits is asked about again. A call that had begun when the turn was
        cut short isn't run again: the model reads that its effect is unknown.

        Args:
            session: The session's key.
            deps: As for `stream`.
            wait: As for `stream`.

        Raises:
            ConfigError: There is no turn to go on with, or a tool wants `deps` and has none.
            SessionBusy: The turn still runs, or another process goes on with it.
            CorralError: The model or the store failed. `TurnFinished` has been yielded before.
        """
        check_key(session)

        def lease(store: Store, model: str, shielded: bool) -> AbstractAsyncContextManager[Turn]:
            return store.resume(session)

        async with aclosing(self._events(lease, None, deps=deps, wait=wait)) as events:
            async for event in events:
                yield event

    async def _events(
        self,
        lease: Callable[[Store, str, bool], AbstractAsyncContextManager[Turn]],
        message: UserMessage | None,
        *,
        deps: object,
        wait: bool,
    ) -> AsyncGenerator[Event]:
        given = self._deps if deps is _UNSET else deps
        check_deps(self._tools.own, given)
        opened = await self.open()
        check_deps(opened.tools, given)
        parts = TurnParts(
            agent=self.name,
            prompting=self._prompting(opened),
            tools=opened.tools,
            shield=opened.shield,
            store=opened.store,
            limits=self._limits,
            deps=given,
            approve=self._approve,
            wait=wait,
        )
        leased = lease(opened.store, opened.runtime.name, opened.shield is not None)
        async with leased as turn:
            run = TurnRun(parts, turn, resumed=message is None)
            async with aclosing(run.events(message)) as events:
                async for event in events:
                    yield event

    def _prompting(self, opened: _Opened) -> Prompting:
        return Prompting.of(
            opened.runtime,
            instructions=self._instructions,
            tools=[tool.spec for tool in opened.tools],
            date=self._today(),
            format=self._format,
            sampling=self._sampling,
            constrained=self._constrained,
        )

    async def preview(
        self, message: str | UserMessage, *, session: str | None = None
    ) -> tuple[Prompting, Prompt]:
        """The prompt of the first step that a message would lead to. Nothing is asked or kept.

        Raises:
            InputError: The message is empty or no text.
            CorralError: The agent can't be opened.
        """
        message = self.check_turn(message, session)
        opened = await self.open()
        prompting = self._prompting(opened)
        items = await opened.store.items(session) if session is not None else []
        earlier = [item.message for item in items if item.message and not item.hidden]
        history = repair([*earlier, message], {})
        room = prompting.sampling.max_tokens
        return prompting, await prompting.prompt(history, room=room)

    async def run(
        self, message: str | UserMessage, *, session: str | None = None, deps: object = _UNSET
    ) -> TurnResult:
        """Run a turn to its end. Arguments and errors are those of `stream`.

        Where a call needs approval and the agent has no `approve` function, the turn ends as
        `waiting`: answer by `approve` or `deny`, then `run_resumed`.
        """
        events = self.stream(message, session=session, deps=deps, wait=False)
        return await TurnResult.collect(events)

    async def run_resumed(self, session: str, *, deps: object = _UNSET) -> TurnResult:
        """`resume`, run to its end or to the next call that waits."""
        return await TurnResult.collect(self.resume(session, deps=deps, wait=False))

    def run_sync(
        self, message: str | UserMessage, *, session: str | None = None, deps: object = _UNSET
    ) -> TurnResult:
        """`run`, for code that isn't async.

        Raises:
            ConfigError: An event loop is running in this thread already.
        """
        try:
            anyio.lowlevel.current_token()
        except anyio.NoEventLoopError:

            async def run() -> TurnResult:
                return await self.run(message, session=session, deps=deps)

            return anyio.run(run)
        raise ConfigError(
            "run_sync was called from async code, which it would block. Use: await agent.run(...)"
        )

    async def pending(self, session: str) -> list[PendingCall]:
        """The calls of a session that wait for a person's answer, in whatever process they began.

        Raises:
            ConfigError: `session` can't name a session.
            StoreError: The memory can't be read.
        """
        found = await self.unfinished(session)
        return list(found.pending) if found else []

    async def unfinished(self, session: str) -> UnfinishedTurn | None:
        """The session's last turn, if it runs now or `resume` can go on with it."""
        async with self._store() as store:
            return await store.unfinished(check_key(session))

    async def approve(self, session: str, call_id: str) -> None:
        """Allow a call that waits. The answer is on disk when this returns.

        A turn that runs, in this process or another, goes on by itself; one that doesn't goes on
        with `resume`.

        Raises:
            ConfigError: No such call waits in the session: it is unknown, was answered before, or
                was withdrawn.
            StoreError: The answer can't be written.
        """
        async with self._store() as store:
            await store.answer(check_key(session), call_id, approved=True)

    async def deny(self, session: str, call_id: str, reason: str | None = None) -> None:
        """Refuse a call that waits; the model reads the reason. Otherwise like `approve`."""
        async with self._store() as store:
            await store.answer(check_key(session), call_id, approved=False, reason=reason)

    @asynccontextmanager
    async def _store(self) -> AsyncGenerator[Store]:
        """The agent's store, opened for this block alone where the agent isn't open."""
        if self._opened is not None:
            yield self._opened.store
            return
        store = await _open_store(self._memory)
        try:
            yield store
        finally:
            if store is not self._memory:
                await store.aclose()

    async def open(
        self,
        *,
        progress: Progress | None = None,
        opener: Callable[[str], Awaitable[Runtime]] | None = None,
    ) -> _Opened:
        """Load what the agent needs, unless that is done.

        Args:
            progress: Told of downloads and loading; see `corral.model_runtime.opening.Progress`.
            opener: Opens models in place of `open_runtime`, and keeps them: they stay open when
                the agent is closed. So several agents can share a loaded model.

        Raises:
            RuntimeUnavailable: A model can't be had.
            SandboxUnavailable: A tool needs the sandbox, and this machine can't confine code.
            StoreError: The memory can't be opened.
        """
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open(progress, opener)
            return self._opened

    async def _open(
        self, progress: Progress | None, opener: Callable[[str], Awaitable[Runtime]] | None
    ) -> _Opened:
        owned: list[CanClose] = []

        async def model(name: str) -> Runtime:
            if opener is not None:
                return await opener(name)
            runtime = await open_runtime(name, progress=progress)
            owned.append(runtime)
            return runtime

        try:
            store = await _open_store(self._memory)
            if store is not self._memory:
                owned.append(store)
            tools = await self._tools.open(owned)
            if isinstance(self._model, str):
                runtime = await model(self._model)
            else:
                runtime = self._model
            shield = self._shields
            if isinstance(shield, GuardSettings):
                guard = await model(shield.model)
                shield = LlamaGuard(guard, policy=shield.policy, threshold=shield.threshold)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await close_all(owned)
            raise
        return _Opened(runtime, shield, store, tools, owned)

    async def aclose(self) -> None:
        """Let go of what was opened, and close the tools. A later turn opens it all again."""
        async with self._opening:
            opened, self._opened = self._opened, None
            await close_all(opened.owned if opened else [])

    async def __aenter__(self) -> Self:
        """Open the agent."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Its tools; those of sources such as MCP servers only while it is open."""
        return self._opened.tools if self._opened is not None else self._tools.own

    @property
    def sampling(self) -> Sampling:
        """How its tokens are drawn.

        Raises:
            ConfigError: It isn't open, so what its model's makers have isn't known yet.
        """
        return self._prompting(self._as_open()).sampling

    def variant(self, *, memory: Store | None = None, sampling: Sampling | None = None) -> Agent:
        """This agent with another memory or other sampling, on the same loaded model and guard.

        For front ends that serve many people: a variant costs nothing to make and owns nothing, so
        it need not be closed. It lives as long as this agent is open.

        Raises:
            ConfigError: This agent isn't open.
        """
        opened = self._as_open()
        twin = copy.copy(self)
        twin._opening = anyio.Lock()
        twin._opened = replace(opened, store=memory or opened.store, owned=[])
        twin._sampling = sampling or self._sampling
        return twin

    def _as_open(self) -> _Opened:
        if self._opened is None:
            raise ConfigError(f"The agent {self.name!r} isn't open. Open it: await agent.open()")
        return self._opened

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
    if bundled_name(name):
        return "cria-guard"
    if name.startswith("ollama:"):
        url = name.partition("@")[2].partition("?")[0]
        return f"ollama:llama-guard3:1b@{url}" if url else "ollama:llama-guard3:1b"
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
