"""What tests ask of other processes, as Linux tells it in `/proc`."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["gone", "is_living", "stat_of"]


def stat_of(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` after the name: the state, the parent, and so on (`proc(5)`).

    Raises:
        OSError: There is no such process.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_living(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody has asked after."""
    try:
        return stat_of(pid)[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int) -> bool:
    """Whether all of the processes end within 20 seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not any(is_living(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False
