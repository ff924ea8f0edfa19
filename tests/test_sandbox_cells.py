"""The cells of a session, as in a notebook: what is there in the next one, what each may do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from processes import is_living
from sandbox_fixtures import confined, used

from corral.errors import SandboxUnavailable
from corral.tools.sandbox import (
    CellResult,
    Level,
    Permissions,
    PythonPool,
    PythonSession,
    _notify,
)
from corral.tools.sandbox._keeper import descendants
from corral.tools.sandbox._session_keeper import SessionKeeper
from corral.tools.sandbox._words import BEGIN, PAUSE

pytestmark = [confined, pytest.mark.usefixtures("temporary")]


class Notebook:
    """A session whose cells have to keep its variables, unless said otherwise."""

    def __init__(self, session: PythonSession) -> None:
        self.session = session

    async def __call__(self, code: str, *, state: str = "kept") -> CellResult:
        result = await self.session.run(code)
        assert result.state == state, result
        return result

    async def value(self, code: str) -> str | None:
        result = await self(code)
        assert result.error is None, result.error
        return result.value


@pytest.fixture
async def notebook(level: Level, request: pytest.FixtureRequest) -> AsyncIterator[Notebook]:
    limits: dict[str, Any] = getattr(request, "param", {})
    async with PythonPool(Permissions.model_validate(limits), spares=0, level=level) as pool:
        session = await pool.open_session()
        yield Notebook(session)
        await session.aclose()


def limited(**limits: Any) -> Any:
    return pytest.mark.parametrize("notebook", [limits], indirect=True)


# --- variables


async def test_variables_functions_and_imports_are_there_in_the_next_cell(
    notebook: Notebook,
) -> None:
    await notebook("import math\nx = 17\ndef double(n):\n    return 2 * n")
    assert await notebook.value("double(x) + math.floor(0.5)") == "34"
    assert await notebook.value("_") == "34"


async def test_what_a_cell_set_before_its_exception_is_kept(notebook: Notebook) -> None:
    await notebook("x = 1")
    failed = await notebook("x = 2\n1 / 0")
    assert failed.error is not None and "ZeroDivisionError" in failed.error
    assert await notebook.value("x") == "2"


@limited(wall_seconds=0.4)
async def test_variables_are_as_before_a_cell_that_took_too_long(notebook: Notebook) -> None:
    await notebook("x = [1]")
    stopped = await notebook("x.append(2)\nprint('so far')\nwhile True: pass", state="restored")
    assert (stopped.over, stopped.stdout) == ("wall", "so far\n")
    assert await notebook.value("x") == "[1]"
    # More than once, and from the copy of a copy.
    await notebook("x.append(3)")
    await notebook("x.clear()\nimport time\ntime.sleep(60)", state="restored")
    assert await notebook.value("x") == "[1, 3]"


async def test_variables_are_as_before_a_cell_that_crashed(notebook: Notebook) -> None:
    await notebook("x = [1]")
    crashed = await notebook("import ctypes\nx.append(2)\nctypes.string_at(0)", state="restored")
    assert crashed.signal == 11
    assert await notebook.value("x") == "[1]"
    left = await notebook("import os\nx.append(3)\nos._exit(5)", state="restored")
    assert left.exit_code == 5
    assert await notebook.value("x") == "[1]"


@limited(memory_bytes=256 << 20)
async def test_variables_survive_a_cell_that_wants_too_much_memory(notebook: Notebook) -> None:
    await notebook("x = 1")
    failed = await notebook("data = bytearray(1 << 30)")
    assert failed.error is not None and "MemoryError" in failed.error
    assert await notebook.value("x") == "1"


@limited(cpu_seconds=1)
async def test_processor_time_is_limited_for_each_cell(notebook: Notebook) -> None:
    busy = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass"
    await notebook("x = 1")
    for _ in range(2):  # More than the limit together.
        await notebook(busy.format(0.6))
    raised = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (40, 40))\n"
    stopped = await notebook(raised + busy.format(60), state="restored")
    assert stopped.over == "cpu"
    assert await notebook.value("x") == "1"


async def test_a_cancelled_cell_is_undone_and_the_session_goes_on(notebook: Notebook) -> None:
    await notebook("x = 1")
    with anyio.move_on_after(0.3) as scope:
        await notebook("x = 2\nwhile True: pass")
    assert scope.cancelled_caught
    assert await notebook.value("x") == "1"


async def test_exit_ends_the_cell_alone(notebook: Notebook) -> None:
    await notebook("x = 1")
    assert (await notebook("x = 2\nexit(3)")).exit_code == 3
    said = await notebook("exit('why not')")
    assert (said.exit_code, said.stderr) == (1, "why not\n")
    assert await notebook.value("x") == "2"


async def test_threads_go_on_in_the_next_cell_and_stand_still_between(notebook: Notebook) -> None:
    await notebook(
        "import threading, time\n"
        "count = 0\n"
        "def work():\n"
        "    global count\n"
        "    while True:\n"
        "        count += 1\n"
        "        time.sleep(0.005)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)"
    )
    before = int(await notebook.value("count") or 0)
    await anyio.sleep(0.6)
    between = int(await notebook.value("count") or 0) - before
    assert between < 60
    assert await notebook.value(f"time.sleep(0.1)\ncount > {before + between}") == "True"


async def test_an_executor_of_an_earlier_cell_still_works(notebook: Notebook) -> None:
    await notebook(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\nlist(pool.map(abs, [-1]))"
    )
    assert await notebook.value("list(pool.map(abs, [-2, -3]))") == "[2, 3]"


# --- what a cell shows


async def test_the_value_and_both_streams_come_apart(notebook: Notebook) -> None:
    result = await notebook("import sys\nprint('out')\nprint('err', file=sys.stderr)\n17 * 23")
    assert (result.stdout, result.stderr, result.value) == ("out\n", "err\n", "391")
    assert (await notebook("None")).value is None
    assert (await notebook("x = 1")).value is None


async def test_a_long_value_is_cut(notebook: Notebook) -> None:
    value = await notebook.value("'x' * 1_000_000")
    assert value is not None and len(value) < 60_000 and value.endswith("more characters)")


async def test_a_traceback_names_the_cell_and_its_line_and_shows_no_other_frames(
    notebook: Notebook,
) -> None:
    await notebook("import json\n\ndef read(text):\n    return json.loads(text)")
    error = (await notebook("x = 1\nread('{')")).error
    assert error is not None
    lines = error.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "<cell 2>", line 2, in <module>'
    assert '  File "<cell 1>", line 4, in read' in lines
    assert "    return json.loads(text)" in lines
    assert "decoder.py" not in error and "corral" not in error


async def test_a_mistake_in_the_syntax_changes_nothing(notebook: Notebook) -> None:
    await notebook("x = 1")
    error = (await notebook("x = 2\ny = = 3")).error
    assert error is not None and 'File "<cell 2>", line 2' in error
    assert await notebook.value("x") == "1"


async def test_a_cell_that_redirects_its_output_does_so_for_itself(notebook: Notebook) -> None:
    await notebook("import io, sys\nsys.stdout = io.StringIO()\nprint('lost')")
    assert (await notebook("print('seen')")).stdout == "seen\n"
    await notebook("sys.stdout.close()\nsys.stderr.close()")
    seen = await notebook("print('out')\nprint('err', file=sys.stderr)")
    assert (seen.stdout, seen.stderr) == ("out\n", "err\n")


@limited(output_bytes=1000)
async def test_output_is_cut_by_cell(notebook: Notebook) -> None:
    result = await notebook("print('x' * 100_000)")
    assert (len(result.stdout), result.truncated) == (1000, True)
    result = await notebook("print('y')")
    assert (result.stdout, result.truncated) == ("y\n", False)


async def test_a_cell_that_makes_its_descriptors_impatient_harms_nothing(
    notebook: Notebook,
) -> None:
    await notebook(
        "import os\nx = 1\n"
        "for fd in range(60):\n    try:\n        os.set_blocking(fd, False)\n"
        "    except OSError:\n        pass"
    )
    await anyio.sleep(0.1)
    assert await notebook.value("x") == "1"
    assert await notebook.value("x + 1") == "2"


# --- what a session may not do


async def test_code_in_a_session_starts_no_process(notebook: Notebook) -> None:
    attempts = (
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import threading, os\nfound = []\n"
        "def work():\n"
        "    try:\n        found.append(os.fork())\n"
        "    except PermissionError as error:\n        found.append(error)\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()\nraise found[0]",
    )
    for attempt in attempts:
        error = (await notebook(attempt)).error
        assert error is not None and "PermissionError" in error, attempt


async def test_code_that_garbles_its_results_harms_its_own_session_alone(level: Level) -> None:
    """Whatever is written on every descriptor there is, the host answers for it in good time."""
    attempts = (
        "import os\nfor fd in range(3, 30):\n    try:\n        os.write(fd, {!r})\n"
        "    except OSError:\n        pass",
        "import os\nos.closerange(3, 256)",
        "import os\nos.read = os.write = os.pipe = os.fork = None",
    )
    garbage = (b"\xff" * 8, b"\0" * 8, (5).to_bytes(8, "big") + b"[[[[[", b"x" * 100_000)
    codes = [attempts[0].format(g) for g in garbage] + list(attempts[1:])
    async with PythonPool(Permissions(wall_seconds=2), spares=0, level=level) as pool:
        for code in codes:
            session = await pool.open_session()
            with anyio.fail_after(30):
                await session.run(code)
                if not session.is_over:
                    await session.run("1")
            await session.aclose()
        other = await pool.open_session()
        assert (await other.run("17 * 23")).value == "391"
        await other.aclose()


async def test_a_forged_result_lets_no_second_process_pile_up(level: Level) -> None:
    """Code that reports its own end early may not keep a copy of itself at every cell."""
    forge = (
        "import os\n"
        "told = b'{\"value\": null}'\n"
        "for fd in range(3, 30):\n"
        "    try:\n        os.write(fd, len(told).to_bytes(8, 'big') + told)\n"
        "    except OSError:\n        pass\n"
        "import time\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        if not os.fork():\n            time.sleep(60)\n"
        "    except OSError:\n        pass\n"
        "    time.sleep(0.005)\n"
    )
    async with PythonPool(Permissions(wall_seconds=5), spares=0, level=level) as pool:
        session = await pool.open_session()
        try:
            await session.run("1")
            await anyio.sleep(0.1)
            at_most = len(_living()) + 1  # The copy that a cell has.
            await session.run(forge)
            assert len(await _settled(at_most)) <= at_most
            with contextlib.suppress(SandboxUnavailable):  # Over, once the forgery is seen.
                for _ in range(3):
                    await session.run(forge)
                    assert len(await _settled(at_most)) <= at_most
            assert len(await _settled(at_most)) <= at_most
        finally:
            await session.aclose()


async def _settled(expected: int) -> list[int]:
    """Our processes that live, once no more than `expected` are left or 1 s has gone by.

    A cell's copy, and all of a session that is over, are ended just after the result is told.
    """
    living = _living()
    for _ in range(100):
        if len(living) <= expected:
            break
        await anyio.sleep(0.01)
        living = _living()
    return living


def _living() -> list[int]:
    return [pid for pid in descendants(os.getpid()) if is_living(pid)]


@limited(processes=4, wall_seconds=1.0)
async def test_a_deadline_ends_daemons_too(notebook: Notebook) -> None:
    if notebook.session._worker.level == "reduced":  # pyright: ignore[reportPrivateUsage]
        pytest.skip("no other processes on this level")
    await notebook("x = 1")
    daemon = (
        "import os, time\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if not os.fork():\n"
        "        while True:\n"
        "            open('beat', 'w').write(str(time.time()))\n"
        "            time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "time.sleep(60)"
    )
    await notebook(daemon, state="restored")
    assert await notebook.value("x") == "1"
    beat = await notebook.value("open('beat').read()")
    assert await notebook.value("import time\ntime.sleep(0.2)\nopen('beat').read()") == beat


async def test_a_session_that_is_closed_leaves_nothing(level: Level) -> None:
    before = used()
    async with PythonPool(Permissions(wall_seconds=0.3), level=level) as pool:
        for code in ("x = 1", "while True: pass", "import os; os._exit(0)"):
            session = await pool.open_session()
            await session.run("open('file', 'w').write('x')")
            await session.run(code)
            await session.aclose()
    assert used() == before


async def test_a_session_without_cells_ends_by_itself(level: Level) -> None:
    async with PythonPool(spares=0, idle_seconds=0.3, level=level) as pool:
        session = await pool.open_session()
        await session.run("x = 1")
        until = time.monotonic() + 20
        while not session.is_over and time.monotonic() < until:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        assert session.was_idle
        with pytest.raises(SandboxUnavailable):
            await session.run("x")
        await session.aclose()


ORPHANED = """
import os
from corral.tools.sandbox import _cells

