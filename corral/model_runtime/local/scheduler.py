"""What owns a model and serves everybody who asks, a token at a time.

Each pass takes the next token of every job that is writing, and a stretch of the prompts that are
being read. Jobs join and leave between passes. While others write, prompts are read in smaller
stretches, so that a long one doesn't make them wait. Of prompts that come together and begin alike,
the first is read, and the others go on from where they part.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corral.errors import CorralError, ModelBusy, ModelError
from corral.model_runtime.local.engine import Engine, Step
from corral.model_runtime.local.jobs import Ended, Job
from corral.model_runtime.local.lane import apart, in_lane
from corral.model_runtime.local.prefixes import Prefixes, common_length

if TYPE_CHECKING:
    import torch

__all__ = ["Scheduler"]

_SHARED_CHUNK = 32
"""How many tokens of each prompt a pass reads while others write."""
_LEAST_CHUNK = 16
_WORTH_WAITING = 32
"""So many tokens that another job is about to read are worth waiting for."""
_GUESSING_JOBS = 2
"""With more jobs than that a pass is full without guesses."""
_LAST_PASS_SECONDS = 10.0

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Scheduler:
    """Runs jobs on an engine, which is loaded when the first comes and let go when none does."""

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        name: str,
        cache_bytes: int,
        engine: Engine | None = None,
        keep_alive: float | None = None,
        chunk: int = 128,
        most_running: int = 16,
        most_waiting: int = 256,
        settle: Callable[[], bool] | None = None,
    ) -> None:
        """Make a scheduler; its thread starts with the first job.

        Args:
            load: Makes the engine, in the scheduler's thread.
            name: What errors call the model.
            cache_bytes: How much memory caches may take, those in use aside.
            engine: One that `load` has made already.
            keep_alive: Seconds without a job after which the engine is let go; None for never.
            chunk: How many tokens of prompts a pass reads when nobody is writing.
            most_running: How many jobs a pass serves.
            most_waiting: How many more may wait.
            settle: Called again and again while there is no job, until it returns False: does a
                little, of some milliseconds, that makes the engine faster.
        """
        self._load = load
        self._name = name
        self.cache_bytes = cache_bytes
        self._chunk = chunk
        self._most_running = most_running
        self._most_waiting = most_waiting
        self._settle = settle
        self.keep_alive = keep_alive
        self._engine = engine
        self._prefixes: Prefixes | None = None
        self._running: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._joined = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        _schedulers.add(self)

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self._engine is not None

    def submit(self, job: Job) -> None:
        """Take a job. Its listener hears of it from now on.

        Raises:
            ModelBusy: Too many wait already.
            ModelError: The scheduler has been closed.
        """
        with self._changed:
            if self._closing:
                raise ModelError(
                    f"The model {self._name!r} has been closed. Open it again to use it."
                )
            if len(self._waiting) >= self._most_waiting:
                raise ModelBusy(
                    f"The model {self._name!r} is busy: {len(self._running)} requests are running "
                    f"and {len(self._waiting)} wait. Try again later, or send fewer at once."
                )
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"corral {self._name}", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Finish what is running, refuse anything new, and let the engine go. Doesn't wait."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            if self._thread is None:
                self._let_go()

    def stop(self) -> None:
        """Close, cancel what is running, and wait for the thread's last pass."""
        self.close()
        for job in [*self._running, *self._waiting]:
            job.cancelled = True
        if self._thread is not None:
            self._thread.join(_LAST_PASS_SECONDS)

    # -- in its thread

    def _work(self) -> None:
        while self._wait():
            if self._engine is None:
                self._reload()
            else:
                in_lane(self._turn)
        self._let_go()

    def _wait(self) -> bool:
        """Settle, then sleep, while there is nothing to do. False at the end."""
        while self._settle is not None and not self._wanted() and self._settle():
            pass
        with self._changed:
            while not self._running and not self._waiting:
                if self._closing:
                    return False
                timeout = self.keep_alive if self._engine is not None else None
                if not self._changed.wait(timeout) and not self._waiting:
                    self._let_go()
        return True

    def _wanted(self) -> bool:
        with self._changed:
            return bool(self._running or self._waiting or self._closing)

    def _reload(self) -> None:
        """Load the engine, which was let go. Where that fails, all who wait hear why."""
        try:
            self._engine = apart(self._load)
        except Exception as error:
            explained = self._explained(error)
            with self._changed:
                waiting = list(self._waiting)
                self._waiting.clear()
            for job in waiting:
                if not job.cancelled:
                    job.listener(Ended(error=explained))

    # -- where models compute

    def _turn(self) -> None:
        """Take in who waits, and compute one pass."""
        import torch

        with torch.inference_mode():
            with self._changed:
                free = self._most_running - len(self._running)
                new = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            for job in new:
                self._begin(job)
            self._pass()

    def _begin(self, job: Job) -> None:
        if job.cancelled or self._engine is None:
            return
        try:
            if self._prefixes is None:
                self._prefixes = Prefixes(self._engine.new_cache)
            if job.images:
                job.images = self._engine.prepare(job.images)
        except Exception as error:
            job.listener(Ended(error=self._explained(error)))
            return
        self._joined += 1
        job.number = self._joined
        self._running.append(job)
        self._follow(job, self._prefixes)

    def _follow(self, job: Job, prefixes: Prefixes) -> None:
        """Give a job its cache, unless one that came before it is reading what both begin with."""
        job.leader, job.shared = None, 0
        for other in self._running:
            if other.number < job.number and other.reading:
                shared = min(common_length(other.keys, job.keys), len(job.keys) - 1)
                if shared > job.shared:
                    job.leader, job.shared = other, shared
        if job.shared - prefixes.known(job.keys) <= _WORTH_WAITING:
            job.leader = None
            job.begin(prefixes.take(job.keys))

    def _go_on(self, prefixes: Prefixes) -> None:
        """Let jobs go on whose leader has read far enough, or is gone."""
        for job in sorted(self._running, key=lambda job: job.number):
            leader = job.leader
            if leader is not None and (leader not in self._running or leader.known >= job.shared):
                self._follow(job, prefixes)

    def _pass(self) -> None:
        """One forward pass, and what follows from it for each job."""
        for job in [job for job in self._running if job.cancelled]:
            self._end(job, None)
        if self._engine is None or self._prefixes is None:
            return
        self._go_on(self._prefixes)
        planned = self._plan()
        if not planned:
            return
        jobs = [job for job, _ in planned]
        steps = [step for _, step in planned]
        try:
            computed = self._engine.forward(steps)
        except Exception as error:
            # Caches may have grown in some layers and not in others: none can be trusted.
            for job in jobs:
                self._fail(job, self._explained(error), spoilt=True)
            return
        for job, step, logits in zip(jobs, steps, computed, strict=True):
            self._read(job, step, logits)
        # Those that had no room in this pass come first in the next.
        served = set(map(id, jobs))
        self._running.sort(key=lambda job: id(job) in served)

    def _plan(self) -> Sequence[tuple[Job, Step]]:
        ready = [job for job in self._running if job.leader is None]
        writing = [job for job in ready if not job.reading]
        reading = [job for job in ready if job.reading]
        guess = len(self._running) <= _GUESSING_JOBS
        planned = [(job, job.step(len(job.todo), guess=guess)) for job in writing]
        room = min(self._chunk, _SHARED_CHUNK * len(reading)) if writing else self._chunk
        share = max(_LEAST_CHUNK, room // max(1, len(reading)))
        for job in reading:
            if room <= 0:
                break
            size = min(len(job.todo), share)
            planned.append((job, job.step(size, guess=False)))
            room -= size
        return planned

    def _read(self, job: Job, step: Step, logits: torch.Tensor) -> None:
        try:
            ended = job.read(step, logits)
        except Exception as error:
            self._fail(job, self._explained(error), spoilt=False)
            return
        if ended is not None:
            self._end(job, ended)

    def _end(self, job: Job, ended: Ended | None) -> None:
        """Take a job out; its cache is kept for the prompts to come."""
        self._running.remove(job)
        if self._prefixes is not None and job.prefix is not None:
            self._prefixes.give(job.prefix, budget=self.cache_bytes)
        if ended is not None:
            job.listener(ended)

    def _fail(self, job: Job, error: Exception, *, spoilt: bool) -> None:
        self._running.remove(job)
        if self._prefixes is not None and job.prefix is not None:
            if spoilt:
                self._prefixes.drop(job.prefix)
            else:
                self._prefixes.give(job.prefix, budget=self.cache_bytes)
        job.listener(Ended(error=error))

    def _let_go(self) -> None:
        self._engine = None
        self._prefixes = None

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, CorralError):
            return error
        made = ModelError(
            f"The model {self._name!r} failed: {error}. If memory ran out, use a smaller model or "
            "a shorter prompt."
        )
        made.__cause__ = error
        return made


@atexit.register
def _stop_all() -> None:
    """A thread that comes out of a pass into an interpreter that has ended brings it down."""
    for scheduler in list(_schedulers):
        scheduler.stop()
