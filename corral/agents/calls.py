"""The calls of one message: asked about where they must be, run once, answered in their order.

What a tool may do wrong becomes a result that the model reads. What must not happen twice is
written down before it happens: a request before anybody is asked, an answer before the call it
allows, a call's beginning before the call. So a turn that was cut short anywhere in here can be
gone on with, and no call runs a second time.

No call of a message runs before every one of its requests is answered: whoever is asked decides
before anything has happened.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from corral.agents.limits import Clock, LoopBreaker, Stopped
from corral.errors import ConfigError, CorralError, ToolError, ToolRetry
from corral.events import ApprovalAnswered, ApprovalRequested, CallFinished, Event, Usage
from corral.memory import UNKNOWN, CallState, Store, Turn, denied
from corral.messages import AssistantMessage, ToolCall, ToolResult
from corral.tools.options import ToolOptions, options_of
from corral.tools.tool import Checking, Tool, ToolContext, ToolOutput

__all__ = ["Approve", "CallRunner", "Waiting"]

Approve: TypeAlias = Callable[[ApprovalRequested], Awaitable[bool | str]]
"""Answers a request: `True` is a yes, `False` a no, and a string a no with its reason, which the
model reads."""

_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.5
"""Seconds between looks for an answer, which may come from another process."""

_NOTHING: Mapping[str, CallState] = {}


class Waiting(Exception):
    """A call waits for approval, and nobody waits with it."""


@dataclass(slots=True)
class _Plan:
    """What becomes of a call: it runs, is asked about first, or has its result already."""

    call: ToolCall
    ask: str | None = None
    result: ToolResult | None = None
    answered: ApprovalAnswered | None = None


@dataclass(slots=True)
class CallRunner:
    """Runs the calls of a turn's messages, one message after another.

    Attributes:
        tools: The agent's tools by name.
        turn: The turn that they belong to.
        store: Where its answers are written.
        clock: The turn's clock, which is held while somebody is asked.
        deps: What the tools' `RunContext` carries.
        approve: Who is asked, if there is somebody.
        wait: Whether to wait for an answer from elsewhere where there is nobody to ask.
        parked: Whether requests are on disk, and no call has begun since. A turn that ends here can
            be resumed.
    """

    tools: Mapping[str, Tool]
    turn: Turn
    store: Store
    clock: Clock
    deps: object = None
    approve: Approve | None = None
    wait: bool = True
    parked: bool = False
    _breaker: LoopBreaker = field(default_factory=LoopBreaker)
    _refused: dict[str, str | None] = field(default_factory=lambda: dict[str, str | None]())
    _retries: Counter[str] = field(default_factory=lambda: Counter[str]())

    async def events(
        self,
        message: AssistantMessage,
        *,
        usage: Usage,
        done: Iterable[str] = (),
        resumed: bool = False,
    ) -> AsyncGenerator[Event]:
        """Run a message's calls, or answer its unreadable one.

        Args:
            message: What the model said. It is on disk.
            usage: What the turn has used until now.
            done: The ids of calls that have their result.
            resumed: Whether this message's calls were begun to be handled before.

        Raises:
            Stopped: The turn's seconds are over, or the model goes in circles.
            Waiting: A call waits for approval, and `wait` is off.
            CorralError: The store failed.
        """
        if message.invalid is not None and message.invalid.id not in set(done):
            yield await self._unreadable(message.invalid.id, message.invalid.message)
        left = [call for call in message.calls if call.id not in set(done)]
        states = await self.turn.calls() if resumed else _NOTHING
        plans = [self._plan(call, states.get(call.id, CallState())) for call in left]
        asked = [plan for plan in plans if plan.ask is not None]
        if asked:
            self.parked = True
            reasons = {plan.call.id: plan.ask or "" for plan in asked}
            await self.turn.request_approval(reasons, usage=usage)
            self.clock.hold()
            requests = [self._request(plan) for plan in asked]
            for request in requests:
                yield request
            for plan, request in zip(asked, requests, strict=True):
                self._settle(plan, await self._answer(request))
        for plan in plans:
            if plan.answered is not None:
                self.parked = True
                yield plan.answered
        self.clock.go_on()
        self.parked = False
        for batch in self._batches(plans):
            finished, stop = await self.clock.timed(self._run_all(batch))
            for each in finished:
                yield each
            if stop:
                raise Stopped("the model kept making the same call")

    async def _unreadable(self, call_id: str, message: str) -> CallFinished:
        result = ToolResult(call_id=call_id, name="", content=f"error: {message}", is_error=True)
        await self.turn.append(result)
        return CallFinished(result=result, seconds=0.0)

    # -- before a call runs

    def _plan(self, call: ToolCall, state: CallState) -> _Plan:
        plan = _Plan(call)
        tool = self.tools.get(call.name)
        if state.began:
            plan.result = _error(call, UNKNOWN)
        elif state.approved is not None:
            self._settle(plan, state)
        elif tool is None:
            plan.result = _error(call, f"error: there is no tool {call.name!r} any more")
        else:
            try:
                if isinstance(tool, Checking):
                    tool.check(copy.deepcopy(call.arguments))
                plan.ask = state.why or options_of(tool).why_ask(copy.deepcopy(call.arguments))
            except ToolError as error:
                plan.result = _error(call, f"error: {error}")
        if plan.ask is not None and state.why is None and _same(call) in self._refused:
            # Nobody is asked until they say yes: a no holds for the turn.
            plan.ask, plan.result = None, _error(call, denied(self._refused[_same(call)]))
        return plan

    def _settle(self, plan: _Plan, state: CallState) -> None:
        """Take an answer."""
        approved = bool(state.approved)
        plan.answered = ApprovalAnswered(
            call_id=plan.call.id, approved=approved, reason=state.reason
        )
        if not approved:
            plan.result = _error(plan.call, denied(state.reason))
            self._refused[_same(plan.call)] = state.reason

    def _request(self, plan: _Plan) -> ApprovalRequested:
        return ApprovalRequested(
            session=self.turn.session, turn_id=self.turn.id, call=plan.call, why=plan.ask or ""
        )

    async def _answer(self, request: ApprovalRequested) -> CallState:
        """The answer to a request, wherever it comes from: the first that is written counts."""
        found: CallState | None = None
        failure: CorralError | None = None
        told = anyio.Event()
        async with anyio.create_task_group() as tasks:
            if self.approve is not None:
                tasks.start_soon(self._call_back, request, self.approve, told)
            try:
                found = await self._look(request.call.id, told)
            except CorralError as error:  # raised below, outside the group, which would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if found is None:
            raise Waiting(request.call.name)
        return found

    async def _look(self, call_id: str, told: anyio.Event) -> CallState | None:
        """Look until there is an answer; None at once where nobody is to wait for it."""
        pause = _FIRST_LOOK
        while True:
            state = (await self.turn.calls()).get(call_id, CallState())
            if not state.waits:
                return state
            if self.approve is None and not self.wait:
                return None
            with anyio.move_on_after(pause):
                await told.wait()
            pause = _LONGEST_LOOK if told.is_set() else min(2 * pause, _LONGEST_LOOK)

    async def _call_back(
        self, request: ApprovalRequested, approve: Approve, told: anyio.Event
    ) -> None:
        reason: str | None = None
        try:
            said = await approve(request)
            reason = said if isinstance(said, str) else None
            approved = said is True
        except Exception as error:  # a no that says why: nothing runs that nobody allowed
            approved = False
            reason = f"the approval could not be asked for ({type(error).__name__}: {error})"
        try:
            await self.store.answer(
                request.session, request.call.id, approved=approved, reason=reason
            )
        except ConfigError:
            pass  # somebody else answered first, and that is what counts
        told.set()

    # -- running

    def _batches(self, plans: Sequence[_Plan]) -> list[list[_Plan]]:
        """The calls in their order, those together that may run side by side."""
        batches: list[list[_Plan]] = []
        together = False
        for plan in plans:
            beside = plan.result is not None or self._options(plan.call.name).parallel
            if not batches or not (together and beside):
                batches.append([])
            batches[-1].append(plan)
            together = beside
        return batches

    async def _run_all(self, batch: Sequence[_Plan]) -> tuple[list[CallFinished], bool]:
        """Run calls side by side: their results in order, and whether the turn must end."""
        finished: dict[str, CallFinished] = {}
        failures: list[BaseException] = []
        stops: list[bool] = []

        async def run(plan: _Plan) -> None:
            began = time.monotonic()
            call, output = plan.call, None
            if plan.result is None:
                await self.turn.begin(call.id)
                output = await self._call(call)
            result = plan.result or _result(call, output)
            result, stop = self._breaker.look(call, result)
            await self.turn.append(result)
            stops.append(stop)
            finished[call.id] = CallFinished(
                result=result,
                seconds=round(time.monotonic() - began, 3),
                attachments=output.attachments if output else (),
            )

        try:
            async with anyio.create_task_group() as tasks:
                for plan in batch:
                    tasks.start_soon(run, plan)
        except* CorralError as errors:
            failures.extend(errors.exceptions)
        if failures:  # the store's, since a tool's own become results
            raise failures[0]
        return [finished[plan.call.id] for plan in batch], any(stops)

    async def _call(self, call: ToolCall) -> ToolOutput:
        """One call's output; a tool that fails has one too."""
        options = self._options(call.name)
        context = ToolContext(
            session=self.turn.session,
            turn_id=self.turn.id,
            call_id=call.id,
            deps=self.deps,
            retry=self._retries[call.name],
        )
        try:
            with anyio.move_on_after(options.timeout):
                return await self.tools[call.name].call(copy.deepcopy(call.arguments), context)
            said = (
                f"{call.name} took longer than its {options.timeout:g} seconds and was given up. "
                "What it had begun may have taken effect"
            )
        except ToolRetry as error:
            said = self._again(call.name, str(error), options)
        except ToolError as error:
            said = str(error)
        except Exception as error:  # the tool's own fault: the model may try something else
            said = f"{type(error).__name__}: {error}"
        return ToolOutput(content=f"error: {said}", is_error=True)

    def _again(self, name: str, said: str, options: ToolOptions) -> str:
        """What the model reads when a tool wants the call made again."""
        self._retries[name] += 1
        if self._retries[name] <= options.retries:
            return f"{said} (Make the call again, mended.)"
        return f"{said} (This was tried {self._retries[name]} times. Do not try {name} again.)"

    def _options(self, name: str) -> ToolOptions:
        return options_of(self.tools.get(name))


def _same(call: ToolCall) -> str:
    """What two calls that ask for the same have in common."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _result(call: ToolCall, output: ToolOutput | None) -> ToolResult:
    content = output.content if output else None
    is_error = output.is_error if output else True
    return ToolResult(call_id=call.id, name=call.name, content=content, is_error=is_error)


def _error(call: ToolCall, content: str) -> ToolResult:
    return ToolResult(call_id=call.id, name=call.name, content=content, is_error=True)
