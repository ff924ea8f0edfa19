"""The conversation store on SQLite: one file, many sessions, and many processes of one host.

Not for network file systems: SQLite's write-ahead log needs memory that its processes share.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from corral.errors import ConfigError, CorralError, SessionBusy, StoreError
from corral.events import Outcome, ShieldChecked, Usage
from corral.memory._calls import CallLog
from corral.memory._connection import Connection, Transaction
from corral.memory._lease import RENEW_EVERY, Keeper, Owner
from corral.memory._log import Log, TurnRow, new_key
from corral.memory.repair import fate, repair
from corral.memory.store import (
    NO_USAGE,
    CallState,
    Item,
    SessionInfo,
    Turn,
    UnfinishedTurn,
    check_key,
)
from corral.messages import Message, SystemMessage

__all__ = ["SQLiteStore", "default_path"]

T = TypeVar("T")

_FILE = "corral.db"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between looks at a busy session."""


def default_path() -> Path:
    """The database that is used when none is named.

    `$CORRAL_DATA/corral.db`, else `$XDG_DATA_HOME/corral/corral.db`, else
    `~/.local/share/corral/corral.db`.

    Raises:
        ConfigError: If there is no home folder to put it in.
    """
    if named := os.environ.get("CORRAL_DATA"):
        return Path(named) / _FILE
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG Base Directory Specification has relative paths ignored.
    if shared.is_absolute():
        return shared / "corral" / _FILE
    try:
        return Path.home() / ".local" / "share" / "corral" / _FILE
    except RuntimeError:
        raise ConfigError(
            "There is no home folder to keep conversations in. "
            "Set CORRAL_DATA to a folder that can be written."
        ) from None


