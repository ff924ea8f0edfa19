"""An object in a process of its own.

A library that splits its work over threads keeps them, and others in the same process that do so
too are slower for it. What is compared is measured apart, so that none pays for another.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Elsewhere:
    """Makes an object in a new process, and calls its methods there.

    `make` and everything that is passed or returned has to be picklable.

    Raises:
        RuntimeError: the other process ended, or what it did failed; with its traceback.
    """

    def __init__(self, make: Callable[..., object], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, arguments), daemon=True, name="elsewhere"
        )
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and wait for what it returns."""
        self._pipe.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError("The process that measures ended before its time.") from None
        if not good:
            raise RuntimeError(value)
        return value


def _serve(pipe: Connection, make: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Make the object, and do what is asked for until nobody can ask any more."""
    try:
        made = make(*arguments)
    except Exception:
        pipe.send((False, traceback.format_exc()))
        return
    pipe.send((True, None))
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, getattr(made, method)(*given))
        except Exception:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
