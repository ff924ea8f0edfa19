"""The statements about calls: who waits for whose answer, and what has begun.

A row appears when a call is first asked about or begun. Each step is one conditional write, so that
of two processes that answer, or begin, only one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from corral.errors import ConfigError, StoreError
from corral.events import Usage
from corral.memory._connection import Transaction
from corral.memory._log import LastTurn, Log, TurnRow, moment, plain
from corral.memory.store import CallState, PendingCall, UnfinishedTurn
from corral.messages import AssistantMessage, ToolCall

__all__ = ["CallLog"]


class CallLog:
    """The calls of one tenant's log."""

    def __init__(self, log: Log) -> None:
        """Read and write beside `log`."""
        self._log = log

    def of_turn(self, tx: Transaction, turn: TurnRow) -> dict[str, CallState]:
        """What is known of the turn's own calls."""
        return self._states(tx, turn, "turn_id = :turn")

    def of_others(self, tx: Transaction, turn: TurnRow) -> dict[str, CallState]:
        """What is known of the calls of the session's other turns."""
        return self._states(tx, turn, "turn_id != :turn")

    def request(
        self, tx: Transaction, turn: TurnRow, reasons: Mapping[str, str], usage: Usage
    ) -> None:
        """Write down that calls wait for an answer, and what the turn has used."""
        self._log.hold(tx, turn)
        for call_id, why in reasons.items():
            tx.execute(
                "INSERT INTO calls (tenant, session_id, turn_id, call_id, why, requested_at) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, turn_id, call_id) DO NOTHING",
                (self._log.tenant, turn.session_id, turn.id, call_id, plain(why), moment()),
            )
        tx.execute(
            "UPDATE turns SET prompt_tokens = ?, cached_tokens = ?, output_tokens = ? WHERE id = ?",
            (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens, turn.id),
        )

    def begin(self, tx: Transaction, turn: TurnRow, call_id: str) -> None:
        """Write down that a call begins.

        Raises:
            StoreError: If it had begun, or needs an approval that it doesn't have.
        """
        self._log.hold(tx, turn)
        state = self.of_turn(tx, turn).get(call_id, CallState())
        if state.began:
            raise StoreError(
                f"The call {call_id!r} had begun before, so it isn't run again. Ask the model anew."
            )
        if state.why is not None and not state.approved:
            raise StoreError(f"The call {call_id!r} isn't approved, so it isn't run. Answer first.")
        tx.execute(
            "INSERT INTO calls (tenant, session_id, turn_id, call_id, began_at) "
            "VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, turn_id, call_id) DO UPDATE SET began_at = excluded.began_at",
            (self._log.tenant, turn.session_id, turn.id, call_id, moment()),
        )

    def answer(
        self, tx: Transaction, session: str, call_id: str, *, approved: bool, reason: str | None
    ) -> None:
        """Write down the answer for a call that waits.

        Raises:
            ConfigError: If none of that id does.
        """
        session_id = self._log.session_id(tx, session)
        last = self._log.last(tx, session_id)
        if last is None or not last.unfinished:
            raise ConfigError(
                f"No call waits for approval in the session {session!r}. A call is withdrawn when "
                "the conversation goes on without an answer."
            )
        written = tx.execute(
            "UPDATE calls SET approved = ?, reason = ?, answered_at = ? WHERE tenant = ? "
            "AND turn_id = ? AND call_id = ? AND why IS NOT NULL AND approved IS NULL",
            (
                int(approved),
                None if reason is None else plain(reason),
                moment(),
                self._log.tenant,
                last.id,
                call_id,
            ),
        )
        if written.rowcount == 0:
            raise self._unanswerable(tx, session, last, call_id)

    def unfinished(self, tx: Transaction, session: str) -> UnfinishedTurn | None:
        """The session's last turn, if it runs or can be gone on with."""
        session_id = self._log.session_id(tx, session)
        last = self._log.last(tx, session_id)
        if session_id is None or last is None or not last.unfinished:
            return None
        turn = TurnRow(id=last.id, session_id=session_id, session=session, key=last.key)
        rows = tx.execute(
            "SELECT call_id, why, requested_at FROM calls WHERE tenant = ? AND turn_id = ? "
            "AND why IS NOT NULL AND approved IS NULL",
            (self._log.tenant, last.id),
        ).fetchall()
        waiting = {call_id: (why, asked) for call_id, why, asked in rows}
        pending = [
            PendingCall(
                session=session,
                turn_id=last.key,
                call=call,
                why=waiting[call.id][0],
                requested_at=datetime.fromisoformat(waiting[call.id][1]),
            )
            for call in (self._calls(tx, turn) if waiting else ())
            if call.id in waiting
        ]
        return UnfinishedTurn(
            id=last.key,
            agent=last.agent,
            model=last.model,
            source=last.source,
            pending=tuple(pending),
        )

    def _calls(self, tx: Transaction, turn: TurnRow) -> list[ToolCall]:
        """The calls that the turn's messages ask for, in order."""
        messages = self._log.messages(tx, turn, "items.turn_id = :turn")
        return [
            call
            for message in messages
            if isinstance(message, AssistantMessage)
            for call in message.calls
        ]

    def _states(self, tx: Transaction, turn: TurnRow, where: str) -> dict[str, CallState]:
        rows = tx.execute(
            "SELECT call_id, why, approved, reason, began_at FROM calls "
            f"WHERE tenant = :tenant AND session_id = :session AND {where}",
            {"tenant": self._log.tenant, "session": turn.session_id, "turn": turn.id},
        )
        return {
            call_id: CallState(
                why=why,
                approved=None if approved is None else bool(approved),
                reason=reason,
                began=began is not None,
            )
            for call_id, why, approved, reason, began in rows
        }

    def _unanswerable(
        self, tx: Transaction, session: str, last: LastTurn, call_id: str
    ) -> ConfigError:
        row = tx.execute(
            "SELECT approved FROM calls WHERE tenant = ? AND turn_id = ? AND call_id = ? "
            "AND approved IS NOT NULL",
            (self._log.tenant, last.id, call_id),
        ).fetchone()
        if row is not None:
            done = "approved" if row[0] else "denied"
            return ConfigError(
                f"The call {call_id!r} was {done} before. An answer can't be changed."
            )
        found = self.unfinished(tx, session)
        waiting = ", ".join(repr(each.call.id) for each in found.pending) if found else ""
        return ConfigError(
            f"No call {call_id!r} waits for approval in the session {session!r}. "
            + (f"These do: {waiting}." if waiting else "None does.")
        )