class SQLiteStore:
    """A `Store` in a SQLite database: `store = await SQLiteStore.open(default_path())`.

    It may be used from any event loop, and any number of stores may share a file. The file has mode
    0600 and isn't encrypted.
    """

    def __init__(self, connection: Connection, *, tenant: str, path: Path | None) -> None:
        """Use `SQLiteStore.open` instead."""
        self.path = path
        """The database file, or `None` for a store in memory."""
        self._worker = _Worker(connection, Log(tenant=tenant, owner=Owner.this_process()))
        self._keeper = Keeper(self._renew, every=RENEW_EVERY)

    @classmethod
    async def open(cls, path: Path | None, *, tenant: str = "local") -> SQLiteStore:
        """Open a database, and create it with its folders if it doesn't exist.

        Args:
            path: The file, or `None` for a store in memory that is gone when it is closed.
            tenant: Whose sessions this store holds. It can't reach those of other tenants.

        Raises:
            ConfigError: If `path` can't name a database file or can't be written by this user, or
                if `tenant` can't name a tenant.
            StoreError: If the file is damaged, or was made by another program or a newer Corral,
                or the disk is full.
        """

        def work() -> SQLiteStore:
            absolute = None if path is None else _absolute(path)
            check_key(tenant, what="tenant")
            return cls(Connection(absolute), tenant=tenant, path=absolute)

        return await to_thread.run_sync(work)

    async def __aenter__(self) -> SQLiteStore:
        """Use the store for a block, and close it at its end."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        await self.aclose()

    @asynccontextmanager
    async def turn(
        self,
        session: str,
        *,
        agent: str,
        model: str,
        wait: float = 0,
        shielded: bool = False,
        source: str | None = None,
    ) -> AsyncGenerator[Turn, None]:
        """Lease a session for one turn: see `Store.turn`."""
        turn = _Turn(self._worker, check_key(session))

        def lease(tx: Transaction) -> TurnRow:
            return self._worker.log.lease(
                tx,
                session,
                turn=turn.id,
                agent=agent,
                model=model,
                shielded=shielded,
                source=source,
            )

        async with self._held(turn, turn.lease(lease, wait=wait)):
            yield turn

    @asynccontextmanager
    async def resume(self, session: str, *, wait: float = 0) -> AsyncGenerator[Turn, None]:
        """Lease a session to go on with its last turn: see `Store.resume`."""
        turn = _Turn(self._worker, check_key(session))

        def lease(tx: Transaction) -> TurnRow:
            row, turn.usage = self._worker.log.resume(tx, session)
            turn.id, turn.resumed = row.key, True
            return row

        async with self._held(turn, turn.lease(lease, wait=wait)):
            yield turn

    @asynccontextmanager
    async def _held(self, turn: _Turn, leased: Awaitable[None]) -> AsyncGenerator[None, None]:
        """Keep a turn's lease for a block, and end the turn with it."""
        try:
            await leased
            self._keeper.hold(turn)
            yield
        except BaseException as error:
            # Whatever isn't an Exception asks to stop: a cancellation, Ctrl-C, a closed generator.
            outcome: Outcome = "failed" if isinstance(error, Exception) else "cancelled"
            try:
                await turn.leave(outcome, reason=_name(error))
            except StoreError as second:
                error.add_note(f"The turn's end could not be stored: {second}")
            raise
        else:
            await turn.leave("failed", reason="the turn was left without an outcome")
        finally:
            self._keeper.drop(turn)

    async def unfinished(self, session: str) -> UnfinishedTurn | None:
        """The session's last turn, if it runs now or can be gone on with."""
        check_key(session)
        return await self._worker.read(lambda tx: self._worker.calls.unfinished(tx, session))

    async def answer(
        self, session: str, call_id: str, *, approved: bool, reason: str | None = None
    ) -> None:
        """Answer for a call that waits: see `Store.answer`."""
        check_key(session)
        await self._worker.write(
            lambda tx: self._worker.calls.answer(
                tx, session, call_id, approved=approved, reason=reason
            )
        )

    async def sessions(self) -> list[SessionInfo]:
        """All sessions, the one that was used last first."""
        return await self._worker.read(self._worker.log.sessions)

    async def items(self, session: str) -> list[Item]:
        """The log of a session in order, hidden turns included. Empty for an unknown session."""
        check_key(session)
        return await self._worker.read(lambda tx: self._worker.log.items(tx, session))

    async def export(self, session: str) -> AsyncIterator[str]:
        """The session as lines of JSON: see `Store.export`."""
        check_key(session)
        for line in await self._worker.read(lambda tx: self._worker.log.export(tx, session)):
            yield line

    async def forget(self, session: str) -> bool:
        """Delete a session and wipe its text from the disk: see `Store.forget`.

        Wiping rewrites the whole file, and other processes that want to write wait meanwhile.
        """
        check_key(session)
        worker = self._worker

        def work() -> bool:
            found = worker.connection.write(lambda tx: worker.log.forget(tx, session))
            if found:
                try:
                    worker.connection.wipe()
                except StoreError as error:
                    raise StoreError(
                        f"The session {session!r} is deleted, but its text isn't wiped from the "
                        f"disk yet. {error} Forgetting any session wipes it."
                    ) from error
            return found

        return await worker.run(work)

    async def aclose(self) -> None:
        """Close the store. Every turn must have ended."""
        with CancelScope(shield=True):
            await self._worker.run(self._worker.connection.close)

    def _renew(self, turns: Iterable[object]) -> None:
        keys = [turn.id for turn in turns if isinstance(turn, _Turn)]
        try:
            self._worker.connection.write(lambda tx: self._worker.log.renew(tx, keys))
        except StoreError:
            # The turn's own next write meets the same fault, and raises it where it is handled.
            return


