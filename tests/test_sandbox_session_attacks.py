"""Cells that attack their session, the next cell's confinement, and the host that reads them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sandbox_fixtures import confined, on_this_machine, run_host
from test_sandbox_attacks import (
    ATTACKS,
    HERE,
    KINDS,
    SECRET,
    USUAL,
    WAIVED,
    children,
    made_targets,
)

from corral.errors import SandboxUnavailable
from corral.tools.sandbox import (
    CellResult,
    Level,
    Permissions,
    PythonPool,
    PythonSession,
    SandboxResult,
    probe,
)
from corral.tools.sandbox._layout import environment, policy_for
from corral.tools.sandbox._worker import Worker

pytestmark = confined

BRIEF = Permissions(wall_seconds=2, cpu_seconds=3, output_bytes=10_000, memory_bytes=256 << 20)
# A session's own two ways to the host, whose end is read as a stranger's, and the one to its copy.
OWN_CHANNELS = {"descriptors_left_open"}
# On the reduced level its copy is what a signal to everything reaches.
OWN_WAYS = OWN_CHANNELS | {"signal_every_process"}
# The frame of the launcher that serves the cells: its functions are within any cell's reach.
LAUNCHER = """
import os, signal, sys
frame = sys._getframe()
while frame and "serve" not in frame.f_globals:
    frame = frame.f_back
launcher = frame.f_globals
serving = frame
while serving.f_code.co_name != "serve":
    serving = serving.f_back
request, results = serving.f_locals["request"], serving.f_locals["results"]
"""


@pytest.fixture(params=HERE)
def level(request: pytest.FixtureRequest) -> Level:
    return on_this_machine(request.param)


@contextlib.asynccontextmanager
async def opened(level: Level, permissions: Permissions = BRIEF) -> AsyncGenerator[PythonSession]:
    """A session; afterwards nothing of it is left."""
    before = children()
    descriptors = len(os.listdir("/proc/self/fd"))
    async with PythonPool(permissions, level=level, spares=0) as pool:
        session = await pool.open_session()
        try:
            yield session
        finally:
            await session.aclose()
    assert children() <= before
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    with made_targets() as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attack_from_a_session_gains_nothing(
    kind: str, level: Level, targets: dict[str, Any]
) -> None:
    async with opened(level, USUAL) as session:
        assert (await session.run("before = 'here'")).state == "kept"
        result = await session.run(cell_of(kind, level, targets))
        assert result.state == "kept", result
        again = await session.run("before")
        assert again.value == "'here'", again
    found = gained(kind, result)
    assert found.keys() <= WAIVED[level] | OWN_CHANNELS, found
    assert SECRET not in str(found)


async def test_no_cell_of_a_session_gains_anything(level: Level, targets: dict[str, Any]) -> None:
    """The whole corpus, each kind a cell in one session, with all that earlier cells have left."""
    # The kernel's own limit of a session is that of a hundred cells; below it is no gain.
    permissions = Permissions(wall_seconds=60, cpu_seconds=9)
    async with opened(level, permissions) as session:
        await attacked(session, level, targets)


@pytest.mark.parametrize("landlock", [1, 4])
async def test_no_cell_gains_anything_with_an_older_landlock(
    landlock: int, targets: dict[str, Any]
) -> None:
    session = on_landlock(landlock, Permissions(wall_seconds=60, cpu_seconds=9))
    try:
        await attacked(session, "reduced", targets)
    finally:
        await session.aclose()


@pytest.mark.parametrize("landlock", [1, 4])
async def test_a_session_is_held_and_undone_with_an_older_landlock(
    landlock: int, targets: dict[str, Any]
) -> None:
    session = on_landlock(landlock, USUAL)
    try:
        assert (await session.run("before = 'here'")).state == "kept"
        found = gained("processes", await session.run(cell_of("processes", "reduced", targets)))
        assert found.keys() <= WAIVED["reduced"], found
        assert (await session.run("before")).value == "'here'"
    finally:
        await session.aclose()
    session = on_landlock(landlock, Permissions(wall_seconds=0.5))
    try:
        await session.run("x = 1")
        stopped = await session.run("x = 2\nwhile True: pass")
        assert (stopped.state, (await session.run("x")).value) == ("restored", "1")
    finally:
        await session.aclose()


def on_landlock(version: int, permissions: Permissions) -> PythonSession:
    """A session as on a kernel whose Landlock is of this version."""
    if "reduced" not in probe().levels or probe().landlock < version:
        pytest.skip(f"not on this machine: {probe()}")
    policy = policy_for(permissions, "reduced", session=True, landlock=version)
    worker = Worker(policy, environment(permissions), stdin=False, show_folder=True)
    return PythonSession(worker, permissions)


async def attacked(session: PythonSession, level: Level, targets: dict[str, Any]) -> None:
    for kind in KINDS:
        found = gained(kind, await session.run(cell_of(kind, level, targets)))
        assert found.keys() <= WAIVED[level] | OWN_WAYS, (kind, found)
        if "descriptors_left_open" in found:
            assert len(json.loads(found["descriptors_left_open"])) <= 3
        assert SECRET not in str(found)


def cell_of(kind: str, level: Level, targets: dict[str, Any]) -> str:
    """A file of the corpus as a cell, which can't be told of its targets by its input."""
    prelude = (ATTACKS / "prelude.py").read_text()
    told = prelude.replace("sys.stdin.readline()", repr(facts(level, targets)))
    assert told != prelude
    return "\n".join([told, (ATTACKS / f"{kind}.py").read_text(), "run_attempts()"])


