"""The supervisor's watch over a worker: quotas, deadlines told by the host, and the host's death.

The host speaks on the leash, in the words of `_words.py`, and closes it to have everything ended.
Until the first `BEGIN` nothing is polled, so that a worker which waits for its program costs no
processor time; one that waits too long ends by itself.
"""

from __future__ import annotations

import os
import select
import time

from . import _workspace
from ._words import BEGIN, PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._policy import Policy

__all__ = ["Keeper", "descendants", "readable"]

_DISK_POLL_MS = 50
_MEMORY_POLL_MS = 20


class Keeper:
    """Watches over one program, until it has ended or must be."""

    def __init__(
        self, policy: Policy, leash: int, child: int, workspace: str, say: Callable[[str], None]
    ) -> None:
        """Watch over `child`, which `policy` governs; `say` tells the host a line."""
        self._policy = policy
        self._leash = leash
        self._child = child
        self._workspace = workspace
        self._say = say
        self._ended = os.pidfd_open(child)
        self._active = False
        self._idle_since = time.monotonic()
        self._poll = select.poll()
        self._answers: dict[int, Callable[[], bool]] = {}
        self.child_reaped = False
        self.was_idle = False
        self._answer(leash, self._on_leash)
        self._answer(self._ended, self._on_child_end)
        # The leash alone doesn't tell of the host's death where a fork of the host still holds it.
        self._host = os.pidfd_open(os.getppid())
        self._answer(self._host, lambda: False)

    def watch(self) -> None:
        """Return when everything is to be ended."""
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd in self._answers and not self._answers[fd]():
                    return
            if not self._tick():
                return

    def wait_for_host(self) -> None:
        """Wait until the host has let go, or is dead."""
        poll = select.poll()
        for fd in (self._leash, self._host):
            poll.register(fd, select.POLLIN)
        while not any(fd == self._host for fd, _ in poll.poll()):
            if not os.read(self._leash, 64):
                return

    def _answer(self, fd: int, on_event: Callable[[], bool]) -> None:
        self._answers[fd] = on_event
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        del self._answers[fd]
        self._poll.unregister(fd)
        os.close(fd)

    def _on_leash(self) -> bool:
        words = os.read(self._leash, 64)
        return bool(words) and all(self._obey(words[at : at + 1]) for at in range(len(words)))

    def _obey(self, word: bytes) -> bool:
        """Do what the host says; false for the end."""
        self._active = word == BEGIN
        self._idle_since = time.monotonic()
        return word in (BEGIN, PAUSE)

    def _on_child_end(self) -> bool:
        return False

    def _patience(self) -> int | None:
        """Milliseconds until `_tick` is due, or None while nothing has to be looked at."""
        if self._active:
            return self._poll_every()
        if not self._policy["idle_seconds"]:
            return None
        left = self._idle_since + self._policy["idle_seconds"] - time.monotonic()
        return max(0, int(left * 1000) + 1)

    def _poll_every(self) -> int | None:
        if self._policy["processes"]:
            return _MEMORY_POLL_MS
        return None if self._policy["level"] == "namespaces" else _DISK_POLL_MS

    def _tick(self) -> bool:
        if self._active:
            over = self._over()
            if over:
                self._say(f"over {over}")
                return self._on_over()
        elif self._patience() == 0:
            self.was_idle = True
            self._say("idle")
            return False
        return True

    def _on_over(self) -> bool:
        return False

    def _over(self) -> str | None:
        """Which of the quotas that the kernel doesn't enforce for us is exceeded, if any."""
        policy = self._policy
        if self._workspace:
            return _workspace.exceeds(
                self._workspace, disk_bytes=policy["disk_bytes"], files=policy["files"]
            )
        if policy["processes"] and self._resident_bytes() > policy["memory_bytes"]:
            return "memory"
        if policy["level"] == "bubblewrap":
            from . import _bubblewrap

            if _bubblewrap.inodes_in_use(self._child) > policy["files"] + 8:
                return "files"
        return None

    def _resident_bytes(self) -> int:
        return self._resident_of([self._child, *descendants(self._child)])

    @staticmethod
    def _resident_of(processes: list[int]) -> int:
        pages = 0
        for pid in processes:
            try:
                with open(f"/proc/{pid}/statm", "rb") as file:
                    pages += int(file.read().split()[1])
            except OSError:
                continue  # It ended while we looked.
        return pages * os.sysconf("SC_PAGESIZE")


def readable(fd: int) -> bool:
    """Whether there is something to read; of a process's descriptor, whether it has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def descendants(root: int) -> list[int]:
    """The processes below `root`, parents first."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                waiting += children
        except OSError:
            continue  # It ended while we looked.
    return found
