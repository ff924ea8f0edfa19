"""The one thread of this process in which models compute.

Torch splits each product over threads of its own, and keeps a team of them for every thread that it
is called from. With one team these wait for the next product awake; as soon as there are more of
them than processors, they sleep in between and each product has to wake them, which costs a third
of the speed. Nor would two passes at once on the same processors be done sooner than one after
the other. Other programs can't be helped, so the team shrinks while they want the processors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from corral.model_runtime.local.threads import Threads, torch_threads

__all__ = ["adjust", "apart", "in_lane"]

_T = TypeVar("_T")

_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_team: Threads | None = None


def in_lane(work: Callable[[], _T]) -> _T:
    """Do work in the thread in which models compute, after what waits there, and wait for it."""
    global _thread
    if threading.current_thread() is _thread:
        return work()
    done, task = _kept(work)
    with _lock:
        if _thread is None or not _thread.is_alive():  # it doesn't survive a fork
            _thread = threading.Thread(target=_serve, name="corral computes", daemon=True)
            _thread.start()
    _tasks.put(task)
    return done.result()


def adjust() -> None:
    """Fit torch's team to the processors that are free. Long work in the lane calls it often."""
    if _team is not None and threading.current_thread() is _thread:
        _team.adjust()


def apart(work: Callable[[], _T]) -> _T:
    """Do work in a thread that ends with it, torch's team for it too, and wait for it."""
    done, task = _kept(work)
    threading.Thread(target=task, name="corral loads", daemon=True).start()
    return done.result()


def _kept(work: Callable[[], _T]) -> tuple[Future[_T], Callable[[], None]]:
    """A place for the result of work, and what does the work and puts it there."""
    done: Future[Any] = Future()

    def task() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    return done, task


def _serve() -> None:
    global _team
    task = _tasks.get()
    _team = torch_threads()
    while True:
        adjust()
        task()
        task = _tasks.get()
