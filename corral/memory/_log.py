"""The statements behind the SQLite store: what each transaction reads and writes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from corral.errors import ConfigError, SessionBusy, StoreError
from corral.events import Outcome, ShieldChecked, Usage
from corral.memory._connection import Transaction
from corral.memory._lease import LEASE, Owner, is_gone
from corral.memory.store import Item, SessionInfo
from corral.messages import Message, MessageAdapter, UserMessage

__all__ = ["LastTurn", "Log", "TurnRow", "moment", "new_key", "plain"]

_TITLE = 80
"""The longest title, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """Where a turn's rows are, and the names that a message about it needs."""

    id: int
    session_id: int
    session: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastTurn:
    """What the row of a session's last turn says. `unfinished`: it runs or can be gone on with."""

    id: int
    key: str
    agent: str
    model: str
    source: str | None
    unfinished: bool
    usage: Usage


def new_key() -> str:
    """A new turn's id: 16 hexadecimal digits."""
    return secrets.token_hex(8)


class Log:
    """The log of one tenant, written by one owner of leases."""

    def __init__(self, *, tenant: str, owner: Owner) -> None:
        """Bind the statements to a tenant and an owner."""
        self.tenant = tenant
        self._owner = owner.to_json()

    # Turns

    def lease(
        self,
        tx: Transaction,
        session: str,
        *,
        turn: str,
        agent: str,
        model: str,
        shielded: bool = False,
        source: str | None = None,
    ) -> TurnRow:
        """Begin a turn, after ending one whose process has died; create the session if it is new.

        Raises:
            SessionBusy: If another turn is alive.
        """
        now = moment()
        agent, model = plain(agent), plain(model)
        session_id = self.session_id(tx, session)
        if session_id is None:
            session_id = tx.execute(
                "INSERT INTO sessions (tenant, key, agent, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, ?) RETURNING id",
                (self.tenant, session, agent, now, now),
            ).fetchone()[0]
        else:
            self.clear(tx, session_id, session)
            tx.execute(
                "UPDATE sessions SET agent = ?, updated_at = ? WHERE id = ?",
                (agent, now, session_id),
            )
        row = tx.execute(
            "INSERT INTO turns (tenant, session_id, key, agent, model, status, "
            "lease_owner, lease_until, started_at, stopped, source) "
            "VALUES (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?, ?) RETURNING id",
            (
                self.tenant,
                session_id,
                turn,
                agent,
                model,
                self._owner,
                moment(LEASE),
                now,
                int(shielded),
                None if source is None else plain(source),
            ),
        ).fetchone()
        return TurnRow(id=row[0], session_id=session_id, session=session, key=turn)

    def renew(self, tx: Transaction, turns: Iterable[str]) -> None:
        """Put off the end of running turns' leases."""
        for key in turns:
            tx.execute(
                "UPDATE turns SET lease_until = ? "
                "WHERE tenant = ? AND key = ? AND status = 'running' AND lease_owner = ?",
                (moment(LEASE), self.tenant, key, self._owner),
            )

    def append(self, tx: Transaction, turn: TurnRow, message: Message) -> None:
        """Write a message as the session's next item."""
        self.hold(tx, turn)
        if isinstance(message, UserMessage) and (title := _title(message.text)):
            tx.execute(
                "UPDATE sessions SET title = ? WHERE id = ? AND title = ''",
                (title, turn.session_id),
            )
        self._add(tx, turn, "message", message.role, message.model_dump(mode="json"))

    def record(self, tx: Transaction, turn: TurnRow, check: ShieldChecked) -> None:
        """Write a verdict as the session's next item."""
        self.hold(tx, turn)
        if check.gate == "input" or (check.gate == "answer" and check.blocked):
            # A stopped turn is hidden however it ends, a crash before `finish` included.
            tx.execute("UPDATE turns SET stopped = ? WHERE id = ?", (int(check.blocked), turn.id))
        self._add(tx, turn, "verdict", None, check.model_dump(mode="json"))

    def finish(
        self, tx: Transaction, turn: TurnRow, outcome: Outcome, *, reason: str | None, usage: Usage
    ) -> None:
        """End a turn that its agent finished."""
        self.hold(tx, turn)
        tx.execute(
            "UPDATE turns SET status = ?, reason = ?, "
            "prompt_tokens = ?, cached_tokens = ?, output_tokens = ?, "
            "ended_at = ?, lease_owner = NULL, lease_until = NULL WHERE id = ?",
            (
                "interrupted" if outcome == "waiting" else outcome,
                None if reason is None else plain(reason),
                usage.prompt_tokens,
                usage.cached_tokens,
                usage.output_tokens,
                moment(),
                turn.id,
            ),
        )

    def leave(self, tx: Transaction, key: str, status: str, *, reason: str) -> None:
        """End a turn of this owner if it still runs."""
        tx.execute(
            "UPDATE turns SET status = ?, reason = ?, ended_at = ?, "
            "lease_owner = NULL, lease_until = NULL "
            "WHERE tenant = ? AND key = ? AND status = 'running' AND lease_owner = ?",
            (status, plain(reason), moment(), self.tenant, key, self._owner),
        )

    def resume(self, tx: Transaction, session: str) -> tuple[TurnRow, Usage]:
        """Lease a session's last turn once more: where it is, and what it has used.

        Raises:
            ConfigError: If it can't be gone on with.
            SessionBusy: If it is alive.
        """
        session_id = self.session_id(tx, session)
        if session_id is not None:
            self.clear(tx, session_id, session)
        row = self.last(tx, session_id)
        if session_id is None or row is None or not row.unfinished:
            raise ConfigError(
                f"The session {session!r} has no turn to go on with: its last one came to its end, "
                "was cancelled, or was stopped by a shield. Send a message instead."
            )
        tx.execute(
            "UPDATE turns SET status = 'running', reason = NULL, ended_at = NULL, "
            "lease_owner = ?, lease_until = ? WHERE id = ?",
            (self._owner, moment(LEASE), row.id),
        )
        turn = TurnRow(id=row.id, session_id=session_id, session=session, key=row.key)
        return turn, row.usage

    # Reading

    def last(self, tx: Transaction, session_id: int | None) -> LastTurn | None:
        """The session's last turn."""
        row = tx.execute(
            "SELECT id, key, agent, model, source, status, stopped, "
            "prompt_tokens, cached_tokens, output_tokens "
            "FROM turns WHERE tenant = ? AND session_id = ? ORDER BY id DESC LIMIT 1",
            (self.tenant, session_id),
        ).fetchone()
        if row is None:
            return None
        turn_id, key, agent, model, source, status, stopped, prompt, cached, output = row
        return LastTurn(
            id=turn_id,
            key=key,
            agent=agent,
            model=model,
            source=source,
            unfinished=status in ("running", "interrupted") and not stopped,
            usage=Usage(prompt_tokens=prompt, cached_tokens=cached, output_tokens=output),
        )

    def earlier(self, tx: Transaction, turn: TurnRow) -> list[Message]:
        """The messages of the session's other turns, without the hidden ones."""
        return self.messages(
            tx, turn, "items.turn_id != :turn AND NOT (SELECT hidden FROM turns WHERE id = turn_id)"
        )

    def own(self, tx: Transaction, turn: TurnRow) -> list[Message]:
        """The messages of this turn."""
        self.hold(tx, turn)
        return self.messages(tx, turn, "items.turn_id = :turn")

    def sessions(self, tx: Transaction) -> list[SessionInfo]:
        """All sessions, the one that was used last first."""
        rows = tx.execute(
            """
            SELECT key, agent, created_at, updated_at, title,
              (SELECT COUNT(*) FROM turns WHERE tenant = s.tenant AND session_id = s.id),
              (SELECT COUNT(*) FROM items WHERE tenant = s.tenant AND session_id = s.id)
            FROM sessions AS s WHERE tenant = ? ORDER BY updated_at DESC, id DESC
            """,
            (self.tenant,),
        )
        return [
            SessionInfo(
                key=key,
                agent=agent,
                created_at=datetime.fromisoformat(created),
                updated_at=datetime.fromisoformat(updated),
                turns=turns,
                items=items,
                title=title,
            )
            for key, agent, created, updated, title, turns, items in rows
        ]

    def items(self, tx: Transaction, session: str) -> list[Item]:
        """All items of a session, in order."""
        rows = tx.execute(
            """
            SELECT items.seq, turns.key, items.kind, items.content, items.created_at, turns.hidden
            FROM sessions
            JOIN items ON items.tenant = sessions.tenant AND items.session_id = sessions.id
            JOIN turns ON turns.id = items.turn_id
            WHERE sessions.tenant = ? AND sessions.key = ? ORDER BY items.seq
            """,
            (self.tenant, session),
        )
        return [
            Item(
                seq=seq,
                turn_id=turn,
                kind=kind,
                message=_message(content, session, seq) if kind == "message" else None,
                verdict=_verdict(content, session, seq) if kind == "verdict" else None,
                created_at=datetime.fromisoformat(created),
                hidden=bool(hidden),
            )
            for seq, turn, kind, content, created, hidden in rows
        ]

    def export(self, tx: Transaction, session: str) -> list[str]:
        """A session as lines of JSON."""
        found = tx.execute(
            "SELECT id, agent, title, created_at, updated_at FROM sessions "
            "WHERE tenant = ? AND key = ?",
            (self.tenant, session),
        ).fetchone()
        if found is None:
            return []
        session_id, agent, title, created, updated = found
        lines = [
            {
                "kind": "session",
                "key": session,
                "agent": agent,
                "title": title,
                "created_at": created,
                "updated_at": updated,
            }
        ]
        turns = tx.execute(
            "SELECT key, agent, model, status, reason, "
            "prompt_tokens, cached_tokens, output_tokens, started_at, ended_at, hidden "
            "FROM turns WHERE tenant = ? AND session_id = ? ORDER BY id",
            (self.tenant, session_id),
        )
        names = [column[0] for column in turns.description]
        for row in turns:
            turn = dict(zip(names, row, strict=True))
            lines.append({"kind": "turn", **turn, "hidden": bool(turn["hidden"])})
        approvals = tx.execute(
            "SELECT turns.key AS turn, call_id, why, requested_at, approved, calls.reason, "
            "answered_at, began_at FROM calls JOIN turns ON turns.id = calls.turn_id "
            "WHERE calls.tenant = ? AND calls.session_id = ? AND why IS NOT NULL ORDER BY calls.id",
            (self.tenant, session_id),
        )
        names = [column[0] for column in approvals.description]
        for row in approvals:
            asked = dict(zip(names, row, strict=True))
            yes = None if asked["approved"] is None else bool(asked["approved"])
            lines.append({"kind": "approval", **asked, "approved": yes})
        items = tx.execute(
            "SELECT items.kind, items.seq, turns.key, items.created_at, items.content "
            "FROM items JOIN turns ON turns.id = items.turn_id "
            "WHERE items.tenant = ? AND items.session_id = ? ORDER BY items.seq",
            (self.tenant, session_id),
        )
        for kind, seq, turn, at, content in items:
            body = {kind: json.loads(content)}
            lines.append({"kind": kind, "seq": seq, "turn": turn, "created_at": at, **body})
        return [_dump(line) for line in lines]

    # Forgetting

    def forget(self, tx: Transaction, session: str) -> bool:
        """Delete a session with its turns and items, and say whether it existed.

        Raises:
            SessionBusy: If one of its turns is alive.
        """
        session_id = self.session_id(tx, session)
        if session_id is None:
            return False
        self.clear(tx, session_id, session)
        for statement in (
            "DELETE FROM calls WHERE tenant = ? AND session_id = ?",
            "DELETE FROM items WHERE tenant = ? AND session_id = ?",
            "DELETE FROM turns WHERE tenant = ? AND session_id = ?",
            "DELETE FROM sessions WHERE tenant = ? AND id = ?",
        ):
            tx.execute(statement, (self.tenant, session_id))
        return True

    # Parts of the above

    def session_id(self, tx: Transaction, session: str) -> int | None:
        """The row of a session, if there is one."""
        row = tx.execute(
            "SELECT id FROM sessions WHERE tenant = ? AND key = ?", (self.tenant, session)
        ).fetchone()
        return None if row is None else row[0]

    def clear(self, tx: Transaction, session_id: int, session: str) -> None:
        """End the session's running turn if its owner is gone, or raise `SessionBusy`."""
        row = tx.execute(
            "SELECT id, agent, lease_owner, lease_until FROM turns "
            "WHERE tenant = ? AND session_id = ? AND status = 'running'",
            (self.tenant, session_id),
        ).fetchone()
        if row is None:
            return
        turn_id, agent, lease_owner, lease_until = row
        owner = Owner.from_json(lease_owner)
        if not is_gone(owner, datetime.fromisoformat(lease_until) if lease_until else None):
            process = owner.pid if owner else None
            raise SessionBusy(
                f"Another turn of the session {session!r} is running "
                f"(agent {agent!r}, process {process}). "
                "Wait for it to end, end that process, or use another session."
            )
        tx.execute(
            "UPDATE turns SET status = 'interrupted', reason = 'its process ended', ended_at = ?, "
            "lease_owner = NULL, lease_until = NULL WHERE id = ?",
            (moment(), turn_id),
        )

    def hold(self, tx: Transaction, turn: TurnRow) -> None:
        """Make sure that the turn still holds its session."""
        row = tx.execute(
            "SELECT 1 FROM turns "
            "WHERE id = ? AND key = ? AND status = 'running' AND lease_owner = ?",
            (turn.id, turn.key, self._owner),
        ).fetchone()
        if row is None:
            raise StoreError(
                f"The turn {turn.key!r} no longer holds the session {turn.session!r}: its process "
                f"stood still for over {LEASE.seconds} seconds and another turn took over, or the "
                "session was forgotten. Start the turn again."
            )

    def _add(self, tx: Transaction, turn: TurnRow, kind: str, role: str | None, body: Any) -> None:
        now = moment()
        seq = tx.execute(
            "UPDATE sessions SET next_seq = next_seq + 1, updated_at = ? WHERE id = ? "
            "RETURNING next_seq - 1",
            (now, turn.session_id),
        ).fetchone()[0]
        tx.execute(
            "INSERT INTO items (tenant, session_id, turn_id, seq, kind, role, content, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.tenant, turn.session_id, turn.id, seq, kind, role, _dump(body), now),
        )

    def messages(self, tx: Transaction, turn: TurnRow, where: str) -> list[Message]:
        """The messages of a turn's session for which `where` holds, in order."""
        rows = tx.execute(
            "SELECT seq, content FROM items WHERE tenant = :tenant AND session_id = :session "
            f"AND kind = 'message' AND {where} ORDER BY seq",
            {"tenant": self.tenant, "session": turn.session_id, "turn": turn.id},
        )
        return [_message(content, turn.session, seq) for seq, content in rows]


