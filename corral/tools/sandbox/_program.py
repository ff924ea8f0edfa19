"""Runs the program as `__main__`, the way a notebook does: a last expression's value is shown."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

__all__ = ["FILENAME", "run"]

FILENAME = "<code>"
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST; the module that names it is slow to import.


def run(source: str) -> int:
    """Run `source` and return its exit code. A traceback shows the program's frames alone."""
    main = type(sys)("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    try:
        body, last = _compiled(source)
        exec(body, main.__dict__)
        if last is not None:
            sys.displayhook(eval(last, main.__dict__))
        return 0
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as error:
        # Everything is caught, KeyboardInterrupt too: the program's end is the only thing that is
        # left to do here.
        _show(error, source)
        return 1


def _compiled(source: str) -> tuple[CodeType, CodeType | None]:
    tree: Any = compile(source, FILENAME, "exec", _ONLY_AST, dont_inherit=True)
    last: Any = tree.body[-1] if tree.body else None
    if type(last).__name__ != "Expr":
        return compile(tree, FILENAME, "exec", dont_inherit=True), None
    import _ast

    tree.body.pop()
    body = compile(tree, FILENAME, "exec", dont_inherit=True)
    return body, compile(_ast.Expression(last.value), FILENAME, "eval", dont_inherit=True)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _show(error: BaseException, source: str) -> None:
    try:
        import linecache
        import traceback

        lines = source.splitlines(keepends=True)
        linecache.cache[FILENAME] = (len(source), None, lines, FILENAME)
        shown = traceback.TracebackException.from_exception(error)
        _keep_own_frames(shown)
        text = "".join(shown.format())
    except BaseException:
        # Out of memory, out of stack, or imports refused: say at least what it was.
        text = f"Traceback (most recent call last):\n{type(error).__name__}\n"
    sys.stderr.write(text)


def _keep_own_frames(shown: Any) -> None:
    seen: set[int] = set()
    waiting = [shown]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if frame.filename == FILENAME]
        waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
