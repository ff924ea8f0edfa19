"""The tables of a SQLite store, as numbered steps that bring any older database up to date.

A step is never changed once it has shipped; what it should have done is a new step. `tenant` stands
first in every index, so that a store bound to one tenant never scans another's rows.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlite_utils import Database, Migrations

from corral.errors import StoreError

__all__ = ["APPLICATION_ID", "is_outdated", "migrate"]

APPLICATION_ID = 0x4372726C
"""Marks the file as Corral's for `file` and `PRAGMA application_id`: "Crrl" in ASCII."""

_FIRST = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    """
    CREATE TABLE sessions (
      id INTEGER PRIMARY KEY,
      tenant TEXT NOT NULL DEFAULT 'local',
      key TEXT NOT NULL,
      agent TEXT NOT NULL,
      title TEXT NOT NULL DEFAULT '',
      next_seq INTEGER NOT NULL DEFAULT 1,
      created_at TEXT NOT NULL,
      updated_at TEXT NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX sessions_by_key ON sessions (tenant, key)",
    # `stopped`: a shield has blocked the turn's input or its answer, or has yet to judge its input.
    """
    CREATE TABLE turns (
      id INTEGER PRIMARY KEY,
      tenant TEXT NOT NULL DEFAULT 'local',
      session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
      key TEXT NOT NULL,
      agent TEXT NOT NULL,
      model TEXT NOT NULL,
      status TEXT NOT NULL CHECK (status IN (
        'running', 'answered', 'blocked', 'limit', 'failed', 'cancelled', 'interrupted')),
      reason TEXT,
      stopped INTEGER NOT NULL DEFAULT 0 CHECK (stopped IN (0, 1)),
      prompt_tokens INTEGER NOT NULL DEFAULT 0,
      cached_tokens INTEGER NOT NULL DEFAULT 0,
      output_tokens INTEGER NOT NULL DEFAULT 0,
      lease_owner TEXT,
      lease_until TEXT,
      started_at TEXT NOT NULL,
      ended_at TEXT,
      hidden INTEGER NOT NULL GENERATED ALWAYS AS (
        status = 'blocked' OR (stopped AND status NOT IN ('answered', 'limit'))) VIRTUAL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX turns_by_key ON turns (tenant, key)",
    "CREATE INDEX turns_by_session ON turns (tenant, session_id)",
    # The database itself refuses a second running turn of a session.
    """
    CREATE UNIQUE INDEX turns_running ON turns (tenant, session_id) WHERE status = 'running'
    """,
    """
    CREATE TABLE items (
      id INTEGER PRIMARY KEY,
      tenant TEXT NOT NULL DEFAULT 'local',
      session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
      turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
      seq INTEGER NOT NULL,
      kind TEXT NOT NULL CHECK (kind IN ('message', 'verdict')),
      role TEXT,
      content TEXT NOT NULL,
      created_at TEXT NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX items_by_seq ON items (tenant, session_id, seq)",
    "CREATE INDEX items_by_turn ON items (tenant, turn_id, seq)",
)


def _first(database: Database) -> None:
    for statement in _FIRST:
        database.execute(statement)  # pyright: ignore[reportUnknownMemberType]


_CALLS = (
    # The file of the agent that runs the turn, where there is one: how to go on with it later.
    "ALTER TABLE turns ADD COLUMN source TEXT",
    # What happens to a call before its result, which is an item. `why` and `requested_at`: somebody
    # has to approve it. The database itself refuses to begin a call that nobody approved.
    """
    CREATE TABLE calls (
      id INTEGER PRIMARY KEY,
      tenant TEXT NOT NULL DEFAULT 'local',
      session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
      turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
      call_id TEXT NOT NULL,
      why TEXT,
      requested_at TEXT,
      approved INTEGER CHECK (approved IN (0, 1)),
      reason TEXT,
      answered_at TEXT,
      began_at TEXT,
      CHECK ((why IS NULL) = (requested_at IS NULL)),
      CHECK ((approved IS NULL) = (answered_at IS NULL)),
      CHECK (approved IS NULL OR why IS NOT NULL),
      CHECK (began_at IS NULL OR why IS NULL OR (approved IS NOT NULL AND approved = 1))
    ) STRICT
    """,
    "CREATE UNIQUE INDEX calls_by_id ON calls (tenant, turn_id, call_id)",
    "CREATE INDEX calls_by_session ON calls (tenant, session_id)",
)


def _calls(database: Database) -> None:
    for statement in _CALLS:
        database.execute(statement)  # pyright: ignore[reportUnknownMemberType]


_STEPS: tuple[tuple[str, Callable[[Database], None]], ...] = (
    ("0001_sessions_turns_items", _first),
    ("0002_calls", _calls),
)

_MIGRATIONS = Migrations("corral")
for _name, _step in _STEPS:
    _MIGRATIONS(name=_name)(_step)


def is_outdated(database: Database, where: str) -> bool:
    """Whether the database lacks any of the steps. It must be in a transaction.

    Raises:
        StoreError: If a newer Corral, or another program, made the database `where`.
    """
    applied = {migration.name for migration in _MIGRATIONS.applied(database)}
    newer = applied - {name for name, _ in _STEPS}
    if newer:
        raise StoreError(
            f"The database {where} was written by a newer version of Corral: "
            f"its schema has {max(newer)!r}. Upgrade with 'pip install --upgrade llama-corral', "
            "or name another database with CORRAL_DATA."
        )
    if not applied and database.table_names():
        raise StoreError(
            f"The database {where} belongs to another program. Name another one with CORRAL_DATA."
        )
    return len(applied) < len(_STEPS)


def migrate(database: Database, where: str) -> None:
    """Apply the steps that the database lacks. It must be in a `BEGIN IMMEDIATE` transaction.

    Raises:
        StoreError: As `is_outdated` does.
    """
    # Another process may have applied them since this one last looked.
    if is_outdated(database, where):
        _MIGRATIONS.apply(database)