def facts(level: Level, targets: dict[str, Any]) -> str:
    plain = {k: v for k, v in targets.items() if isinstance(v, str | int)}
    return json.dumps({**plain, "level": level, "granted_processes": 0})


def gained(kind: str, result: CellResult | SandboxResult) -> dict[str, str]:
    """What each attempt gained, by its name."""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    # A program that ended early would have hidden the attempts that were still to come.
    assert lines and lines[-1][0] == "all", (kind, result)
    assert not [line for line in lines if line[1] == "BROKEN"], kind
    return {name: detail for name, verdict, detail in lines[:-1] if verdict == "GAINED"}


async def test_a_program_in_a_warm_worker_gains_nothing(
    level: Level, targets: dict[str, Any]
) -> None:
    stdin = f"{facts(level, targets)}\n".encode()
    prelude = (ATTACKS / "prelude.py").read_text()
    async with PythonPool(Permissions(wall_seconds=30), level=level, preload=("json",)) as pool:
        await pool.warm_up(sessions=False)
        for kind in ("secrecy", "processes", "system"):
            source = (ATTACKS / f"{kind}.py").read_text()
            code = "\n".join([prelude, source, "run_attempts()"])
            found = gained(kind, await pool.run_python(code, stdin=stdin))
            assert found.keys() <= WAIVED[level], (kind, found)


async def goes_on(session: PythonSession, code: str = "6 * 7") -> CellResult | None:
    """The next cell of a session, which must not take for ever; None if the session is over."""
    began = time.monotonic()
    try:
        result = await session.run(code)
    except SandboxUnavailable:
        result = None
    assert time.monotonic() - began < 30
    return result


async def survives(session: PythonSession) -> None:
    """The next cell must end well, or be stopped for what still lies there, or there is none."""
    result = await goes_on(session)
    assert result is None or result.value == "42" or result.state != "kept", result


