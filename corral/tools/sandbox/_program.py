"""Runs the program as `__main__`, the way a notebook does: a last expression's value is shown."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

__all__ = ["FILENAME", "compiled", "exit_code", "formatted", "new_main", "preload", "run"]

FILENAME = "<code>"
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST; the module that names it is slow to import.
_LONGEST_TRACEBACK = 20_000


def preload(names: Sequence[str]) -> None:
    """Import modules, as far as they are installed, before the program asks for them."""
    for name in names:
        try:
            __import__(name)
        except ImportError:
            continue


def run(source: str) -> int:
    """Run `source` and return its exit code. A traceback shows the program's frames alone."""
    main = new_main()
    try:
        body, last = compiled(source, FILENAME)
        exec(body, main.__dict__)
        if last is not None:
            sys.displayhook(eval(last, main.__dict__))
        return 0
    except SystemExit as stop:
        return exit_code(stop)
    except BaseException as error:
        # Everything is caught, KeyboardInterrupt too: the program's end is the only thing that is
        # left to do here.
        sys.stderr.write(formatted(error, {FILENAME: source}))
        return 1


def new_main() -> ModuleType:
    """An empty module in the place of `__main__`."""
    main = type(sys)("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    return main


def compiled(source: str, filename: str) -> tuple[CodeType, CodeType | None]:
    """The program's statements, and the expression that is its last one, if it ends with one."""
    tree: Any = compile(source, filename, "exec", _ONLY_AST, dont_inherit=True)
    last: Any = tree.body[-1] if tree.body else None
    if type(last).__name__ != "Expr":
        return compile(tree, filename, "exec", dont_inherit=True), None
    import _ast

    tree.body.pop()
    body = compile(tree, filename, "exec", dont_inherit=True)
    return body, compile(_ast.Expression(last.value), filename, "eval", dont_inherit=True)


def exit_code(stop: SystemExit) -> int:
    """The code that `stop` asks for; says its text where it holds one."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def formatted(error: BaseException, sources: dict[str, str]) -> str:
    """The traceback of `error`, of the frames that lie in `sources` alone; cut when it is long."""
    try:
        import linecache
        import traceback

        for name, source in sources.items():
            lines = source.splitlines(keepends=True)
            linecache.cache[name] = (len(source), None, lines, name)
        shown = traceback.TracebackException.from_exception(error)
        _keep_own_frames(shown, sources)
        text = "".join(shown.format())
    except BaseException:
        # Out of memory, out of stack, or imports refused: say at least what it was.
        return f"Traceback (most recent call last):\n{type(error).__name__}\n"
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return text


def _keep_own_frames(shown: Any, sources: dict[str, str]) -> None:
    seen: set[int] = set()
    waiting = [shown]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if frame.filename in sources]
        waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
