"""What a program in the sandbox gives back; and that nothing runs where it can't be confined."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_fixtures import confined

from corral.errors import ConfigError, SandboxUnavailable
from corral.tools.sandbox import Level, Permissions, SandboxReport, probe, run_python
from corral.tools.sandbox.run import run_at

TESTS = Path(__file__).parent
NOBODY = 65534


# --- what a program gives back ---


@confined
async def test_the_strongest_level_is_taken() -> None:
    result = await run_python("print('hello')")
    assert (result.stdout, result.stderr, result.exit_code) == ("hello\n", "", 0)
    assert result.level == probe().levels[0]
    assert 0 < result.seconds < 20


async def test_the_value_of_the_last_expression_is_shown(level: Level) -> None:
    for code, shown in (
        ("17 * 23", "391\n"),
        ("x = 17\nx * 23", "391\n"),
        ("'text'", "'text'\n"),
        ("None", ""),
        ("print(1)", "1\n"),
        ("x = 1", ""),
        ("if True:\n    5", ""),
        ("", ""),
        ("def f(n):\n    return n and n * f(n - 1) or 1\nf(5)", "120\n"),
        ("1; 2", "2\n"),
    ):
        assert (await run_at(level, code)).stdout == shown, code


async def test_a_traceback_shows_the_program_alone(level: Level) -> None:
    code = "import json\ndef read(text):\n    return json.loads(text)\nread('{')\n"
    result = await run_at(level, code)
    assert result.exit_code == 1
    assert result.stderr.startswith('Traceback (most recent call last):\n  File "<code>", line 4')
    assert "return json.loads(text)" in result.stderr
    assert "JSONDecodeError: Expecting property name" in result.stderr
    assert "decoder.py" not in result.stderr
    assert "corral" not in result.stderr


async def test_a_chain_of_errors_is_shown_whole(level: Level) -> None:
    code = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('so') from e"
    stderr = (await run_at(level, code)).stderr
    assert "ZeroDivisionError" in stderr and "direct cause" in stderr and "ValueError: so" in stderr


async def test_a_program_with_a_mistake_in_its_syntax_says_where(level: Level) -> None:
    result = await run_at(level, "x = 1\ny = = 2")
    assert result.exit_code == 1
    assert 'File "<code>", line 2' in result.stderr and "SyntaxError" in result.stderr


async def test_exit_codes_come_through(level: Level) -> None:
    for code, expected in (
        ("exit(3)", 3),
        ("import sys; sys.exit()", 0),
        ("raise SystemExit('no')", 1),
        ("import os; os._exit(4)", 4),
    ):
        assert (await run_at(level, code)).exit_code == expected, code


async def test_what_a_program_left_unfinished_is_finished(level: Level, shared: Path) -> None:
    code = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\n"
        f"file = open({str(shared / 'kept')!r}, 'w'); _ = file.write('flushed')\n"
    )
    result = await run_at(level, code, permissions=Permissions(write=(shared,)))
    assert result.stdout == "thread\nexit\n"
    assert (shared / "kept").read_text() == "flushed"


async def test_output_before_a_kill_is_kept(level: Level) -> None:
    code = "print('so far')\nwhile True: pass"
    result = await run_at(level, code, permissions=Permissions(wall_seconds=0.5))
    assert (result.stdout, result.timed_out, result.over) == ("so far\n", True, "wall")
    assert result.exit_code is None and result.signal == signal.SIGKILL


async def test_processor_time_is_limited(level: Level) -> None:
    result = await run_at(level, "while True: pass", permissions=Permissions(cpu_seconds=1))
    assert (result.over, result.timed_out) == ("cpu", False)


async def test_standard_input_is_read(level: Level) -> None:
    big = b"line\n" * 100_000
    result = await run_at(level, "import sys; len(sys.stdin.read())", stdin=big)
    assert result.stdout == f"{len(big)}\n"
    unread = await run_at(level, "1", stdin=big)
    assert unread.stdout == "1\n"


async def test_a_long_program_is_run(level: Level) -> None:
    code = "x = 0\n" + "x += 1\n" * 20_000 + "x"
    assert (await run_at(level, code)).stdout == "20000\n"


async def test_output_is_cut_by_stream(level: Level) -> None:
    code = "import sys\nprint('o' * 50)\nprint('e' * 5000, file=sys.stderr)\nprint('end')"
    result = await run_at(level, code, permissions=Permissions(output_bytes=100))
    assert result.stdout == "o" * 50 + "\nend\n"
    assert result.stderr == "e" * 100
    assert result.truncated


async def test_the_usual_libraries_work(level: Level) -> None:
    code = textwrap.dedent(
        """
        import asyncio, bz2, collections, csv, ctypes, datetime, decimal, fractions, getpass
        import hashlib, io, json, math, random, re, sqlite3, statistics, string, subprocess
        import tempfile, threading, time, unicodedata, uuid, zipfile, zoneinfo
        from concurrent.futures import ThreadPoolExecutor

        async def main():
            await asyncio.sleep(0.01)
            return await asyncio.to_thread(math.factorial, 5)

        assert asyncio.run(main()) == 120
        assert list(ThreadPoolExecutor(4).map(abs, [-1, -2])) == [1, 2]
        db = sqlite3.connect("data.db")
        db.execute("create table t (x)")
        db.execute("insert into t values (1)")
        db.commit()
        assert db.execute("select x from t").fetchall() == [(1,)]
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(folder + "/z", "w") as z:
            z.writestr("a", "b")
        assert zoneinfo.ZoneInfo("Europe/Paris").utcoffset(datetime.datetime(2026, 7, 1))
        assert getpass.getuser() == "sandbox"
        with open("text.txt", "w") as file:
            file.write("é")
        assert open("text.txt").read() == "é"
        uuid.uuid4(), random.random(), time.time(), hashlib.sha256(b"x").hexdigest()
        "all well"
        """
    )
    result = await run_at(level, code)
    assert (result.stdout, result.stderr) == ("'all well'\n", "")


async def test_installed_packages_can_be_imported(level: Level) -> None:
    pytest.importorskip("numpy")
    result = await run_at(level, "import numpy as np\nprint(np.linalg.inv(np.eye(3)).sum())")
    assert (result.stdout, result.stderr) == ("3.0\n", "")


async def test_each_run_starts_from_nothing(level: Level) -> None:
    await run_at(level, "open('left', 'w').write('x'); x = 1")
    assert (await run_at(level, "import os; os.listdir('.')")).stdout == "[]\n"
    assert "NameError" in (await run_at(level, "x")).stderr


async def test_runs_at_the_same_time_do_not_mix(level: Level) -> None:
    async def one(number: int) -> None:
        code = f"import time\nopen('n', 'w').write('{number}')\ntime.sleep(0.05)\nopen('n').read()"
        assert (await run_at(level, code)).stdout == f"'{number}'\n"

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(one, number)


async def test_the_event_loop_is_not_held_up(level: Level) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await run_at(level, "import time; time.sleep(1.5)")
        group.cancel_scope.cancel()
    assert longest < 1.0


# --- cancelling ---


async def test_cancelling_kills_the_program(level: Level, shared: Path) -> None:
    code = (
        "import time\n"
        "while True:\n"
        f"    open({str(shared / 'beat')!r}, 'w').write(str(time.time()))\n"
        "    time.sleep(0.02)\n"
    )
    with anyio.move_on_after(1.0) as scope:
        await run_at(level, code, permissions=Permissions(write=(shared,), wall_seconds=60))
    assert scope.cancelled_caught
    beat = (shared / "beat").read_text()
    await anyio.sleep(0.2)
    assert (shared / "beat").read_text() == beat


async def test_cancelling_at_once_leaves_nothing_open(level: Level) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_at(level, "while True: pass", permissions=Permissions(wall_seconds=60))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_dead_host_takes_the_program_along(level: Level, shared: Path) -> None:
    beat = shared / "beat"
    program = (
        "import time\n"
        f"while True: open({str(beat)!r}, 'w').write(str(time.time())); time.sleep(0.02)"
    )
    host = (
        "import anyio, functools\n"
        "from corral.tools.sandbox import Permissions\n"
        "from corral.tools.sandbox.run import run_at\n"
        f"permissions = Permissions(write=({str(shared)!r},), wall_seconds=60)\n"
        f"anyio.run(functools.partial(run_at, {level!r}, {program!r}, permissions=permissions))\n"
    )
    temporary = shared / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", host]
    with subprocess.Popen(command, cwd=TESTS.parent, env=environment) as process:
        until = time.monotonic() + 30
        while time.monotonic() < until and not (beat.exists() and beat.read_text()):
            time.sleep(0.02)
        process.kill()
    time.sleep(0.3)
    last = beat.read_text()
    time.sleep(0.2)
    assert last
    assert beat.read_text() == last
    assert os.listdir(temporary) == []


# --- permissions ---


async def test_a_granted_folder_can_be_read_and_no_more(level: Level, shared: Path) -> None:
    (shared / "data.txt").write_text("data")
    (shared / "data.txt").chmod(0o666)
    granted = Permissions(read=(shared,))
    code = f"import os; os.chdir({str(shared)!r})\nprint(os.listdir('.'), open('data.txt').read())"
    assert (await run_at(level, code, permissions=granted)).stdout == "['data.txt'] data\n"
    for attempt in ("open('data.txt', 'w')", "open('new', 'w')", "os.unlink('data.txt')"):
        code = f"import os; os.chdir({str(shared)!r})\n{attempt}"
        stderr = (await run_at(level, code, permissions=granted)).stderr
        assert "Read-only file system" in stderr or "Permission denied" in stderr
    assert (shared / "data.txt").read_text() == "data"
    assert "Error" in (await run_at(level, code)).stderr


async def test_a_granted_file_shows_nothing_beside_it(level: Level, shared: Path) -> None:
    for name in ("granted", "beside"):
        (shared / name).write_text(name)
    permissions = Permissions(read=(shared / "granted",))
    read = "open({!r}).read()"
    code = read.format(str(shared / "granted"))
    assert (await run_at(level, code, permissions=permissions)).stdout == "'granted'\n"
    code = read.format(str(shared / "beside"))
    assert "Error" in (await run_at(level, code, permissions=permissions)).stderr


async def test_a_granted_folder_can_be_written(level: Level, shared: Path) -> None:
    code = f"open({str(shared / 'result')!r}, 'w').write('made')"
    result = await run_at(level, code, permissions=Permissions(write=(shared,)))
    assert result.stderr == ""
    assert (shared / "result").read_text() == "made"


async def test_only_named_variables_are_passed_in(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_TEST_SHOWN", "shown")
    monkeypatch.setenv("CORRAL_TEST_HIDDEN", "hidden")
    code = "import os; sorted(v for v in os.environ.values() if v in ('shown', 'hidden'))"
    permissions = Permissions(env=("CORRAL_TEST_SHOWN", "CORRAL_TEST_UNSET"))
    assert (await run_at(level, code, permissions=permissions)).stdout == "['shown']\n"


async def test_processes_run_where_they_are_allowed() -> None:
    if "namespaces" not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems['namespaces']}")
    code = (
        "import subprocess, multiprocessing\n"
        "print(subprocess.run(['sh', '-c', 'echo hello'], capture_output=True).stdout)\n"
        "own = [sys.executable, '-S', '-c', 'print(1)']\n"
        "print(subprocess.run(own, capture_output=True).stdout)"
    )
    permissions = Permissions(processes=5)
    result = await run_python("import sys\n" + code, permissions=permissions)
    assert (result.stdout, result.stderr) == ("b'hello\\n'\nb'1\\n'\n", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"read": ["relative/path"]},
        {"read": ["/"]},
        {"read": ["~"]},
        {"write": [str(Path.home().parent)]},
        {"read": ["/proc/self"]},
        {"write": ["/dev/shm"]},
        {"network": ["https://example.com"]},
        {"env": ["LD_PRELOAD"]},
        {"env": ["A=B"]},
        {"write": ["/srv/a"], "read": ["/srv/a/b"]},
    ],
)
def test_a_permission_that_can_not_be_granted_is_refused(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError) as refused:
        Permissions.model_validate(wrong)
    assert str(refused.value).endswith(".")


def test_permissions_are_plain_data() -> None:
    given_ = {"read": ["/srv/data"], "wall_seconds": 5, "memory_bytes": 1 << 28}
    permissions = Permissions.model_validate(given_)
    assert permissions.read == (Path("/srv/data"),)
    assert Permissions.model_validate_json(permissions.model_dump_json()) == permissions
    assert json.loads(permissions.model_dump_json())["read"] == ["/srv/data"]
    with pytest.raises(ValueError):
        Permissions.model_validate({"reed": []})


@confined
async def test_a_granted_path_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="/srv/not/there"):
        await run_python("1", permissions=Permissions(read=(Path("/srv/not/there"),)))


paths = st.sampled_from(["/srv/a", "/srv/a/b", "/srv/a/b/c", "/srv/d", "/opt"])


@st.composite
def permission_sets(draw: st.DrawFn) -> Permissions:
    write = draw(st.sets(paths, max_size=2))
    read = draw(st.sets(paths, max_size=3))
    read = {r for r in read if not any(Path(r).is_relative_to(w) for w in write)}
    return Permissions(
        read=tuple(Path(p) for p in read),
        write=tuple(Path(p) for p in write),
        env=tuple(draw(st.sets(st.sampled_from(["A", "B", "C"])))),
        wall_seconds=draw(st.floats(1, 100)),
        memory_bytes=draw(st.integers(32 << 20, 1 << 32)),
        processes=draw(st.integers(0, 10)),
        min_level=draw(st.sampled_from(["reduced", "namespaces"])),
    )


@settings(deadline=None, database=None)
@given(permission_sets(), permission_sets())
def test_narrowed_permissions_grant_what_both_grant(one: Permissions, other: Permissions) -> None:
    def access(permissions: Permissions, path: str) -> int:
        if any(Path(path).is_relative_to(w) for w in permissions.write):
            return 2
        return int(any(Path(path).is_relative_to(r) for r in permissions.read))

    both = one.narrowed(other)
    for path in ("/srv", "/srv/a", "/srv/a/b", "/srv/a/b/c", "/srv/a/x", "/srv/d/e", "/opt"):
        assert access(both, path) == min(access(one, path), access(other, path))
    assert set(both.env) == set(one.env) & set(other.env)
    for name in ("wall_seconds", "memory_bytes", "processes", "disk_bytes", "cpu_seconds"):
        assert getattr(both, name) == min(getattr(one, name), getattr(other, name))
    assert (both.min_level == "namespaces") == ("namespaces" in (one.min_level, other.min_level))


# --- where it can't be had ---


def emulate(script: str, refused: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a host program under a kernel that refuses these calls, as a container's profile does."""
    numbers = {"unshare": (272, 97), "landlock": (444, 444), "mount": (165, 40)}
    machine = 0 if os.uname().machine == "x86_64" else 1
    wanted = [numbers[name][machine] for name in refused]
    install = f"_libc.set_filter(_seccomp.refusing_filter(_libc.machine(), {wanted}, error=1))"
    host = (
        "import anyio, os\n"
        "from corral.errors import SandboxUnavailable\n"
        "from corral.tools.sandbox import Permissions, _libc, _seccomp, probe, run_python\n"
        "_libc.prctl(38, 1)\n"
        f"{install}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", host + textwrap.dedent(script)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SHOW = """
print(probe().levels)
async def main():
    for wanted in ({}, {"min_level": "namespaces"}, {"processes": 2}):
        permissions = Permissions.model_validate(wanted)
        try:
            print((await run_python("17 * 23", permissions=permissions)).stdout.strip())
        except SandboxUnavailable as error:
            print("refused:", error)
anyio.run(main)
"""


@confined
def test_where_nothing_confines_nothing_runs() -> None:
    done = emulate(SHOW, ["unshare", "landlock"])
    lines = done.stdout.splitlines()
    assert lines[0] == "()", done.stderr
    assert [line.startswith("refused: This machine can't confine code") for line in lines[1:]] == [
        True,
        True,
        True,
    ]
    assert "391" not in done.stdout


@confined
def test_in_a_container_without_namespaces_the_reduced_level_serves() -> None:
    done = emulate(SHOW, ["unshare", "mount"])
    lines = done.stdout.splitlines()
    assert lines[:2] == ["('reduced',)", "391"], done.stderr
    assert "min_level" in lines[2] and "seccomp" in lines[2]
    assert "processes=2" in lines[3]


@confined
def test_without_landlock_namespaces_serve_where_there_are_any() -> None:
    if "namespaces" not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems['namespaces']}")
    done = emulate(SHOW, ["landlock"])
    assert done.stdout.splitlines()[:2] == ["('namespaces',)", "391"], done.stderr