FORGED = {
    "a result of its own": 'b"\\0" * 7 + b"\\x0f" + b\'{"value": "no"}\'',
    "no json": 'b"\\0" * 7 + b"\\x03" + b"no!"',
    "a huge length": 'b"\\xff" * 8',
    "a length and no more": 'b"\\0" * 7 + b"\\x09"',
    "deep json": '(400_000).to_bytes(8, "big") + b"[" * 400_000',
    "a huge number": '(9000).to_bytes(8, "big") + b"1" * 9000',
    "not utf-8": 'b"\\0" * 7 + b"\\x02" + b\'"\\xff"\'',
    "a list": 'b"\\0" * 7 + b"\\x02" + b"[]"',
    "other types": 'b"\\0" * 7 + b"\\x1d" + b\'{"value": [1], "error": NaN }\'',
    "an exit of words": 'b"\\0" * 7 + b"\\x1d" + b\'{"exit": "\\xc2\\xb2", "value": "1"}\'',
    "megabytes": 'b"x" * (3 << 20)',
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_a_cell_writes_to_the_host_itself_is_taken_as_a_strangers(
    what: str, level: Level
) -> None:
    async with opened(level) as session:
        write = (
            f"data = {FORGED[what]}\n"
            "while data:\n"
            "    data = data[os.write(results, data):]\n"
            "import time; time.sleep(0.1)"
        )
        result = await session.run(LAUNCHER + write)
        assert result.seconds < 20
        await goes_on(session)  # What comes next may be the forged cell's true result.
        await goes_on(session)


async def test_a_cell_that_closes_its_ways_to_the_host_is_ended(level: Level) -> None:
    async with opened(level) as session:
        result = await session.run(LAUNCHER + "os.close(results)")
        assert result.state in ("restored", "lost"), result
        await survives(session)


async def test_a_cell_that_eats_the_next_cells_gets_no_more_time(level: Level) -> None:
    async with opened(level) as session:
        code = LAUNCHER + "while True: os.read(request, 100)"
        result = await session.run(code)
        assert result.over == "wall" and result.state == "restored"
        await survives(session)


async def test_a_cell_can_not_go_on_after_its_result_was_told(level: Level) -> None:
    """What goes on between cells would have no deadline."""
    async with opened(level) as session:
        code = (
            "import threading, time\nbeats = []\n"
            "def beat():\n    while True:\n        beats.append(time.monotonic())\n"
            "        time.sleep(0.01)\n"
            "threading.Thread(target=beat, daemon=True).start(); time.sleep(0.1)"
        )
        assert (await session.run(code)).state == "kept"
        await anyio.sleep(1.0)
        # The pause shows only once it has beaten again.
        told = await session.run(
            "time.sleep(0.2)\n[b - a for a, b in zip(beats, beats[1:]) if b - a > 0.6][:1]"
        )
        assert told.value not in ("[]", None), told


@pytest.mark.parametrize(
    "attack",
    {
        "fork": "os.fork() or os._exit(0)",
        "fork in many threads": (
            "import threading\n"
            "made = []\n"
            "def fork():\n"
            "    for _ in range(200):\n"
            "        try:\n"
            "            made.append(os.fork())\n"
            "        except OSError:\n"
            "            continue\n"
            "        if made[-1] == 0: os._exit(0)\n"
            "for thread in [threading.Thread(target=fork) for _ in range(4)]: thread.start()\n"
            "while threading.active_count() > 1: pass\n"
            "print('GAINED' if made else 'none')"
        ),
        "exec": "os.execv(sys.executable, ['python'])",
    }.items(),
    ids=lambda item: item[0],
)
async def test_a_cell_starts_no_process(attack: tuple[str, str], level: Level) -> None:
    async with opened(level) as session:
        await session.run("x = 1")
        result = await session.run(f"import os, sys\n{attack[1]}")
        assert "GAINED" not in result.stdout
        assert (result.error and "PermissionError" in result.error) or result.stdout == "none\n"
        assert (await session.run("x")).value == "1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_threads_that_fork_while_the_next_cell_begins_get_none(level: Level) -> None:
    """The one fork that is let through is the launcher's own, whoever asks at that moment."""
    async with opened(level) as session:
        code = (
            "import os, threading\nmade = []\n"
            "def fork():\n"
            "    while True:\n"
            "        try:\n"
            "            pid = os.fork()\n"
            "        except OSError:\n"
            "            continue\n"
            "        made.append(pid)\n"
            "        if not pid: os._exit(0)\n"
            "for _ in range(3): threading.Thread(target=fork, daemon=True).start()"
        )
        await session.run(code)
        for _ in range(5):
            result = await goes_on(session, "made")
            assert result is None or result.value == "[]" or result.state != "kept", result


async def test_a_fork_stolen_from_the_launcher_ends_with_its_cell(level: Level) -> None:
    """A cell can put its own function where the launcher makes its copy; it is no better off."""
    async with opened(level) as session:
        steal = (
            "import time\n"
            "def stolen():\n"
            "    for _ in range(50):\n"
            "        try:\n"
            "            if os.fork() == 0:\n"
            "                time.sleep(600)\n"
            "        except OSError as error:\n"
            "            break\n"
            "    return (0, os.pipe()[1])\n"
            "launcher['_copy'] = stolen\n"
        )
        await session.run(LAUNCHER + steal)
        await goes_on(session)
        await goes_on(session)
    # What `opened` looks at afterwards: nothing is left.


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], ids=lambda n: n.name
)
async def test_killing_all_that_can_be_reached_loses_only_the_session(
    number: signal.Signals, level: Level
) -> None:
    async with opened(level) as session:
        code = (
            "import os\n"
            "for pid in [*range(2, 40), 0, -1, 1, os.getppid()]:\n"
            "    if pid != os.getpid():\n"
            "        try:\n"
            f"            os.kill(pid, {int(number)})\n"
            "        except OSError: pass\n"
            "os._exit(3)"
        )
        result = await session.run(code)
        assert result.state in ("restored", "lost") and result.seconds < 20
        await survives(session)


async def test_a_crash_in_the_launchers_own_code_is_the_sessions_alone(level: Level) -> None:
    async with opened(level) as session:
        result = await session.run(
            LAUNCHER
            + "for name in list(launcher):\n    if name != '__builtins__': launcher[name] = None"
        )
        assert result.seconds < 20
        await survives(session)