first = os.getpid()

def announce():
    os.kill(first, 9)
    while os.getppid() == first:
        pass

_cells.announce = announce
assert _cells._copy() is None
print("took its place", flush=True)
"""


def test_a_copy_takes_the_place_of_one_that_is_killed_while_it_is_made() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHANED], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (done.stdout, done.stderr) == ("took its place\n", "")


ASKS = """
import os
from corral.tools.sandbox import _cells, _libc, _notify

_libc.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
_notify.hand_over({gate}, _notify.install(processes=False))
_cells.announce()
child = os.fork()
if child:
    os.waitpid(child, 0)
    print("copied", flush=True)
"""


def test_a_copy_whose_fork_a_signal_had_begin_anew_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's words stop the holder and let it go on, whatever it is doing just then."""
    receiving, sending = _notify.new_gate()
    leash, host = os.pipe()
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKS.format(gate=sending)],
        pass_fds=[sending],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(sending)
    listener = _notify.take_over(receiving)
    if listener < 0:
        asking.kill()
        pytest.skip("another supervisor answers for this process")
    said: list[str] = []
    policy: Any = {"level": "reduced", "processes": False, "cpu_seconds": 60, "idle_seconds": 0}
    keeper = SessionKeeper(
        policy, leash, asking.pid, "", said.append, listener=listener, outcome=lambda _: ""
    )
    assert keeper._on_question()  # Its word that it is the holder.
    os.write(host, PAUSE + BEGIN)
    answer, lost = _notify.answer, []

    def answer_too_late(listener: int, number: int, *, allow: bool) -> bool:
        asking.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, asking.pid, os.WSTOPPED)
        asking.send_signal(signal.SIGCONT)
        lost.append(not answer(listener, number, allow=allow))
        return not lost[-1]

    with monkeypatch.context() as patched:
        patched.setattr(_notify, "answer", answer_too_late)
        assert keeper._on_question()
    assert lost == [True]
    while keeper._may_copy:  # A question that a signal took back may be met first, empty.
        assert keeper._on_question()
    assert asking.communicate(timeout=30)[0] == "copied\n"
    for fd in (leash, host, listener):
        os.close(fd)