@confined
async def test_a_layer_that_fails_keeps_the_program_from_running(shared: Path) -> None:
    """Even where the self-test passed earlier: the refusal starts after it."""
    done = emulate_late(shared)
    assert done.stdout == "refused\n", done.stderr
    assert not (shared / "ran").exists()


def emulate_late(shared: Path) -> subprocess.CompletedProcess[str]:
    code = f"open({str(shared / 'ran')!r}, 'w')"
    script = (
        "import anyio, errno\n"
        "from corral.errors import SandboxUnavailable\n"
        "from corral.tools.sandbox import Permissions, _libc, _seccomp, probe\n"
        "from corral.tools.sandbox.run import run_at\n"
        "assert probe().levels\n"
        "_libc.prctl(38, 1)\n"
        "_libc.set_filter(\n"  # From now on there is no Landlock.
        "    _seccomp.refusing_filter(_libc.machine(), [444], error=errno.ENOSYS))\n"
        "async def main():\n"
        "    try:\n"
        f"        permissions = Permissions(write=({str(shared)!r},))\n"
        f"        print(await run_at('reduced', {code!r}, permissions=permissions))\n"
        "    except SandboxUnavailable:\n"
        "        print('refused')\n"
        "anyio.run(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_refusal_says_what_is_missing_and_what_would_mend_it() -> None:
    report = SandboxReport(
        levels=(),
        problems={"namespaces": "unshare: not permitted", "reduced": "no Landlock"},
        remedies=("Turn it on.",),
    )
    with pytest.raises(SandboxUnavailable) as refused:
        report.level_for(Permissions())
    for part in ("unshare: not permitted", "no Landlock", "Nothing was run", "Turn it on."):
        assert part in str(refused.value)


def test_the_report_is_made_once() -> None:
    assert probe() is probe()


# --- as an ordinary user ---


# What depends on who runs it; the rest is the same for everyone.
FOR_ORDINARY_USERS = (
    "gains_nothing or gains_anything or starts_no_process or outlives or was_harmed "
    "or older_landlock or kills or bomb or filled or tree or granted or strongest "
    "or where_nothing or container or allowed"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already")
@confined
def test_an_ordinary_user_is_served_as_well() -> None:
    """The whole corpus again as user 65534, with the first Python that this user may run."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with tempfile.TemporaryDirectory(prefix="ordinary-") as home:
        os.chown(home, NOBODY, NOBODY)
        environment["HOME"] = home

        def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, *arguments],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env=environment,
                cwd=TESTS.parent,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
            try:
                if run(python, "-c", "import pydantic, anyio, pytest, hypothesis").returncode == 0:
                    break
            except OSError:
                continue
        else:
            name = pwd.getpwuid(NOBODY).pw_name
            pytest.skip(f"{name!r} may run none of the Pythons that have the packages")
        names = ("test_sandbox.py", "test_sandbox_attacks.py", "test_sandbox_session_attacks.py")
        files = [str(TESTS / name) for name in names]
        plugins = ["-p", "no:cacheprovider", "-p", "sandbox_fixtures", "--noconftest"]
        options = ["-q", "-x", *plugins, "-k", FOR_ORDINARY_USERS]
        done = run(python, "-m", "pytest", *options, *files)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert " passed" in done.stdout