async def test_builtins_that_a_cell_has_ruined_are_its_sessions_alone(level: Level) -> None:
    async with PythonPool(BRIEF, level=level) as pool:
        first, second = await pool.open_session(), await pool.open_session()
        try:
            await first.run(
                "import builtins, os; builtins.repr = builtins.open = None; os.read = 1"
            )
            assert (await second.run("repr(open.__name__)")).value == "\"'open'\""
        finally:
            await first.aclose()
            await second.aclose()
        result = await pool.run_python("import builtins; builtins.print = None; 1")
        assert (await pool.run_python("print('whole')")).stdout == "whole\n", result


FILES = {
    "a link to the secret": "os.symlink(secret, 'link.txt')",
    "a folder that is a link": "os.symlink(os.path.dirname(secret), 'folder')",
    "a pipe": "os.mkfifo('pipe.txt')",
    "a link that goes round": "os.symlink('loop', 'loop')",
    "a deep tree": (
        "here = os.getcwd()\nfor _ in range(300):\n    os.mkdir('d'); os.chdir('d')\n"
        "open('deep.txt', 'w').close(); os.chdir(here)"
    ),
    "many files": "for n in range(500): open(f'{n}.txt', 'w').write('x')",
    "a sparse file": "open('sparse.bin', 'wb').truncate(60 << 20)",
    "names that are no text": "open(b'\\xff\\xfe\\x1b[2J\\n.txt', 'w').write('x')",
    "a long name": "open('\\u2603' * 80, 'w').write('x')",
    "a name with separators": "os.mkdir('..x'); open('..x/...', 'w').write('x')",
    "an unreadable file": "open('no.txt', 'w').write('x'); os.chmod('no.txt', 0)",
    "an unlistable folder": "os.mkdir('no'); os.chmod('no', 0)",
    "no folder any more": "os.rmdir(os.getcwd())",
}


@pytest.mark.parametrize("what", FILES)
async def test_files_that_a_cell_leaves_are_collected_without_harm(
    what: str, level: Level, targets: dict[str, Any]
) -> None:
    async with opened(level) as session:
        code = f"import os\nsecret = {targets['tmp_secret']!r}\n{FILES[what]}"
        result = await session.run(code)
        assert sum(len(file.data or b"") for file in result.files) <= 64 << 20
        assert sum(file.data is not None for file in result.files) <= 20
        for file in result.files:
            assert SECRET.encode() not in (file.data or b"")
            assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
        await survives(session)  # Some of these are more files than are allowed.


async def test_files_changed_while_they_are_collected_never_show_the_secret(
    level: Level, targets: dict[str, Any]
) -> None:
    """A thread swaps a file for a link as fast as it can, cell after cell."""
    async with opened(level) as session:
        code = (
            "import os, threading\n"
            f"os.symlink({targets['tmp_secret']!r}, 'link')\n"
            "open('file', 'w').write('own')\n"
            "def swap():\n"
            "    while True:\n"
            "        for one, other in (('file', 'shown'), ('link', 'shown')):\n"
            "            try:\n"
            "                os.rename(one, 'shown'); os.rename('shown', one)\n"
            "            except OSError: pass\n"
            "threading.Thread(target=swap, daemon=True).start()"
        )
        await session.run(code)
        for _ in range(10):
            result = await session.run("1")
            for file in result.files:
                assert SECRET.encode() not in (file.data or b"")


# --- where forks can't be asked about

HOST = """
import sys, anyio
sys.path[:0] = {path!r}
from corral.tools.sandbox import Permissions, PythonPool, _libc, _seccomp
_libc.prctl(38, 1)
_libc.set_filter(_seccomp.refusing_filter(_libc.machine(), [317, 277], error=16))
async def main():
    async with PythonPool(Permissions(wall_seconds=1), spares=0, level={level!r}) as pool:
        session = await pool.open_session()
        await session.run("x = 1")
        print((await session.run("x")).value)
        print((await session.run("import os\\nos.fork()")).error.splitlines()[-1])
        result = await session.run("while True: pass")
        print(result.state, result.over, session.is_over)
        await session.aclose()
anyio.run(main)
"""


def test_where_forks_can_not_be_asked_about_a_stopped_cell_ends_the_session(level: Level) -> None:
    """As inside a container manager that has a listener of its own: honest, and no less locked."""
    with tempfile.TemporaryDirectory(prefix="own-") as temporary:
        os.chmod(temporary, 0o777)
        done = run_host(HOST, temporary, level=level)
        assert os.listdir(temporary) == []
    assert done.stdout.splitlines() == [
        "1",
        "PermissionError: [Errno 1] Operation not permitted",
        "lost wall True",
    ], done.stderr
