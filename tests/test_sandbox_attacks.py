"""Programs that attack the machine they run on: on every level they gain nothing, and harm nothing.

The corpus lies in `attacks/`; see the README there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from sandbox_fixtures import confined, on_this_machine

from corral.tools.sandbox import Level, Permissions, SandboxResult, _libc, probe
from corral.tools.sandbox._layout import NEWEST_LANDLOCK
from corral.tools.sandbox.permissions import LEVELS
from corral.tools.sandbox.run import run_at

ATTACKS = Path(__file__).parent / "attacks"
PROJECT = Path(__file__).parent.parent
KINDS = ("secrecy", "integrity", "network", "processes", "kernel", "system", "calls")
NOBODY = 65534
SECRET = "the secret of the test"

# What the reduced level is known to let be found out: that a file exists, never what is in it. And
# only a privileged process can empty its bounding set, which is of no use without new privileges.
WAIVED: dict[Level, set[str]] = {
    "namespaces": set(),
    "bubblewrap": set(),
    "reduced": {"find_out_that_the_secret_exists"},
}
if os.geteuid() != 0:
    WAIVED["reduced"].add("bounding_set_by_prctl")

USUAL = Permissions(wall_seconds=20)

pytestmark = confined


# Most machines have no bubblewrap that is new enough; `test_sandbox_backends.py` says so once.
HERE = [level for level in LEVELS if level != "bubblewrap" or level in probe().levels]


@pytest.fixture(params=HERE)
def level(request: pytest.FixtureRequest) -> Level:
    return on_this_machine(request.param)


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    with made_targets() as made:
        yield made


@contextlib.contextmanager
def made_targets() -> Iterator[dict[str, Any]]:
    """Real files, sockets and a process of this machine, as open to the attacker as they can be."""
    root = os.geteuid() == 0
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix=".corral-attacked-", dir=Path.home()))
        stack.callback(shutil.rmtree, home)
        tmp = Path(tempfile.mkdtemp(prefix="attacked-"))
        stack.callback(shutil.rmtree, tmp)
        files = {"home_secret": home / "secret", "tmp_secret": tmp / "secret"}
        (tmp / "empty").mkdir()
        granted = Path(tempfile.mkdtemp(prefix="granted-"))
        stack.callback(shutil.rmtree, granted)
        (tmp / "link").symlink_to(SECRET)
        for path in files.values():
            path.write_text(SECRET)
        for path in (home, tmp, tmp / "empty", granted, *files.values()):
            path.chmod(0o777 if path.is_dir() else 0o666)
            if root:
                os.chown(path, NOBODY, NOBODY)
        listeners: dict[str, socket.socket] = {}
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix_stream", socket.AF_UNIX, socket.SOCK_STREAM, str(tmp / "stream")),
            ("unix_datagram", socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp / "datagram")),
            ("unix_abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0corral-{tmp.name}"),
        ):
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(address)
            one.setblocking(False)
            if kind == socket.SOCK_STREAM:
                one.listen()
            listeners[name] = one
        for name in ("stream", "datagram"):
            (tmp / name).chmod(0o777)
        victim = stack.enter_context(bystander())
        os.environ["CORRAL_TEST_SECRET"] = SECRET
        stack.callback(os.environ.pop, "CORRAL_TEST_SECRET", None)
        yield {
            **{name: str(path) for name, path in files.items()},
            "home": str(Path.home()),
            "tmp_link": str(tmp / "link"),
            "granted": str(granted),
            "empty_folder": str(tmp / "empty"),
            "project_file": str(PROJECT / "pyproject.toml"),
            "packages": next(p for p in sys.path if p.endswith("-packages")),
            "env_name": "CORRAL_TEST_SECRET",
            "pid": victim.pid,
            "host_pid": os.getpid(),
            "host_group": os.getpgrp(),
            "tcp": listeners["tcp"].getsockname()[1],
            "udp": listeners["udp"].getsockname()[1],
            "unix_stream": str(tmp / "stream"),
            "unix_datagram": str(tmp / "datagram"),
            "unix_abstract": f"corral-{tmp.name}",
            "victim": victim,
            "listeners": listeners,
            "folders": (home, tmp),
        }


async def attack(
    kind: str,
    level: Level,
    targets: dict[str, Any],
    *,
    without: frozenset[str] = frozenset(),
    landlock: int = NEWEST_LANDLOCK,
    permissions: Permissions = USUAL,
) -> dict[str, str]:
    """Run one file of the corpus; what each attempt gained, by its name."""
    plain = {k: v for k, v in targets.items() if isinstance(v, str | int)}
    facts = {**plain, "level": level, "granted_processes": permissions.processes}
    stdin = json.dumps(facts).encode() + b"\n"
    source = (ATTACKS / f"{kind}.py").read_text()
    code = "\n".join([(ATTACKS / "prelude.py").read_text(), source, "run_attempts()"])
    result = await run_at(
        level, code, permissions=permissions, stdin=stdin, without=without, landlock=landlock
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    # A program that ended early would have hidden the attempts that were still to come.
    assert lines and lines[-1][0] == "all", (result.signal, result.stderr, lines[-1:])
    assert len({line[0] for line in lines}) == lines.pop()[1] + 1
    if not without and landlock:
        assert not [line for line in lines if line[1] == "BROKEN"]
    return {name: detail for name, verdict, detail in lines if verdict == "GAINED"}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attack_gains_nothing(kind: str, level: Level, targets: dict[str, Any]) -> None:
    gained = await attack(kind, level, targets)
    assert gained.keys() <= WAIVED[level], gained
    assert SECRET not in str(gained)


async def test_a_family_of_processes_gains_nothing(level: Level, targets: dict[str, Any]) -> None:
    if level == "reduced":
        pytest.skip("processes need namespaces")
    gained = await attack("family", level, targets, permissions=family(targets))
    assert not gained


def family(targets: dict[str, Any]) -> Permissions:
    granted = (Path(targets["granted"]),)
    return Permissions(wall_seconds=60, cpu_seconds=30, processes=8, write=granted)


def test_nothing_of_the_host_was_harmed(targets: dict[str, Any]) -> None:
    home, tmp = targets["folders"]
    assert not (PROJECT / "attacked").exists()
    assert targets["victim"].poll() is None
    assert os.getpriority(os.PRIO_PROCESS, targets["pid"]) == os.getpriority(os.PRIO_PROCESS, 0)
    assert os.sched_getaffinity(targets["pid"]) == os.sched_getaffinity(0)
    found = sorted(os.listdir(tmp))
    assert found == ["datagram", "empty", "link", "secret", "stream"]
    assert os.listdir(home) == ["secret"]
    for name in ("home_secret", "tmp_secret"):
        path = Path(targets[name])
        assert path.read_text() == SECRET
        assert path.stat().st_mode & 0o777 == 0o666
        assert path.stat().st_mtime > 1
        assert os.listxattr(path) == []
    for name, listener in targets["listeners"].items():
        with pytest.raises(BlockingIOError):
            listener.accept() if "datagram" not in name and name != "udp" else listener.recv(10)


@pytest.mark.parametrize(
    ("level", "without", "kind", "expected"),
    [
        ("reduced", "landlock", "secrecy", {"read_temporary_secret", "read_through_folder_link"}),
        ("reduced", "landlock", "integrity", {"overwrite_the_secret", "replace_the_secret"}),
        ("reduced", "seccomp", "network", {"udp", "kernel_crypto"}),
        ("reduced", "seccomp", "integrity", {"change_mode", "change_times"}),
        ("reduced", "seccomp", "processes", {"fork", "subprocess_run", "slow_the_victim"}),
        ("reduced", "seccomp", "kernel", {"unshare_user", "io_uring_setup", "filter_missing"}),
        (
            "reduced",
            "seccomp",
            "calls",
            {"lock_that_inherits_priority", "another_tasks_robust_list"},
        ),
        ("reduced", "seccomp", "system", {"group_of_the_victim", "where_a_link_of_the_host_leads"}),
        ("reduced", "limits", "kernel", {"raise_cpu_limit", "raise_memory_limit"}),
        ("reduced", "user", "kernel", {"already_root"}),
        ("reduced", "namespaces", "secrecy", {"find_out_that_the_secret_exists"}),
        ("namespaces", "limits", "kernel", {"raise_cpu_limit", "raise_memory_limit"}),
        ("namespaces", "capabilities", "kernel", {"capabilities_left"}),
        ("namespaces", "descriptors", "secrecy", {"descriptors_left_open"}),
        ("namespaces", "environment", "secrecy", {"secret_in_environment"}),
        ("namespaces", "landlock", "family", {"program_in_the_temporary_folder"}),
        ("namespaces", "seccomp", "kernel", {"unshare_user", "io_uring_setup"}),
        ("namespaces", "seccomp", "network", {"tcp_any_socket", "kernel_crypto"}),
    ],
)
async def test_an_attack_succeeds_where_the_layer_against_it_is_left_out(
    level: Level, without: str, kind: str, expected: set[str]
) -> None:
    if level not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems[level]}")
    if without == "user" and os.geteuid() != 0:
        pytest.skip("an ordinary user stays who it is")
    # Targets of its own, since these are harmed.
    with made_targets() as made:
        permissions = family(made) if kind == "family" else USUAL
        if without == "environment":
            permissions = USUAL.model_copy(update={"env": (made["env_name"],)})
        layers = frozenset({without}) - {"landlock", "environment", "namespaces"}
        landlock = 0 if without == "landlock" else NEWEST_LANDLOCK
        gained = await attack(
            kind, level, made, without=layers, landlock=landlock, permissions=permissions
        )
    assert expected & gained.keys(), gained


@pytest.mark.parametrize("kind", ["secrecy", "integrity", "processes"])
async def test_namespaces_hold_without_landlock(kind: str, targets: dict[str, Any]) -> None:
    if "namespaces" not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems['namespaces']}")
    assert not await attack(kind, "namespaces", targets, landlock=0)


@pytest.mark.parametrize("landlock", [1, 2, 4])
@pytest.mark.parametrize("kind", ["secrecy", "integrity", "processes", "system"])
async def test_kernels_with_an_older_landlock_hold(
    kind: str, landlock: int, targets: dict[str, Any]
) -> None:
    if "reduced" not in probe().levels or probe().landlock < landlock:
        pytest.skip(f"not on this machine: {probe()}")
    gained = await attack(kind, "reduced", targets, landlock=landlock)
    assert gained.keys() <= WAIVED["reduced"], gained


# --- attempts that end the program or starve it ---


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Adopt whatever a call leaves running, and fail if there is anything."""
    _libc.prctl(36, 1)
    before = children()
    yield
    assert children() <= before
    _libc.prctl(36, 0)


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


