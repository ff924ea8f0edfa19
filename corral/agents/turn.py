"""The life of a turn, as one async generator of events.

The user's message is committed and judged; then steps follow, each one generation and the calls it
asked for (`corral.agents.calls`); then the answer leaves through its gate. Whatever fails in a call
becomes a result that the model can read. Nothing is told to the caller before it is on disk, and no
cancel scope is held over a `yield`, so the generator may be left at any point. A turn that was left
while a call waited for approval, or whose process died, goes on from its log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio

from corral.agents.answer import AnswerGate
from corral.agents.calls import Approve, CallRunner, Waiting
from corral.agents.limits import Clock, Limits, Stopped
from corral.agents.mending import can_mend, mend
from corral.agents.prompting import Prompting
from corral.errors import CorralError, ModelError
from corral.events import (
    CallRequested,
    Event,
    Outcome,
    ShieldChecked,
    StepFinished,
    StepStarted,
    TextDelta,
    TurnFinished,
    TurnStarted,
)
from corral.memory import Store, Turn
from corral.messages import (
    AssistantMessage,
    Message,
    ToolResult,
    UserMessage,
)
from corral.model_runtime.parser import OutputParser
from corral.model_runtime.parser import TextDelta as ParsedText
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Finish, Piece, Runtime, Sampling
from corral.safety import Said, Shield, ask
from corral.tools.tool import Tool

__all__ = ["TurnParts", "TurnRun"]

_REFUSAL = "I can't help with that."
_UNCHECKED = "I can't answer: the safety check could not be completed."
_SHIELD_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnParts:
    """What a turn is made of.

    `deps` is what the tools' `RunContext` carries; `approve` answers for calls that need approval,
    and where there is no such function, `wait` says whether to wait for an answer from elsewhere or
    to end the turn as `waiting`.
    """

    agent: str
    prompting: Prompting
    tools: Sequence[Tool]
    shield: Shield | None
    store: Store
    limits: Limits
    deps: object = None
    approve: Approve | None = None
    wait: bool = True

    @property
    def runtime(self) -> Runtime:
        """The model."""
        return self.prompting.runtime


class _Blocked(Exception):
    """A gate stopped the turn."""

    def __init__(self, check: ShieldChecked) -> None:
        self.check = check


class TurnRun:
    """One turn. `events` may be iterated once."""

    def __init__(self, parts: TurnParts, turn: Turn, *, resumed: bool = False) -> None:
        """Run on a leased `turn` of the store; `resumed` is one that goes on."""
        self._parts = parts
        self._turn = turn
        self._resumed = resumed
        self._specs = parts.prompting.tools
        self._clock = Clock(parts.limits.seconds)
        self._usage = turn.usage
        self._calls = CallRunner(
            tools={tool.spec.name: tool for tool in parts.tools},
            turn=turn,
            store=parts.store,
            clock=self._clock,
            deps=parts.deps,
            approve=parts.approve,
            wait=parts.wait,
            parked=resumed,
        )
        self._gate = AnswerGate(None)
        self._text = ""
        self._answered = False

    async def events(self, message: UserMessage | None) -> AsyncGenerator[Event]:
        """Run the turn that `message` begins, or, without one, the rest of a resumed turn.

        Raises:
            CorralError: The model or the store failed. The turn is on disk as failed, and its
                `TurnFinished` has been yielded.
        """
        outcome: Outcome = "answered"
        text, reason, failure = "", None, None
        try:
            steps = self._turn_events(message) if message else self._resumed_events()
            async with aclosing(steps) as events:
                async for event in events:
                    yield event
            text = self._text
        except _Blocked as stop:
            outcome, reason = "blocked", _why(stop.check)
            text = _UNCHECKED if stop.check.verdict.reason else _REFUSAL
        except Stopped as stop:
            outcome, reason, text = "limit", str(stop), self._gate.released or self._text
        except Waiting as waiting:
            outcome, reason, text = "waiting", f"{waiting} waits for approval", self._text
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            with anyio.CancelScope(shield=True):
                await self._leave()
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
            seconds=round(self._clock.elapsed, 3),
        )
        if failure is not None:
            raise failure

    async def _leave(self) -> None:
        """End the turn because its caller has: for good, or for now where a call waits."""
        if self._calls.parked:
            await self._turn.finish("waiting", reason="left while waiting", usage=self._usage)
        else:
            await self._keep_partial()
            await self._turn.finish("cancelled", reason="cancelled", usage=self._usage)

    def _began(self) -> TurnStarted:
        return TurnStarted(
            turn_id=self._turn.id,
            session=self._turn.session,
            agent=self._parts.agent,
            model=self._parts.runtime.name,
            resumed=self._resumed,
        )

    async def _turn_events(self, message: UserMessage) -> AsyncGenerator[Event]:
        parts = self._parts
        await self._turn.append(message)
        yield self._began()
        if parts.shield is not None:
            check = await ask(
                parts.shield, "input", await self._conversation(), seconds=self._patience()
            )
            await self._turn.record(check)
            yield check
            if check.blocked:
                raise _Blocked(check)
        async with aclosing(self._steps(1)) as events:
            async for event in events:
                yield event

    async def _resumed_events(self) -> AsyncGenerator[Event]:
        """The turn from where its log ends: its last message's calls, then the steps after it."""
        yield self._began()
        own = await self._turn.messages()
        said = [message for message in own if isinstance(message, AssistantMessage)]
        done = {message.call_id for message in own if isinstance(message, ToolResult)}
        if said:
            self._text = said[-1].text
            if not said[-1].call_ids:
                self._conclude(said[-1])
                return
            rest = self._calls.events(said[-1], usage=self._usage, done=done, resumed=True)
            async with aclosing(rest) as events:
                async for event in events:
                    yield event
        self._calls.parked = False
        async with aclosing(self._steps(len(said) + 1)) as events:
            async for event in events:
                yield event

    async def _steps(self, first: int) -> AsyncGenerator[Event]:
        limit = self._parts.limits.steps
        for step in range(first, limit + 1):
            async with aclosing(self._step(step)) as events:
                async for event in events:
                    yield event
            if self._answered:
                return
        raise Stopped(f"the turn took its {limit} steps without an answer")

    async def _step(self, step: int) -> AsyncGenerator[Event]:
        """One generation, its text through the gate, and its calls."""
        yield StepStarted(step=step)
        began = time.monotonic()
        history = await self._turn.history()
        said = _as_said(history)
        self._gate, self._text = AnswerGate(self._answer_check(said)), ""
        prompt, sampling = await self._clock.timed(self._prompt(history))
        parser = OutputParser(self._specs)
        finish: Finish | None = None
        generation = self._parts.runtime.generate(
            prompt, sampling=sampling, constraint=self._parts.prompting.constraint
        )
        async with aclosing(generation) as pieces:
            while finish is None:
                piece = await self._clock.timed(anext(pieces, None))
                if piece is None:
                    raise ModelError("The model's output broke off. Try again.")
                if isinstance(piece, Finish):
                    finish = piece
                    continue
                async with aclosing(self._parsed(parser, piece)) as events:
                    async for event in events:
                        yield event
        message, usage = parser.finish(finish.reason), finish.usage
        self._usage += usage
        for delta in parser.deltas:
            if isinstance(delta, ParsedText) and (out := self._gate.feed(delta.text)):
                yield TextDelta(text=out)
        async with aclosing(self._judged(last=True)) as events:
            async for event in events:
                yield event
        if message.invalid is not None and can_mend(self._parts.runtime, self._specs):
            mending = mend(
                self._parts.runtime,
                history,
                message,
                message.invalid,
                tools=self._specs,
                make_prompt=self._prompt,
            )
            message, more = await self._clock.timed(mending)
            usage, self._usage = usage + more, self._usage + more
        await self._turn.append(message)
        self._text, self._gate = message.text, AnswerGate(None)
        for call in message.calls:
            yield CallRequested(call=call)
        yield StepFinished(
            step=step,
            stop_reason=finish.reason,
            usage=usage,
            seconds=round(time.monotonic() - began, 3),
        )
        if not message.call_ids:
            self._conclude(message)
            return
        async with aclosing(self._calls.events(message, usage=self._usage)) as events:
            async for event in events:
                yield event

    def _conclude(self, message: AssistantMessage) -> None:
        """See whether a step without calls has answered."""
        self._answered = True
        if message.stop_reason == "max_tokens":
            raise Stopped("the answer was cut at the limit of its tokens")
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
            raise Stopped(f"the turn wrote its {parts.limits.tokens} tokens")
        sampling = replace(
            parts.prompting.sampling, max_tokens=min(parts.prompting.sampling.max_tokens, left)
        )
        prompt = await parts.prompting.prompt(history, room=sampling.max_tokens)
        return prompt, sampling

    async def _conversation(self) -> list[Said]:
        return _as_said(await self._turn.history())

    def _patience(self) -> float:
        """Seconds that a shield may take: its own bound, and what is left of the turn."""
        return max(0.001, min(_SHIELD_SECONDS, self._clock.remaining))

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
