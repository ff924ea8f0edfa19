"""Run the short programs of the conversations: what is said of them is what Python prints."""

from __future__ import annotations

import io
import linecache
import traceback
from contextlib import redirect_stdout
from functools import lru_cache

__all__ = ["run"]

_FILE = "<code>"


@lru_cache(maxsize=4096)
def run(program: str) -> tuple[str, bool]:
    """What `program` prints, as the code interpreter reports it, and whether it failed.

    Only programs that this package wrote are run: there is no sandbox here.
    """
    out = io.StringIO()
    try:
        compiled = compile(program, _FILE, "exec")
        with redirect_stdout(out):
            exec(compiled, {"__name__": "__main__"})
    except Exception as error:
        return _traceback(error, program), True
    return out.getvalue().removesuffix("\n") or "(no output)", False


def _traceback(error: Exception, program: str) -> str:
    """The traceback as the sandbox gives it: the program's own frames, each with its line."""
    linecache.cache[_FILE] = (len(program), None, program.splitlines(keepends=True), _FILE)
    shown = traceback.TracebackException.from_exception(error)
    shown.stack[:] = [frame for frame in shown.stack if frame.filename == _FILE]
    return "".join(shown.format()).rstrip("\n")