def moment(later: timedelta | None = None) -> str:
    """The time, or the time `later`, as the database holds it: UTC in ISO 8601."""
    time = datetime.now(UTC)
    return (time + later if later else time).isoformat(timespec="microseconds")


def _dump(body: Any) -> str:
    """JSON that keeps every string and number as it was, lone surrogates and NaN included."""
    text = json.dumps(body, ensure_ascii=False)
    return text if text == plain(text) else json.dumps(body)


def plain(text: str) -> str:
    """The text with what UTF-8 can't hold (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _title(text: str) -> str:
    line = "".join(char if char.isprintable() else " " for char in text[: 10 * _TITLE])
    line = plain(" ".join(line.split()))
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"


def _message(content: str, session: str, seq: int) -> Message:
    try:
        return MessageAdapter.validate_python(json.loads(content))
    except (ValueError, ValidationError) as error:
        raise _damaged(session, seq) from error


def _verdict(content: str, session: str, seq: int) -> ShieldChecked:
    try:
        return ShieldChecked.model_validate(json.loads(content))
    except (ValueError, ValidationError) as error:
        raise _damaged(session, seq) from error


def _damaged(session: str, seq: int) -> StoreError:
    return StoreError(
        f"Item {seq} of the session {session!r} can't be read. "
        "Use another session, or forget this one."
    )