SMALL = Permissions(
    wall_seconds=15,
    cpu_seconds=1,
    memory_bytes=192 << 20,
    disk_bytes=16 << 20,
    files=200,
    output_bytes=10_000,
)


# For programs that never end by themselves.
BRIEF = SMALL.model_copy(update={"wall_seconds": 0.7})


async def alone(name: str, level: Level, permissions: Permissions = SMALL) -> SandboxResult:
    code = (ATTACKS / "alone" / f"{name}.py").read_text()
    result = await run_at(level, code, permissions=permissions)
    assert "GAINED" not in result.stdout
    assert len(result.stdout.encode("utf-8", "replace")) <= 3 * permissions.output_bytes
    return result


async def together(names: Sequence[str], level: Level) -> dict[str, SandboxResult]:
    """Programs that never end by themselves, at the same time."""
    results: dict[str, SandboxResult] = {}

    async def one(name: str) -> None:
        results[name] = await alone(name, level, BRIEF)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(one, name)
    return results


@pytest.mark.usefixtures("nothing_left_behind")
class TestAlone:
    @pytest.mark.parametrize("name", ["x32_call", "i386_call"])
    async def test_a_call_by_another_machines_table_is_the_end(
        self, name: str, level: Level
    ) -> None:
        if os.uname().machine != "x86_64":
            pytest.skip("there are such tables on x86_64 alone")
        assert (await alone(name, level)).signal == signal.SIGSYS

    async def test_a_fork_bomb_starts_nothing(self, level: Level) -> None:
        assert (await alone("fork_bomb", level)).stdout == "0 1\n"

    async def test_a_fork_bomb_stays_small_where_processes_are_allowed(self) -> None:
        if "namespaces" not in probe().levels:
            pytest.skip("processes need the level namespaces")
        result = await alone("fork_bomb", "namespaces", BRIEF.model_copy(update={"processes": 8}))
        assert result.over in ("wall", "cpu", "memory", None)

    async def test_a_thread_bomb_stays_small(self, level: Level) -> None:
        result = await alone(
            "thread_bomb", level, SMALL.model_copy(update={"memory_bytes": 1 << 30})
        )
        assert int(result.stdout) < 2000

    @pytest.mark.parametrize(
        "name", ["memory_bomb", "memory_bomb_by_maps", "memory_bomb_by_number"]
    )
    async def test_memory_runs_out_early(self, name: str, level: Level) -> None:
        result = await alone(name, level, SMALL.model_copy(update={"cpu_seconds": 5}))
        assert result.exit_code == 1
        assert "MemoryError" in result.stderr or "OSError" in result.stderr

    @pytest.mark.parametrize("name", ["memory_of_many", "memory_in_files"])
    async def test_many_processes_share_one_limit_of_memory(self, name: str, level: Level) -> None:
        if level == "reduced":
            pytest.skip("processes need namespaces")
        permissions = SMALL.model_copy(update={"processes": 10, "disk_bytes": 1 << 30})
        assert (await alone(name, level, permissions)).over == "memory"

    async def test_memory_that_nobody_is_charged_for_is_refused(self, level: Level) -> None:
        if level == "reduced":
            pytest.skip("processes need namespaces")
        permissions = SMALL.model_copy(update={"processes": 20})
        result = await alone("memory_hidden", level, permissions)
        assert "held" not in result.stdout
        assert result.stdout.count("refused") == 8, result

    @pytest.mark.parametrize("name", ["pipes_full_of_memory", "socket_buffers_full_of_memory"])
    async def test_the_kernels_memory_is_not_filled(self, name: str, level: Level) -> None:
        assert (await alone(name, level)).stdout == "True 24\n"

    @pytest.mark.parametrize("name", ["output_flood", "error_flood"])
    async def test_a_flood_of_output_is_cut(self, name: str, level: Level) -> None:
        result = await alone(name, level, BRIEF)
        assert result.truncated
        assert result.over in ("cpu", "wall")
        assert len(result.stdout) + len(result.stderr) == SMALL.output_bytes

    async def test_busy_loops_end(self, level: Level) -> None:
        names = (
            "busy_loop",
            "busy_loop_that_ignores_signals",
            "busy_in_native_code",
            "slow_regular_expression",
        )
        for name, result in (await together(names, level)).items():
            assert result.over in ("cpu", "wall"), name

    async def test_waiting_for_ever_ends(self, level: Level) -> None:
        names = (
            "sleep",
            "close_everything",
            "stop_itself",
            "leave_the_group",
            "never_ending_exit",
            "never_ending_thread",
        )
        for name, result in (await together(names, level)).items():
            assert result.timed_out and result.over == "wall" and result.exit_code is None, name

    @pytest.mark.parametrize(
        "name", ["stack_overflow", "native_stack_overflow", "segmentation_fault", "nested_source"]
    )
    async def test_a_crash_is_the_programs_alone(self, name: str, level: Level) -> None:
        result = await alone(name, level, SMALL.model_copy(update={"memory_bytes": 64 << 20}))
        assert result.exit_code != 0

    @pytest.mark.parametrize("name", ["disk_fill", "disk_fill_in_temporary_folder"])
    async def test_the_disk_is_not_filled(self, name: str, level: Level) -> None:
        result = await alone(name, level)
        assert result.over == "disk" or "stopped 28" in result.stdout

    @pytest.mark.parametrize(
        "name", ["inode_fill", "inode_fill_by_links", "inode_fill_by_folders", "long_names"]
    )
    async def test_inodes_are_not_filled(self, name: str, level: Level) -> None:
        result = await alone(name, level)
        # The folders that lead to the packages count too, and they differ from place to place.
        assert result.over == "files" or 0 < int(result.stdout.split()[1]) <= SMALL.files + 8

    async def test_a_huge_file_is_refused(self, level: Level) -> None:
        assert (await alone("huge_file", level)).stdout == "stopped 27\n"

    async def test_sparse_files_take_no_room(self, level: Level) -> None:
        assert (await alone("sparse_files", level)).stdout == "made 150\n"

    async def test_folders_swapped_for_links_lead_nowhere(self, level: Level) -> None:
        with made_targets() as made:
            secret = Path(made["tmp_secret"])
            before = sorted(os.listdir(secret.parent))
            code = (ATTACKS / "alone" / "folders_swapped_for_links.py").read_text()
            stdin = f"{secret}\n".encode()
            result = await run_at(level, code, permissions=SMALL, stdin=stdin)
            assert result.stdout == "done\n", result.stderr
            assert sorted(os.listdir(secret.parent)) == before

    @pytest.mark.parametrize("name", ["deep_folders", "links_everywhere", "unlistable_folders"])
    async def test_a_hostile_tree_is_cleaned_away(
        self, name: str, level: Level, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        permissions = SMALL.model_copy(update={"files": 5000})
        with tempfile.TemporaryDirectory(prefix="cleaned-") as temporary:
            os.chmod(temporary, 0o755)
            monkeypatch.setattr(tempfile, "tempdir", temporary)
            result = await alone(name, level, permissions)
            assert result.exit_code == 0 or result.over == "files"
            assert os.listdir(temporary) == []

    async def test_descriptors_run_out_early(self, level: Level) -> None:
        assert (await alone("descriptor_flood", level)).stdout == "True 24\n"

    async def test_killing_everything_kills_only_itself(self, level: Level) -> None:
        with bystander() as process:
            await alone("kill_everything", level)
            assert process.poll() is None

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("daemon", "left one behind\n"),
            ("stopped_family", "left them stopped\n"),
            ("deep_family", "deepest\n"),
        ],
    )
    async def test_no_process_outlives_the_call(self, name: str, told: str, level: Level) -> None:
        if level == "reduced":
            pytest.skip("processes need namespaces")
        permissions = SMALL.model_copy(update={"processes": 8, "memory_bytes": 512 << 20})
        result = await alone(name, level, permissions)
        assert (result.stdout, result.exit_code) == (told, 0), result

    async def test_stopping_it_on_its_way_down_leaves_nothing(self, level: Level) -> None:
        """At every moment of it: also while it has rights that its supervisor has given up."""
        for moment in range(15):
            began = time.monotonic()
            with anyio.move_on_after(moment * 0.004):
                await run_at(level, "while True: pass", permissions=Permissions(wall_seconds=60))
            assert time.monotonic() - began < 9, moment

    async def test_killing_its_own_group_is_the_programs_end(self, level: Level) -> None:
        result = await alone("kill_own_group", level)
        assert result.exit_code is None or "PermissionError" in result.stderr

    async def test_a_core_is_not_dumped(self, level: Level) -> None:
        assert (await alone("core_dump", level)).signal == signal.SIGABRT

    async def test_the_launchers_words_can_not_be_forged(self, level: Level) -> None:
        result = await alone("forged_status", level)
        assert (result.exit_code, result.over) == (7, None)

    @pytest.mark.parametrize(
        "name",
        [
            "chain_of_exceptions",
            "huge_exception",
            "huge_value",
            "line_without_end",
            "not_characters",
        ],
    )
    async def test_what_is_told_stays_small_and_text(self, name: str, level: Level) -> None:
        result = await alone(name, level, SMALL.model_copy(update={"cpu_seconds": 5}))
        assert len((result.stdout + result.stderr).encode()) <= 6 * SMALL.output_bytes
        assert result.over is None

    async def test_bytes_that_are_not_text_are_shown_as_such(self, level: Level) -> None:
        result = await alone("not_text", level)
        assert result.exit_code == 0
        assert "\ufffd" in result.stdout and result.stderr == "\ufffd\ufffd\0"

    @pytest.mark.parametrize(
        "name", ["replaced_builtins", "frames_of_the_launcher", "exception_that_wont_print"]
    )
    async def test_meddling_with_the_interpreter_harms_only_the_program(
        self, name: str, level: Level
    ) -> None:
        assert (await alone(name, level)).over is None
        assert (await run_at(level, "17 * 23")).stdout == "391\n"


@contextlib.contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user that the sandbox runs as."""
    user: dict[str, Any] = {"user": NOBODY} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "600"], **user) as process:
        try:
            yield process
        finally:
            process.kill()
