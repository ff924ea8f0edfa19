"""One connection to SQLite that several threads share; the only place that knows SQLite's errors.

Every write is one `BEGIN IMMEDIATE` transaction: a deferred one that reads before it writes fails
at once, without waiting, when another process writes in between. The log is in WAL mode with
`synchronous=FULL`, so that what is committed survives a crash of the process and a power cut.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # pyright: ignore[reportPrivateImportUsage]

from corral.errors import ConfigError, StoreError
from corral.memory._schema import is_outdated, migrate

__all__ = ["BUSY_SECONDS", "Connection", "Transaction"]

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long a statement waits for another process to finish writing."""

_OLDEST = (3, 37, 0)
"""The first SQLite with STRICT tables (2021-11-27)."""

_OPEN_REMEDY = "Check the owner and mode of the file and of its folder"
_REMEDIES = {
    "SQLITE_BUSY": "Another program keeps it locked. End that program, or try again",
    "SQLITE_CANTOPEN": _OPEN_REMEDY,
    "SQLITE_CORRUPT": "The file is damaged. Move it away, or put a backup in its place",
    "SQLITE_FULL": "Free some space; what was stored before is safe",
    "SQLITE_IOERR": "Check the disk and its free space",
    "SQLITE_NOTADB": "Name another file with CORRAL_DATA, or move this one away",
    "SQLITE_PERM": _OPEN_REMEDY,
    "SQLITE_READONLY": _OPEN_REMEDY,
    "SQLITE_TOOBIG": "Shorten the message",
}


class Transaction:
    """What a piece of work may do between the beginning of its transaction and the commit."""

    def __init__(self, database: Database) -> None:
        """Run statements on `database`."""
        self._database = database

    def execute(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> sqlite3.Cursor:
        """Run one statement."""
        # sqlite-utils leaves its parameters' types open.
        database: Any = self._database
        return database.execute(sql, parameters)


class Connection:
    """A database that is open. Every method blocks; call it from a worker thread."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the database, and bring its tables up to date.

        Args:
            path: An absolute path, so that no name such as `:memory:` has a meaning of its own;
                `None` for a database in memory.

        Raises:
            ConfigError: If `path` names something that can't be a database file, or can't be
                written by this user.
            StoreError: If it can't be opened or brought up to date, or the disk is full.
        """
        self._where = "in memory" if path is None else repr(str(path))
        self._lock = threading.Lock()
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old: Corral needs 3.37 or newer. "
                "Use a newer Python, or 'pip install pysqlite3-binary'."
            )
        if path is not None:
            _create(path)
        with self._translated():
            connection = sqlite3.connect(
                ":memory:" if path is None else str(path),
                timeout=BUSY_SECONDS,
                check_same_thread=False,
            )
        try:
            with self._translated():
                # Plugins of the sqlite-utils command have no business in here.
                self._database = Database(connection, execute_plugins=False)
                self._execute = Transaction(self._database).execute
                self._prepare()
            self._migrate()
        except BaseException:
            connection.close()
            raise

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction: committed on return, undone if anything is raised."""
        with self._transaction("BEGIN IMMEDIATE") as transaction:
            return work(transaction)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work`, which sees the database as it is at one moment."""
        with self._transaction("BEGIN") as transaction:
            return work(transaction)

    def wipe(self) -> None:
        """Make what was deleted unreadable in the database file and in its write-ahead log.

        Raises:
            StoreError: If another process reads the database for too long to empty the log.
        """
        with self._lock, self._translated():
            self._empty_log()
            self._execute("VACUUM")
            self._empty_log()

    def close(self) -> None:
        """Close the connection. Closing it twice does no harm."""
        with self._lock, self._translated():
            self._database.close()

    @contextmanager
    def _transaction(self, begin: str) -> Generator[Transaction, None, None]:
        with self._lock, self._translated():
            self._execute(begin)
            try:
                yield Transaction(self._database)
                self._execute("COMMIT")
            except BaseException:
                self._database.rollback()
                raise

    def _prepare(self) -> None:
        self._use_wal()
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self._execute(f"PRAGMA {pragma}")

    def _use_wal(self) -> None:
        # Unlike other statements, the switch to WAL doesn't wait while another process makes it.
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _migrate(self) -> None:
        with self._transaction("BEGIN"):
            outdated = is_outdated(self._database, self._where)
        if outdated:
            with self._transaction("BEGIN IMMEDIATE"):
                migrate(self._database, self._where)

    def _empty_log(self) -> None:
        busy = self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StoreError(
                f"The log of the database {self._where} can't be emptied, because another process "
                "is reading it. End that process."
            )

    @contextmanager
    def _translated(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
                remedy = "Open the store again"
            else:
                remedy = _REMEDIES.get(_code(error), "Try again, or move the file away")
            raise StoreError(f"The database {self._where} failed: {error}. {remedy}.") from error


def _code(error: sqlite3.Error) -> str:
    """The error's primary code: `"SQLITE_BUSY"` also for `SQLITE_BUSY_SNAPSHOT`."""
    name: str = getattr(error, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])


def _create(path: Path) -> None:
    """Make a database's folders (mode 0700) and its file (mode 0600) where they don't exist."""
    try:
        if path.is_dir():
            raise ConfigError(f"{str(path)!r} is a folder. Name a file in it, such as 'corral.db'.")
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
        # A file that exists isn't opened here: to close any descriptor of a database drops the
        # locks that this process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError as error:
        if not path.exists():
            raise ConfigError(f"{error.filename!r} is in the way. Name another path.") from None
    except OSError as error:
        kind = StoreError if error.errno in (errno.ENOSPC, errno.EDQUOT) else ConfigError
        raise kind(
            f"The database {str(path)!r} can't be made: {error.strerror or error}. "
            "Name a folder that can be written with CORRAL_DATA."
        ) from error
