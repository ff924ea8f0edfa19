"""What came of a program that ran in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corral.tools.sandbox.permissions import Level

__all__ = ["Limit", "SandboxResult"]

Limit = Literal["wall", "cpu", "memory", "disk", "files"]
"""A limit that ends a program when it is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResult:
    """What came of a program. Its output is its own word: treat it as data from a stranger.

    Attributes:
        stdout: What it printed, as UTF-8; bytes that aren't UTF-8 are shown as U+FFFD.
        stderr: The same of its error stream; a traceback names the program `<code>` and shows only
            its frames.
        exit_code: Its exit code, or None when a signal ended it.
        signal: The signal that ended it, or None.
        timed_out: Whether it was killed for taking longer than `wall_seconds`.
        truncated: Whether more was printed than is kept here.
        seconds: How long it ran, without the time to set the sandbox up.
        level: How strongly it was confined.
        over: Which limit ended it, if one did.
    """

    stdout: str
    stderr: str
    exit_code: int | None
    signal: int | None
    timed_out: bool
    truncated: bool
    seconds: float
    level: Level
    over: Limit | None = None
