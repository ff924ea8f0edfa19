"""Who holds a session, and whether that process is still there.

A lease names its owner: the place (host, boot and process-id space), the process, and when that
process started. After a crash the next turn looks the owner up and need not wait for the lease to
run out. Where it can't look, in another container for example, the lease's own end decides.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from weakref import WeakSet

__all__ = ["LEASE", "RENEW_EVERY", "Keeper", "Owner", "is_gone"]

LEASE = timedelta(seconds=30)
"""How long a lease lasts without being renewed."""

RENEW_EVERY = 10.0
"""Seconds between renewals: two may fail before a lease runs out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, and a random token that tells two stores of one process apart."""

    place: str
    pid: int
    started: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """The owner that leases taken by this process name."""
        pid = os.getpid()
        return cls(place=_place(), pid=pid, started=_started(pid), token=secrets.token_hex(8))

    @classmethod
    def from_json(cls, text: str | None) -> Owner | None:
        """Read an owner, or `None` if `text` isn't one."""
        try:
            fields = json.loads(text or "")
            return cls(
                place=str(fields["place"]),
                pid=int(fields["pid"]),
                started=str(fields["started"]),
                token=str(fields["token"]),
            )
        except (ValueError, TypeError, KeyError):
            return None

    def to_json(self) -> str:
        """Write the owner as the lease's text."""
        return json.dumps(asdict(self), sort_keys=True)


def is_gone(owner: Owner | None, until: datetime | None) -> bool:
    """Whether a lease has no living owner: it ran out, or its process on this host has ended."""
    if owner is None or until is None or until <= datetime.now(UTC):
        return True
    # os.kill(pid, 0) would end the process on Windows, so there only the lease's end counts.
    if owner.place != _place() or sys.platform == "win32":
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    started = _started(owner.pid)
    return bool(started and owner.started) and started != owner.started


def _place() -> str:
    """This host, its boot and its space of process ids. Within it, an id means one process."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if "/ns/" in path else Path(path).read_text().strip())
        except OSError:
            parts.append("")
    return "/".join(parts)


def _started(pid: int) -> str:
    """When the process started, in clock ticks since boot.

    `"ended"` for a zombie, `""` where it can't be told.
    Field 22 of /proc/PID/stat (proc_pid_stat(5)); field 3 is the state.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()


class Keeper:
    """Renews the leases of a store's running turns, from a thread that lives while there are any.

    A thread, because a task would need a cancel scope that stays open while the generator which
    streams the turn yields: closing that generator from another task then breaks anyio's rules. Nor
    would a task renew while something blocks the event loop. Turns are held weakly, so that the
    lease of a turn that was dropped without being ended runs out.
    """

    def __init__(self, renew: Callable[[Iterable[object]], None], *, every: float) -> None:
        """Call `renew` with the held turns each `every` seconds."""
        self._renew = renew
        self._every = every
        self._held: WeakSet[object] = WeakSet()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def hold(self, turn: object) -> None:
        """Renew this turn from now on."""
        with self._changed:
            self._held.add(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="corral-leases", daemon=True)
                self._thread.start()

    def drop(self, turn: object) -> None:
        """Renew this turn no more."""
        with self._changed:
            self._held.discard(turn)
            if not self._held:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._held, timeout=self._every)
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            self._renew(held)
            del held
