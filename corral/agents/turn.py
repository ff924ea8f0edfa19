"""The life of a turn, as one async generator of events.

The user's message is committed and judged; then steps follow, each one generation and the calls it
asked for; then the answer leaves through its gate. Whatever fails in a call becomes a result that
the model can read. Nothing is told to the caller before it is on disk, and no cancel scope is held
over a `yield`, so the generator may be left at any point.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import anyio

from corral.agents.answer import AnswerGate
from corral.agents.limits import Limits, LoopBreaker
from corral.errors import CorralError, ModelError, ToolError
from corral.events import (
    CallFinished,
    CallRequested,
    Event,
    Outcome,
    ShieldChecked,
    StepFinished,
    StepStarted,
    TextDelta,
    TurnFinished,
    TurnStarted,
    Usage,
)
from corral.memory import Turn, fit
from corral.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolResult,
    UserMessage,
)
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.parser import OutputParser
from corral.model_runtime.parser import TextDelta as ParsedText
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Finish, Piece, Runtime, Sampling
from corral.safety import Said, Shield, ask
from corral.tools.tool import Tool, ToolContext

__all__ = ["TurnParts", "TurnRun"]

_REFUSAL = "I can't help with that."
_UNCHECKED = "I can't answer: the safety check could not be completed."
_SHIELD_SECONDS = 60.0
_SPARE_TOKENS = 64

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnParts:
    """What a turn is made of."""

    agent: str
    instructions: str
    runtime: Runtime
    tools: Sequence[Tool]
    shield: Shield | None
    limits: Limits
    sampling: Sampling
    date: datetime.date


class _Blocked(Exception):
    """A gate stopped the turn."""

    def __init__(self, check: ShieldChecked) -> None:
        self.check = check


class _Stopped(Exception):
    """A limit stopped the turn."""


class TurnRun:
    """One turn. `events` may be iterated once."""

    def __init__(self, parts: TurnParts, turn: Turn) -> None:
        """Run on a leased `turn` of the store."""
        self._parts = parts
        self._turn = turn
        self._tools = {tool.spec.name: tool for tool in parts.tools}
        self._specs = [tool.spec for tool in parts.tools]
        self._started = time.monotonic()
        self._usage = Usage()
        self._breaker = LoopBreaker()
        self._gate = AnswerGate(None)
        self._text = ""
        self._answered = False

    async def events(self, message: UserMessage) -> AsyncGenerator[Event]:
        """Run the turn that `message` begins.

        Raises:
            CorralError: The model or the store failed. The turn is on disk as failed, and its
                `TurnFinished` has been yielded.
        """
        outcome: Outcome = "answered"
        text, reason, failure = "", None, None
        try:
            async with aclosing(self._turn_events(message)) as events:
                async for event in events:
                    yield event
            text = self._text
        except _Blocked as stop:
            outcome, reason = "blocked", _why(stop.check)
            text = _UNCHECKED if stop.check.verdict.reason else _REFUSAL
        except _Stopped as stop:
            outcome, reason, text = "limit", str(stop), self._gate.released or self._text
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            with anyio.CancelScope(shield=True):
                await self._keep_partial()
                await self._turn.finish("cancelled", reason="cancelled", usage=self._usage)
            raise
        except CorralError as error:
            outcome, reason, failure = "failed", str(error), error
            text = self._gate.released or self._text
        with anyio.CancelScope(shield=True):
            if outcome in ("limit", "failed"):
                await self._keep_partial()
            await self._turn.finish(outcome, reason=reason, usage=self._usage)
        yield TurnFinished(
            outcome=outcome,
            text=text,
            reason=reason,
            usage=self._usage,
            seconds=round(time.monotonic() - self._started, 3),
        )
        if failure is not None:
            raise failure

    async def _turn_events(self, message: UserMessage) -> AsyncGenerator[Event]:
        parts = self._parts
        await self._turn.append(message)
        yield TurnStarted(
            turn_id=self._turn.id,
            session=self._turn.session,
            agent=parts.agent,
            model=parts.runtime.name,
        )
        if parts.shield is not None:
            check = await ask(
                parts.shield, "input", await self._conversation(), seconds=self._patience()
            )
            await self._turn.record(check)
            yield check
            if check.blocked:
                raise _Blocked(check)
        for step in range(1, parts.limits.steps + 1):
            async with aclosing(self._step(step)) as events:
                async for event in events:
                    yield event
            if self._answered:
                return
        raise _Stopped(f"the turn took its {parts.limits.steps} steps without an answer")

    async def _step(self, step: int) -> AsyncGenerator[Event]:
        """One generation, its text through the gate, and its calls."""
        yield StepStarted(step=step)
        began = time.monotonic()
        history = await self._turn.history()
        said = _as_said(history)
        self._gate, self._text = AnswerGate(self._answer_check(said)), ""
        prompt, sampling = await self._timed(self._prompt(history))
        parser = OutputParser(self._specs)
        finish: Finish | None = None
        async with aclosing(self._parts.runtime.generate(prompt, sampling=sampling)) as pieces:
            while finish is None:
                piece = await self._timed(anext(pieces, None))
                if piece is None:
                    raise ModelError("The model's output broke off. Try again.")
                if isinstance(piece, Finish):
                    finish = piece
                    continue
                async with aclosing(self._parsed(parser, piece)) as events:
                    async for event in events:
                        yield event
        self._usage += finish.usage
        message = parser.finish(finish.reason)
        for delta in parser.deltas:
            if isinstance(delta, ParsedText) and (out := self._gate.feed(delta.text)):
                yield TextDelta(text=out)
        async with aclosing(self._judged(last=True)) as events:
            async for event in events:
                yield event
        await self._turn.append(message)
        self._text, self._gate = message.text, AnswerGate(None)
        for call in message.calls:
            yield CallRequested(call=call)
        yield StepFinished(
            step=step,
            stop_reason=finish.reason,
            usage=finish.usage,
            seconds=round(time.monotonic() - began, 3),
        )
        if not message.call_ids:
            self._conclude(message)
            return
        for finished in await self._run_calls(message):
            yield finished

    def _conclude(self, message: AssistantMessage) -> None:
        """See whether a step without calls has answered."""
        self._answered = True
        if message.stop_reason == "max_tokens":
            raise _Stopped("the answer was cut at the limit of its tokens")
        if not message.text.strip():
            raise ModelError("The model gave an empty answer. Ask again, or put it another way.")

    async def _parsed(self, parser: OutputParser, piece: Piece) -> AsyncGenerator[Event]:
        for delta in parser.feed(piece):
            if isinstance(delta, ParsedText) and (out := self._gate.feed(delta.text)):
                yield TextDelta(text=out)
        if self._gate.window_full:
            async with aclosing(self._judged(last=False)) as events:
                async for event in events:
                    yield event

    async def _judged(self, *, last: bool) -> AsyncGenerator[Event]:
        judged = await self._gate.judge(last=last)
        if judged is None:
            return
        check, released = judged
        await self._turn.record(check)
        if check.blocked:
            yield check
            raise _Blocked(check)
        yield TextDelta(text=released)
        yield check

    def _answer_check(self, said: Sequence[Said]):
        shield = self._parts.shield
        if shield is None:
            return None

        async def check(answer: str) -> ShieldChecked:
            conversation = [*said, Said("agent", answer)]
            return await ask(shield, "answer", conversation, seconds=self._patience())

        return check

    async def _prompt(self, history: Sequence[Message]) -> tuple[Prompt, Sampling]:
        """The prompt of the next step, cut to the model's context, and how much it may write."""
        parts = self._parts
        left = parts.limits.tokens - self._usage.output_tokens
        if left <= 0:
            raise _Stopped(f"the turn wrote its {parts.limits.tokens} tokens")
        sampling = parts.sampling
        room = min(sampling.max_tokens, left)
        budget = parts.runtime.profile.context_length - room - _SPARE_TOKENS

        def render(messages: Sequence[Message]) -> Prompt:
            system = [SystemMessage(text=parts.instructions)] if parts.instructions else []
            return render_prompt(
                [*system, *messages],
                tools=self._specs,
                format=parts.runtime.profile.format,
                date=parts.date,
            )

        async def count(messages: Sequence[Message]) -> int:
            return await parts.runtime.count(render(messages))

        shown = await fit(history, budget=budget, count=count)
        return render(shown), Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=room,
            seed=sampling.seed,
        )

    async def _run_calls(self, message: AssistantMessage) -> list[CallFinished]:
        """Run a message's calls together, or answer its unreadable one; results in call order."""
        if message.invalid is not None:
            result = ToolResult(
                call_id=message.invalid.id,
                name="",
                content=f"error: {message.invalid.message}",
                is_error=True,
            )
            await self._turn.append(result)
            return [CallFinished(result=result, seconds=0.0)]
        finished: dict[str, CallFinished] = {}
        stop = False

        async def run(call: ToolCall) -> None:
            nonlocal stop
            began = time.monotonic()
            result, again = self._breaker.look(call, await self._call(call))
            await self._turn.append(result)
            stop = stop or again
            seconds = round(time.monotonic() - began, 3)
            finished[call.id] = CallFinished(result=result, seconds=seconds)

        async def all_calls() -> None:
            failures: list[BaseException] = []
            try:
                async with anyio.create_task_group() as tasks:
                    for call in message.calls:
                        tasks.start_soon(run, call)
            except* CorralError as errors:
                failures.extend(errors.exceptions)
            if failures:  # the store's, since a tool's own become results
                raise failures[0]

        await self._timed(all_calls())
        if stop:
            raise _Stopped("the model kept making the same call")
        return [finished[call.id] for call in message.calls]

    async def _call(self, call: ToolCall) -> ToolResult:
        """One call's result; a tool that fails has one too."""
        context = ToolContext(session=self._turn.session, turn_id=self._turn.id, call_id=call.id)
        try:
            output = await self._tools[call.name].call(call.arguments, context)
            content, is_error = output.content, output.is_error
        except ToolError as error:
            content, is_error = f"error: {error}", True
        except Exception as error:  # the tool's own fault: the model may try something else
            content, is_error = f"error: {type(error).__name__}: {error}", True
        return ToolResult(call_id=call.id, name=call.name, content=content, is_error=is_error)

    async def _conversation(self) -> list[Said]:
        return _as_said(await self._turn.history())

    async def _timed(self, awaitable: Awaitable[_T]) -> _T:
        try:
            with anyio.fail_after(max(0.0, self._remaining())):
                return await awaitable
        except TimeoutError:
            seconds = self._parts.limits.seconds
            raise _Stopped(f"the turn took its {seconds:g} seconds") from None

    def _remaining(self) -> float:
        return self._parts.limits.seconds - (time.monotonic() - self._started)

    def _patience(self) -> float:
        """Seconds that a shield may take: its own bound, and what is left of the turn."""
        return max(0.001, min(_SHIELD_SECONDS, self._remaining()))

    async def _keep_partial(self) -> None:
        """Put on disk what the user was shown of an answer that was cut short."""
        if self._gate.released:
            await self._turn.append(
                AssistantMessage(text=self._gate.released, stop_reason="cancelled")
            )


def _as_said(messages: Sequence[Message]) -> list[Said]:
    """A conversation as a shield reads it: what the user and the agent said, without the tools."""
    said: list[Said] = []
    for message in messages:
        if isinstance(message, UserMessage):
            said.append(Said("user", message.text))
        elif isinstance(message, AssistantMessage) and message.text:
            said.append(Said("agent", message.text))
    return said


def _why(check: ShieldChecked) -> str:
    found = ", ".join(check.verdict.categories) or check.verdict.reason or "unsafe"
    return f"{check.gate} gate: {found}"
