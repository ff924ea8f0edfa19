"""What a conversation store is: an append-only log for each session, written a turn at a time.

A turn leases its session, so two turns never interleave in one. What `Turn.append` has returned
from is on disk and stays there, whatever happens to the process. What was left half done is made
whole when it is read (`corral.memory.repair`), never by rewriting the log.
"""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from corral.errors import ConfigError
from corral.events import Outcome, ShieldChecked, Usage
from corral.messages import Message, ToolCall

__all__ = [
    "MAX_KEY",
    "NO_USAGE",
    "CallState",
    "Item",
    "PendingCall",
    "SessionInfo",
    "Store",
    "Turn",
    "UnfinishedTurn",
    "check_key",
]

MAX_KEY = 200
"""The longest session key, in characters."""

NO_USAGE = Usage()
"""No tokens at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as a list shows it.

    `agent` is the agent of its latest turn, `items` counts messages and verdicts, and `title` is
    the start of the first text that the user said, on one line of at most 80 characters.
    """

    key: str
    agent: str
    created_at: datetime
    updated_at: datetime
    turns: int
    items: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a session's log: a message or a shield's verdict, the other being `None`.

    `seq` counts from 1 within the session. `hidden` marks all that belongs to a turn which a shield
    stopped: it stays in the log and is never shown to a model again.
    """

    seq: int
    turn_id: str
    kind: Literal["message", "verdict"]
    message: Message | None
    verdict: ShieldChecked | None
    created_at: datetime
    hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallState:
    """What the log knows of a call besides its result.

    Attributes:
        why: Why somebody has to approve it; None where nobody was asked.
        approved: The answer; None where there is none yet.
        reason: What was said with a no.
        began: Whether it was begun. A call that was is never begun again.
    """

    why: str | None = None
    approved: bool | None = None
    reason: str | None = None
    began: bool = False

    @property
    def waits(self) -> bool:
        """Whether somebody still has to answer."""
        return self.why is not None and self.approved is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCall:
    """A call that waits for a person's yes or no."""

    session: str
    turn_id: str
    call: ToolCall
    why: str
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedTurn:
    """A session's last turn, where it runs or can be gone on with.

    Attributes:
        id: The turn's id.
        agent: The agent's name.
        model: The model's name.
        source: The agent's file, where it came from one.
        pending: The calls that wait for an answer, in their order.
    """

    id: str
    agent: str
    model: str
    source: str | None
    pending: tuple[PendingCall, ...]


class Turn(Protocol):
    """A running turn, which holds its session until it finishes.

    Every method raises `StoreError` when the store can't be read or written, and when the turn's
    hold on the session is gone: it finished, or its process stood still for so long that another
    turn took the session over.
    """

    @property
    def id(self) -> str:
        """The turn's own id, unique among all turns."""
        ...

    @property
    def session(self) -> str:
        """The key of the turn's session."""
        ...

    @property
    def usage(self) -> Usage:
        """What the turn had used when it was last let go of: nothing, for a new one."""
        ...

    async def messages(self) -> list[Message]:
        """This turn's own messages, as they were appended."""
        ...

    async def history(self) -> list[Message]:
        """What the model may see: earlier turns that no shield stopped, then this one; repaired.

        Call it when every call of the turn so far has its result: one that has none is shown as
        interrupted.
        """
        ...

    async def append(self, message: Message) -> None:
        """Add a message to the log. It is on disk when this returns.

        A cancellation doesn't keep it from getting there: what happened before is stored too.

        Raises:
            ValueError: For a `SystemMessage`. Agents put theirs in front when they render a prompt,
                so that a session is never bound to old instructions.
        """
        ...

    async def record(self, check: ShieldChecked) -> None:
        """Add a shield's verdict to the log. No model ever sees it."""
        ...

    async def calls(self) -> Mapping[str, CallState]:
        """What is known of the turn's calls, by their ids. A call that nothing befell isn't there.

        Answers may come from any process at any time, so it is read anew each time.
        """
        ...

    async def request_approval(self, reasons: Mapping[str, str], *, usage: Usage) -> None:
        """Write down that calls wait for a person's answer.

        All of them are on disk when this returns, with what the turn has used until now.

        Args:
            reasons: Why each needs approval, by the call's id. One that waits already is left.
            usage: What the turn has used.
        """
        ...

    async def begin(self, call_id: str) -> None:
        """Write down that a call begins now. On disk before the call runs, so that it runs once.

        Raises:
            StoreError: It had begun before, or it needs an approval that it doesn't have.
        """
        ...

    async def finish(
        self, outcome: Outcome, *, reason: str | None = None, usage: Usage = NO_USAGE
    ) -> None:
        """End the turn and let go of the session, both at once.

        `"waiting"` ends it for now: `Store.resume` goes on with it, as with a turn whose process
        died, until the session's next turn begins. `"blocked"` hides the turn from the model for
        good. So does a blocked input or answer that was recorded, unless the turn ends as
        `"answered"` or `"limit"`.
        """
        ...


