"""What a conversation store is: an append-only log for each session, written a turn at a time.

A turn leases its session, so two turns never interleave in one. What `Turn.append` has returned
from is on disk and stays there, whatever happens to the process. What was left half done is made
whole when it is read (`corral.memory.repair`), never by rewriting the log.
"""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from corral.errors import ConfigError
from corral.events import Outcome, ShieldChecked, Usage
from corral.messages import Message

__all__ = ["MAX_KEY", "NO_USAGE", "Item", "SessionInfo", "Store", "Turn", "check_key"]

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

    async def finish(
        self, outcome: Outcome, *, reason: str | None = None, usage: Usage = NO_USAGE
    ) -> None:
        """End the turn and let go of the session, both at once.

        `"blocked"` hides the turn from the model for good. So does a blocked input or answer that
        was recorded, unless the turn ends as `"answered"` or `"limit"`.
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
    ) -> AbstractAsyncContextManager[Turn]:
        """Lease a session for one turn, and create the session if it is new.

        A block that is left without `Turn.finish` ends its turn as `"failed"`, or as `"cancelled"`
        when it is left by a cancellation, an interrupt or a generator that is closed early.

        Args:
            session: The session's key: 1 to 200 characters, none of them a control character.
            agent: The agent's name, for the log.
            model: The model's name, for the log.
            wait: How many seconds to wait for another turn of this session to end.
            shielded: The turn's input will be judged. Should it end before a verdict is recorded
                that lets it pass, later turns won't see it.

        Raises:
            ConfigError: If the key can't be used.
            SessionBusy: If another live turn still holds the session after `wait` seconds.
            StoreError: If the store can't be written.
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

        One `session`, its `turn`s, then its `message`s and `verdict`s in order: each line is an
        object with that word as its `kind`.
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
