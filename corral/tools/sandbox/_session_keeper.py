"""The supervisor's watch over a session: cells in turn, and the state before the last one.

    holder            has the session's variables; runs the cells
    └── spare         a copy of the holder, made before each cell; waits

When a cell ends well its spare ends. When the holder dies, killed at a deadline or by its own
fault, the spare takes its place with the variables as they were. Both tell us who they are by
asking for a fork that they don't mean: that it comes from this thread and no other is the kernel's
word. The only fork that is ever let through (`processes` apart) is the holder's own, once a cell,
before anything of the cell runs. Between cells the holder is stopped, with all its threads.
"""

from __future__ import annotations

import os
import time

from . import _notify
from ._keeper import Keeper, descendants, readable
from ._words import KILL, PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._policy import Policy

__all__ = ["SessionKeeper"]

_CELL_POLL_MS = 50
_SIGKILL, _SIGCONT, _SIGSTOP = 9, 18, 19
_CPU_CLOCK = 2  # CPUCLOCK_SCHED: of all a process's threads.


class _Known:
    """A process of the session: by a descriptor that no other process can come to have."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.pidfd_open(pid)
        self.inner, self.parent = _ids(pid)

    def send(self, number: int) -> None:
        signals: Any = __import__("_signal")  # What `signal` wraps, and faster to import.
        try:
            signals.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            pass

    def processor_seconds(self) -> float:
        try:
            return time.clock_gettime((~self.pid << 3) | _CPU_CLOCK)
        except OSError:
            return 0.0


class SessionKeeper(Keeper):
    """Watches over a session, until it has ended or must be."""

    def __init__(
        self,
        policy: Policy,
        leash: int,
        child: int,
        workspace: str,
        say: Callable[[str], None],
        *,
        listener: int,
        outcome: Callable[[int], str],
    ) -> None:
        """Watch over the session in `child`, whose forks ask on `listener` (-1: none may be made).

        `outcome` reaps a child of ours and says how it ended.
        """
        super().__init__(policy, leash, child, workspace, say)
        self._outcome = outcome
        self._listener = listener
        self._holder: _Known | None = None
        self._spare: _Known | None = None
        self._first_of_table = 0
        # Where there are namespaces the first process has yet to fork the holder.
        self._may_start = policy["level"] != "reduced"
        self._may_copy = False
        self._awaits_spare = False
        self._spent = 0.0
        if listener >= 0:
            self._answer(listener, self._on_question)

    # --- what the host says

    def _obey(self, word: bytes) -> bool:
        if word == KILL:
            return self._kill_cell()
        if not super()._obey(word):
            return False
        if word == PAUSE:
            if self._awaits_spare:
                self._say("lost")  # A copy was made and never said what it is.
                return False
            self._pause()
        elif self._holder is not None:
            self._may_copy = True
            self._spent = self._holder.processor_seconds()
            self._signal_all(_SIGCONT)
        return True

    def _pause(self) -> None:
        self._may_copy = False
        self._drop_spare()
        self._signal_all(_SIGSTOP)

    def _kill_cell(self) -> bool:
        if self._holder is None:
            self._say("lost")  # Without copies there is nothing to go back to.
            return False
        self._holder.send(_SIGKILL)
        return True

    def _signal_all(self, number: int) -> None:
        if self._holder is not None:
            self._holder.send(number)
        for pid in self._strays():
            _signal_pid(pid, number)

    # --- who asks for a fork

    def _on_question(self) -> bool:
        asked = _notify.question(self._listener)
        if asked is None:
            return True  # The one who asked is gone; its own descriptor tells the rest.
        number, thread = asked
        # What the host has said before it sent the cell that asks: this question may be seen first.
        goes_on = not readable(self._leash) or self._on_leash()
        try:
            allow = goes_on and self._allows(thread)
        except OSError:
            allow = False  # It ended while we looked.
        if not _notify.answer(self._listener, number, allow=allow) and allow:
            self._take_back(thread)
        return goes_on

    def _take_back(self, thread: int) -> None:
        """Nothing was forked after all: if it was to be the copy, that may still be asked for."""
        if self._holder is not None and thread == self._holder.pid and self._awaits_spare:
            self._may_copy, self._awaits_spare = True, False

    def _allows(self, thread: int) -> bool:
        if self._holder is None:
            if self._may_start:
                self._may_start = False
                return True
            self._hold(_Known(thread))
            return False
        if thread == self._holder.pid and self._may_copy:
            self._may_copy, self._awaits_spare = False, True
            return True
        if self._awaits_spare and thread != self._holder.pid:
            asking = _Known(thread)
            if asking.parent in (self._holder.pid, 0):
                self._awaits_spare, self._spare = False, asking
                return False
            os.close(asking.fd)
        if self._spare is not None and thread == self._spare.pid:
            return False  # It says again who it is.
        return bool(self._policy["processes"]) and self._active

    def _hold(self, holder: _Known) -> None:
        self._holder = holder
        self._first_of_table = self._first_of_table or holder.parent
        self._answer(holder.fd, self._on_holder_end)
        self._say(f"holder {holder.inner}")

    # --- ends

    def _on_child_end(self) -> bool:
        if self._workspace and self._holder is not None:
            return True  # It is the holder, or was one: told of by its own descriptor.
        return False

    def _on_holder_end(self) -> bool:
        """Put the spare in the holder's place, if there is one; else the session is over."""
        holder, spare = self._holder, self._spare
        assert holder is not None
        self._forget(holder.fd)
        self._holder = self._spare = None
        self._active = False
        if self._workspace:
            if holder.pid == self._child:
                self._forget(self._ended)
                self.child_reaped = True
            self._say(f"end {holder.inner} {self._outcome(holder.pid)}")
        if spare is None or readable(spare.fd):
            self._say("lost")
            return False
        self._kill_strays(spare.pid)
        self._hold(spare)
        self._say("next")
        return True

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.send(_SIGKILL)
            os.close(self._spare.fd)
            self._spare = None

    def _strays(self, *others: int) -> list[int]:
        """Processes that the code itself has started, where it may."""
        if not self._policy["processes"]:
            return []
        known = {self._child, self._first_of_table, *others}
        known |= {one.pid for one in (self._holder, self._spare) if one is not None}
        return [pid for pid in descendants(self._child) if pid not in known]

    def _kill_strays(self, spare: int) -> None:
        # No fork is answered meanwhile, so none are added.
        while strays := self._strays(spare):
            for pid in strays:
                _signal_pid(pid, _SIGKILL)
            time.sleep(0.001)

    # --- quotas

    def _poll_every(self) -> int | None:
        return super()._poll_every() or _CELL_POLL_MS

    def _over(self) -> str | None:
        over = super()._over()
        if over is None and self._holder is not None:
            spent = self._holder.processor_seconds() - self._spent
            over = "cpu" if spent > self._policy["cpu_seconds"] else None
        return over

    def _on_over(self) -> bool:
        self._active = False
        return self._kill_cell()

    def _resident_bytes(self) -> int:
        # The spare's memory is the holder's own, but for what the cell has changed since.
        spare = self._spare.pid if self._spare else 0
        return self._resident_of(
            [pid for pid in (self._child, *descendants(self._child)) if pid != spare]
        )


def _signal_pid(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _ids(pid: int) -> tuple[int, int]:
    """The process's number in its own table and its parent's in ours; 0 where it can't be seen."""
    inner = parent = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    inner = int(line.split()[-1])
                elif line.startswith(b"PPid:"):
                    parent = int(line.split()[-1])
    except OSError:
        pass
    return inner, parent
