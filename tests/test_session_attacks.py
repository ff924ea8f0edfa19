"""The corpus of attacks from the cells of a session, whose process may copy itself."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sandbox_attacks import ATTACKS, KINDS, SECRET, USUAL, WAIVED, made_targets
from test_sandbox_filter import ALLOW, KILL, THREAD, verdict

from corral.tools.sandbox import CellResult, Level, Permissions, PythonSession, probe
from corral.tools.sandbox._layout import NEWEST_LANDLOCK, environment, policy_for
from corral.tools.sandbox._seccomp import ARCHITECTURES, asking_filter
from corral.tools.sandbox._worker import Worker

TESTS = Path(__file__).parent

confined = pytest.mark.skipif(
    not probe().levels, reason=f"no sandbox here: {dict(probe().problems)}"
)

# The pipes by which a session's process is told its cells, tells their results, and speaks to its
# copy. They lead to this session's own ends and nowhere else.
OWN_CHANNELS = {"descriptors_left_open"}


@pytest.fixture(params=["namespaces", "reduced"])
def level(request: pytest.FixtureRequest) -> Level:
    if request.param not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems[request.param]}")
    return request.param


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    with made_targets() as made:
        yield made


def session(
    level: Level, permissions: Permissions = USUAL, *, landlock: int = NEWEST_LANDLOCK
) -> PythonSession:
    policy = policy_for(permissions, level, session=True, landlock=landlock)
    worker = Worker(policy, environment(permissions), show_folder=True)
    return PythonSession(worker, permissions)


async def attack(
    kind: str, level: Level, targets: dict[str, Any], *, landlock: int = NEWEST_LANDLOCK
) -> dict[str, str]:
    plain = {k: v for k, v in targets.items() if isinstance(v, str | int)}
    facts = {**plain, "level": level, "granted_processes": 0}
    prelude = (ATTACKS / "prelude.py").read_text()
    told = prelude.replace("json.loads(sys.stdin.readline())", repr(facts))
    assert told != prelude
    one = session(level, landlock=landlock)
    try:
        assert (await one.run("before = 'here'")).state == "kept"
        source = (ATTACKS / f"{kind}.py").read_text()
        result = await one.run("\n".join([told, source, "run_attempts()"]))
        assert result.state == "kept", result
        again = await one.run("before")
        assert again.value == "'here'", (again.stderr, one._worker.lines)
    finally:
        await one.aclose()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines and lines[-1][0] == "all", (result.error, result.stderr, lines[-1:])
    return {name: detail for name, found, detail in lines[:-1] if found == "GAINED"}


@confined
@pytest.mark.parametrize("kind", KINDS)
async def test_an_attack_from_a_session_gains_nothing(
    kind: str, level: Level, targets: dict[str, Any]
) -> None:
    gained = await attack(kind, level, targets)
    assert gained.keys() <= WAIVED[level] | OWN_CHANNELS, gained
    assert SECRET not in str(gained)


@confined
@pytest.mark.parametrize("landlock", [1, 4])
async def test_sessions_hold_on_kernels_with_an_older_landlock(
    landlock: int, targets: dict[str, Any]
) -> None:
    if "reduced" not in probe().levels or probe().landlock < landlock:
        pytest.skip(f"not on this machine: {probe()}")
    gained = await attack("processes", "reduced", targets, landlock=landlock)
    assert gained.keys() <= WAIVED["reduced"], gained
    one = session("reduced", Permissions(wall_seconds=0.5), landlock=landlock)
    await one.run("x = 1")
    stopped: CellResult = await one.run("x = 2\nwhile True: pass")
    assert (stopped.state, (await one.run("x")).value) == ("restored", "1")
    await one.aclose()


# --- the filter that asks


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
@pytest.mark.parametrize("processes", [False, True])
def test_forks_are_asked_about_and_programs_are_not_started(machine: str, processes: bool) -> None:
    audit, numbers = ARCHITECTURES[machine]
    program = asking_filter(machine, processes=processes)

    def answer(name: str, *arguments: int) -> str | int:
        return verdict(program, audit, numbers[name], *arguments)

    assert answer("clone", 17) == "ask"
    assert answer("clone", THREAD) == ALLOW
    assert answer("execve") == (ALLOW if processes else errno.EPERM)
    assert answer("execveat") == (ALLOW if processes else errno.EPERM)
    if "fork" in numbers:
        assert answer("fork") == answer("vfork") == ("ask" if processes else errno.EPERM)
    assert answer("read") == ALLOW
    assert verdict(program, audit ^ 1, numbers["read"]) == KILL


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


@confined
def test_where_forks_can_not_be_asked_about_a_stopped_cell_ends_the_session(level: Level) -> None:
    """As inside a container manager that has a listener of its own: honest, and no less locked."""
    with tempfile.TemporaryDirectory(prefix="own-") as temporary:
        os.chmod(temporary, 0o777)
        program = HOST.format(path=[str(TESTS.parent), *sys.path], level=level)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert os.listdir(temporary) == []
    assert done.stdout.splitlines() == [
        "1",
        "PermissionError: [Errno 1] Operation not permitted",
        "lost wall True",
    ], done.stderr