class Store(Protocol):
    """Sessions and their logs, all of one tenant."""

    def turn(
        self,
        session: str,
        *,
        agent: str,
        model: str,
        wait: float = 0,
        shielded: bool = False,
        source: str | None = None,
    ) -> AbstractAsyncContextManager[Turn]:
        """Lease a session for one turn, and create the session if it is new.

        A turn before it that waits for an answer can't be gone on with any more: its calls are
        withdrawn, which the model reads as their results.

        A block that is left without `Turn.finish` ends its turn as `"failed"`, or as `"cancelled"`
        when it is left by a cancellation, an interrupt or a generator that is closed early.

        Args:
            session: The session's key: 1 to 200 characters, none of them a control character.
            agent: The agent's name, for the log.
            model: The model's name, for the log.
            wait: How many seconds to wait for another turn of this session to end.
            shielded: The turn's input will be judged. Should it end before a verdict is recorded
                that lets it pass, later turns won't see it.
            source: The agent's file, where it came from one.

        Raises:
            ConfigError: If the key can't be used.
            SessionBusy: If another live turn still holds the session after `wait` seconds.
            StoreError: If the store can't be written.
        """
        ...

    def resume(self, session: str, *, wait: float = 0) -> AbstractAsyncContextManager[Turn]:
        """Lease a session to go on with its last turn, which waits for an answer or was cut short.

        Args:
            session: The session's key.
            wait: How many seconds to wait for the process that runs the turn to end.

        Raises:
            ConfigError: There is nothing to go on with: the last turn came to its end, was
                cancelled, or was stopped by a shield or before the shield had judged it.
            SessionBusy: Another process goes on with it already.
            StoreError: The store can't be written.
        """
        ...

    async def unfinished(self, session: str) -> UnfinishedTurn | None:
        """The session's last turn, if it runs now or can be gone on with."""
        ...

    async def answer(
        self, session: str, call_id: str, *, approved: bool, reason: str | None = None
    ) -> None:
        """Answer for a call that waits. The answer is on disk when this returns.

        The session may be leased: a running turn finds the answer.

        Raises:
            ConfigError: No call of that id waits in the session: it is unknown, was answered
                before, or was withdrawn.
        """
        ...

    async def sessions(self) -> list[SessionInfo]:
        """All sessions, the one that was used last first."""
        ...

    async def items(self, session: str) -> list[Item]:
        """The log of a session in order, hidden turns included. Empty for an unknown session."""
        ...

    def export(self, session: str) -> AsyncIterator[str]:
        """The session as lines of JSON, none for an unknown session.

        One `session`, its `turn`s, the `approval`s that were asked for, then its `message`s and
        `verdict`s in order: each line is an object with that word as its `kind`.
        """
        ...

    async def forget(self, session: str) -> bool:
        """Delete a session and wipe its text from the disk.

        Returns:
            Whether there was such a session.

        Raises:
            SessionBusy: If a live turn holds it.
            StoreError: If it was deleted but its text could not be wiped yet; says why.
        """
        ...

    async def aclose(self) -> None:
        """Close the store. Every turn must have ended."""
        ...


_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""What no key holds: control characters, lone surrogates, line and paragraph separators."""


def check_key(key: str, *, what: str = "session's key") -> str:
    """Return `key` if it can name a session.

    Raises:
        ConfigError: If it is empty, longer than 200 characters, or holds a control character;
            says `what` that is.
    """
    if not key:
        raise ConfigError(f"The {what} is empty. Give it a name, such as 'main'.")
    if len(key) > MAX_KEY:
        raise ConfigError(
            f"The {what} {key[:40] + '…'!r} has {len(key)} characters. Use at most {MAX_KEY}."
        )
    if any(unicodedata.category(char) in _UNFIT for char in key):
        raise ConfigError(
            f"The {what} {key!r} holds a control character. "
            "Use letters, digits, spaces and punctuation."
        )
    return key
