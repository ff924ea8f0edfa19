"""Warm workers: each is used once, costs nothing while it waits, and never outlives its host."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from processes import gone, stat_of
from sandbox_fixtures import confined, run_host, used

from corral.tools.sandbox import Level, Permissions, PythonPool
from corral.tools.sandbox._keeper import descendants
from corral.tools.sandbox._layout import environment, policy_for
from corral.tools.sandbox._pool import Pool
from corral.tools.sandbox._worker import Worker

pytestmark = [confined, pytest.mark.usefixtures("temporary")]


def workers(level: Level, *, spares: int = 1, **limits: Any) -> Pool:
    permissions = Permissions.model_validate(limits)
    policy = policy_for(permissions, level)
    return Pool(lambda: Worker(policy, environment(permissions)), spares=spares)


def wait_until_ready(worker: Worker) -> None:
    until = time.monotonic() + 30
    while worker.ready_at is None and time.monotonic() < until and worker.is_fresh():
        time.sleep(0.01)
    assert worker.ready_at is not None


def processor_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = stat_of(pid)
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def test_every_program_has_a_worker_of_its_own(level: Level) -> None:
    async with PythonPool(level=level) as pool:
        await pool.warm_up(sessions=False)
        for number in range(4):
            result = await pool.run_python(f"import os\nprint(os.listdir('.'))\nx = {number}")
            assert (result.stdout, result.stderr) == ("[]\n", "")
            result = await pool.run_python("open('left', 'w').write('x')\nx")
            assert "NameError" in result.stderr


async def test_a_warm_worker_runs_programs_as_a_cold_one_does(level: Level) -> None:
    async with PythonPool(Permissions(wall_seconds=1), level=level) as pool:
        await pool.warm_up(sessions=False)
        await anyio.sleep(0.5)
        result = await pool.run_python("import sys\nlen(sys.stdin.read())", stdin=b"x" * 200_000)
        assert (result.stdout, result.exit_code, result.level) == ("200000\n", 0, level)
        assert (await pool.run_python("exit(3)")).exit_code == 3
        stopped = await pool.run_python("print('so far')\nwhile True: pass")
        assert (stopped.stdout, stopped.over) == ("so far\n", "wall")
        made = await pool.run_python("open('a', 'w').write('b')", collect_files=True)
        assert [(file.path, file.data) for file in made.files] == [("a", b"b")]


async def test_modules_can_be_there_before_the_program(level: Level) -> None:
    async with PythonPool(preload=("decimal", "no_such_module"), level=level) as pool:
        await pool.warm_up(sessions=False)
        code = "import sys\n'decimal' in sys.modules, 'no_such_module' in sys.modules"
        assert (await pool.run_python(code)).stdout == "(True, False)\n"


def test_a_waiting_worker_uses_no_processor_time(level: Level) -> None:
    pool = workers(level)
    pool.refill()
    worker = pool.take()
    wait_until_ready(worker)
    pids = descendants(os.getpid())
    before = processor_seconds(pids)
    time.sleep(1.0)
    assert processor_seconds(pids) == before
    worker.close()
    pool.close()


def test_a_worker_that_died_while_it_waited_is_not_given_out(level: Level) -> None:
    before = used()
    pool = workers(level)
    pool.refill()
    (supervisor,) = [pid for pid in descendants(os.getpid()) if int(stat_of(pid)[1]) == os.getpid()]
    os.kill(supervisor, signal.SIGKILL)
    time.sleep(0.2)
    worker = pool.take()
    wait_until_ready(worker)
    worker.close()
    pool.close()
    assert used()[:2] == before[:2]


def test_closing_the_pool_leaves_nothing(level: Level) -> None:
    before = used()
    pool = workers(level, spares=3)
    pool.refill()
    taken = pool.take()
    pool.close()
    taken.close()
    assert used() == before


def test_a_pool_that_is_forgotten_ends_its_workers(level: Level) -> None:
    before = used()
    pool = workers(level)
    pool.refill()
    del pool
    assert used() == before


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def test_calls_in_a_row_and_at_once_leave_nothing(level: Level) -> None:
    before, mounted = used(), mounts()
    async with PythonPool(level=level) as pool:
        for _ in range(15):
            assert (await pool.run_python("1 + 1")).stdout == "2\n"

        async def one() -> None:
            assert (await pool.run_python("1 + 1", collect_files=True)).stdout == "2\n"

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert used() == before
    assert mounts() == mounted


HOST = """
import os, sys, time
sys.path[:0] = {path!r}
from corral.tools.sandbox import Permissions
from corral.tools.sandbox._keeper import descendants
from corral.tools.sandbox._layout import environment, policy_for
from corral.tools.sandbox._pool import Pool
from corral.tools.sandbox._worker import Worker
permissions = Permissions()
policy = policy_for(permissions, {level!r})
pool = Pool(lambda: Worker(policy, environment(permissions), show_folder=True), spares=2)
pool.refill()
for worker in pool._waiting:
    while worker.ready_at is None:
        worker.is_fresh()
        time.sleep(0.01)
{then}
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        # A fork of the host holds copies of all its descriptors, and lives on.
        "if os.fork(): os.kill(os.getpid(), 9)\nos.close(1); os.close(2); time.sleep(15)",
    ],
    ids=["ends", "exits", "is killed", "is killed, and a fork of it lives"],
)
def test_workers_end_with_their_host(level: Level, end: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pool-") as temporary:
        os.chmod(temporary, 0o777)
        then = f"print(*descendants(os.getpid()), flush=True)\n{end}"
        done = run_host(HOST, temporary, level=level, then=then)
        pids = [int(word) for word in done.stdout.split()]
        assert len(pids) >= 4, done.stderr
        assert gone(*pids)
        assert os.listdir(temporary) == []


def test_a_fork_of_the_host_starts_workers_of_its_own(level: Level) -> None:
    then = """
mine = set(descendants(os.getpid()))
child = os.fork()
if not child:
    worker = pool.take()
    fresh = worker.owner == os.getpid() and worker.is_fresh()
    worker.close()
    pool.close()
    os._exit(7 if fresh else 8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(mine == set(descendants(os.getpid())), all(w.is_fresh() for w in pool._waiting))
"""
    with tempfile.TemporaryDirectory(prefix="pool-") as temporary:
        os.chmod(temporary, 0o777)
        done = run_host(HOST, temporary, level=level, then=then)
    assert (done.stdout, done.stderr) == ("7\nTrue True\n", "")


async def test_everything_is_dead_soon_after_the_deadline(level: Level) -> None:
    """Only that it doesn't take seconds: how many milliseconds it takes is measured elsewhere."""
    async with PythonPool(Permissions(wall_seconds=0.5), level=level) as pool:
        began = time.monotonic()
        result = await pool.run_python("import signal\nsignal.pause()")
        assert result.over == "wall"
        assert time.monotonic() - began < 10
