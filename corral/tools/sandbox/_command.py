"""Becomes another program: the confined process, already locked, runs it in its place."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["lay_out", "run"]

_SIGPIPE, _SIGXFSZ = 13, 25


def lay_out(files: Mapping[str, bytes]) -> None:
    """Write the files that the program is given into the working directory."""
    for name, data in files.items():
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(name, "wb") as file:
            file.write(data)


def run(argv: Sequence[str]) -> int:
    """Become `argv[0]`, looked up in PATH; returns, with a shell's exit code, only if it can't."""
    signals: Any = __import__("_signal")  # What `signal` wraps, and faster to import.
    # Python ignores these, and what is ignored stays so in the program.
    signals.signal(_SIGPIPE, signals.SIG_DFL)
    signals.signal(_SIGXFSZ, signals.SIG_DFL)
    code, why = 127, "not found"
    for path in _candidates(argv[0]):
        try:
            os.execve(path, list(argv), os.environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            code, why = 126, error.strerror or str(error)
    where = "" if "/" in argv[0] else f" in {os.environ['PATH']}"
    sys.stderr.write(f"{argv[0]}: {why}{where}\n")
    return code


def _candidates(name: str) -> list[str]:
    if "/" in name:
        return [name]
    return [os.path.join(folder, name) for folder in os.environ["PATH"].split(":")]