class _Worker:
    """Takes work to the connection, one piece at a time and off the event loop."""

    def __init__(self, connection: Connection, log: Log) -> None:
        self.connection = connection
        self.log = log
        self.calls = CallLog(log)
        # A limiter belongs to one event loop, a store to none.
        self._limiter: RunVar[CapacityLimiter] = RunVar("corral_store_limiter")

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction, also when the task is being cancelled."""
        with CancelScope(shield=True):
            return await self.run(lambda: self.connection.write(work))
        # Type checkers know that a scope may swallow a cancellation; this one is never cancelled.
        raise AssertionError("unreachable")

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self.run(lambda: self.connection.read(work))

    async def run(self, work: Callable[[], T]) -> T:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = CapacityLimiter(1)
            self._limiter.set(limiter)
        return await to_thread.run_sync(work, limiter=limiter)


class _Turn:
    """A turn of a `SQLiteStore`: see `Turn`."""

    def __init__(self, worker: _Worker, session: str) -> None:
        self.id = new_key()
        self.session = session
        self.usage = NO_USAGE
        self.resumed = False
        self._worker = worker
        self._log = worker.log
        self._row: TurnRow | None = None
        self._over = False
        self._earlier: tuple[list[Message], dict[str, CallState]] | None = None

    async def lease(self, lease: Callable[[Transaction], TurnRow], *, wait: float) -> None:
        deadline = anyio.current_time() + wait
        pause = _FIRST_PAUSE
        while True:
            try:
                self._row = await self._worker.write(lease)
                return
            except CorralError as error:
                left = deadline - anyio.current_time()
                if not isinstance(error, SessionBusy) or left <= 0:
                    # Nothing was begun, so there is nothing to end.
                    self._over = True
                    raise
            await anyio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def messages(self) -> list[Message]:
        row = self._held()
        return await self._worker.read(lambda tx: self._log.own(tx, row))

    async def history(self) -> list[Message]:
        row = self._held()

        def earlier(tx: Transaction) -> tuple[list[Message], dict[str, CallState]]:
            return self._log.earlier(tx, row), self._worker.calls.of_others(tx, row)

        # Earlier turns can't change while this one holds the session.
        if self._earlier is None:
            self._earlier = await self._worker.read(earlier)
        before, known = self._earlier
        fates = {call_id: fate(state) for call_id, state in known.items()}
        return repair([*before, *await self.messages()], fates)

    async def calls(self) -> Mapping[str, CallState]:
        row = self._held()
        return await self._worker.read(lambda tx: self._worker.calls.of_turn(tx, row))

    async def request_approval(self, reasons: Mapping[str, str], *, usage: Usage) -> None:
        row = self._held()
        await self._worker.write(lambda tx: self._worker.calls.request(tx, row, reasons, usage))

    async def begin(self, call_id: str) -> None:
        row = self._held()
        await self._worker.write(lambda tx: self._worker.calls.begin(tx, row, call_id))

    async def append(self, message: Message) -> None:
        if isinstance(message, SystemMessage):
            raise ValueError("a SystemMessage isn't stored: put it in front of the rendered prompt")
        row = self._held()
        await self._worker.write(lambda tx: self._log.append(tx, row, message))

    async def record(self, check: ShieldChecked) -> None:
        row = self._held()
        await self._worker.write(lambda tx: self._log.record(tx, row, check))

    async def finish(
        self, outcome: Outcome, *, reason: str | None = None, usage: Usage = NO_USAGE
    ) -> None:
        row = self._held()
        await self._worker.write(
            lambda tx: self._log.finish(tx, row, outcome, reason=reason, usage=usage)
        )
        self._over = True

    async def leave(self, outcome: Outcome, *, reason: str) -> None:
        """End the turn unless it is over, or has been ended by the one that took its session."""
        if not self._over:
            self._over = True
            # A turn that was resumed and left before anything came of it can be resumed again.
            status = "interrupted" if self.resumed else outcome
            await self._worker.write(lambda tx: self._log.leave(tx, self.id, status, reason=reason))

    def _held(self) -> TurnRow:
        if self._row is None or self._over:
            raise StoreError(
                f"The turn {self.id!r} of the session {self.session!r} is over. Start a new turn."
            )
        return self._row


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ConfigError(f"The path {str(path)!r} holds a NUL character. Remove it.")
    try:
        return Path(os.path.abspath(path.expanduser()))
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"The path {str(path)!r} can't be used: {error}. Name an absolute path."
        ) from None


def _name(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
