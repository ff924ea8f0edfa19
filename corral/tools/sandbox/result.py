"""What came of a program that ran in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corral.tools.sandbox.permissions import Level

__all__ = ["CellResult", "CellState", "Limit", "MadeFile", "SandboxResult"]

Limit = Literal["wall", "cpu", "memory", "disk", "files"]
"""A limit that ends a program when it is reached."""

CellState = Literal["kept", "restored", "lost"]
"""What became of a session's variables.

- `kept`: they are as the cell left them, also where it ended with an exception;
- `restored`: the cell was killed or crashed, and they are as they were before it;
- `lost`: the session is over.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFile:
    """A file that the program wrote into its working directory: data from a stranger.

    Attributes:
        path: Its path there, as the program chose it: any text, so not to be used as a path here.
        data: Its bytes, or None where it is larger than is taken, or one too many.
    """

    path: str
    data: bytes | None


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
        level: How strongly it was confined; `unsafe` where `unsafe_local` had it run unconfined.
        over: Which limit ended it, if one did.
        files: What it left in its working directory, where that was asked for.
    """

    stdout: str
    stderr: str
    exit_code: int | None
    signal: int | None
    timed_out: bool
    truncated: bool
    seconds: float
    level: Level | Literal["unsafe"]
    over: Limit | None = None
    files: tuple[MadeFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What came of a cell of a session. All text in it is the code's own word.

    Attributes:
        stdout: What it printed.
        stderr: The same of its error stream, without the traceback of an exception.
        value: The value of its last expression, as `repr` shows it; None where there is none.
        error: The traceback of the exception that ended it, of the cells' frames alone, or None.
        exit_code: The code it ended itself with (`exit(3)`), or None.
        signal: The signal that ended its process, or None.
        over: Which limit ended it, if one did.
        truncated: Whether more was printed than is kept here.
        state: What became of the variables.
        seconds: How long it ran.
        level: How strongly it was confined.
        files: What it has written, or changed, in the working directory.
    """

    stdout: str
    stderr: str
    value: str | None
    error: str | None
    exit_code: int | None
    signal: int | None
    over: Limit | None
    truncated: bool
    state: CellState
    seconds: float
    level: Level
    files: tuple[MadeFile, ...] = ()
