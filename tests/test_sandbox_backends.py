"""Which level a machine gives and why, what is refused, and what runs unconfined only when told."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import anyio
import pytest
from documents import DOCS, run_page

from corral.agents.tool_spec import read_permissions
from corral.agents.yaml_reader import read_yaml
from corral.cli.doctor import sandbox_lines
from corral.errors import ConfigError, SandboxUnavailable
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.sandbox import Level, Permissions, SandboxReport, _bubblewrap, probe, run_python
from corral.tools.sandbox._layout import policy_for
from corral.tools.sandbox.permissions import LEVELS
from corral.tools.sandbox.probe import self_test
from corral.tools.sandbox.run import run_at
from corral.tools.tool import ToolContext

PROJECT = Path(__file__).parent.parent


# --- choosing a level ---


@pytest.mark.parametrize(
    ("levels", "wanted", "taken"),
    [
        (("namespaces", "bubblewrap", "reduced"), {}, "namespaces"),
        (("bubblewrap", "reduced"), {}, "bubblewrap"),
        (("reduced",), {}, "reduced"),
        (("namespaces", "reduced"), {"min_level": "bubblewrap"}, "namespaces"),
        (("bubblewrap", "reduced"), {"min_level": "bubblewrap"}, "bubblewrap"),
        (("bubblewrap", "reduced"), {"processes": 2}, "bubblewrap"),
        (("bubblewrap", "reduced"), {"min_level": "namespaces"}, None),
        (("reduced",), {"min_level": "bubblewrap"}, None),
        (("reduced",), {"min_level": "namespaces"}, None),
        (("reduced",), {"processes": 2}, None),
        ((), {}, None),
    ],
)
def test_the_strongest_level_that_will_do_is_taken(
    levels: tuple[Level, ...], wanted: dict[str, object], taken: Level | None
) -> None:
    report = SandboxReport(levels=levels, problems={"namespaces": "why not"}, remedies=("Do it.",))
    permissions = Permissions.model_validate(wanted)
    if taken:
        assert report.level_for(permissions) == taken
        return
    with pytest.raises(SandboxUnavailable) as refused:
        report.level_for(permissions)
    for part in ("why not", "Nothing was run", "Do it."):
        assert part in str(refused.value)


def test_every_level_is_either_there_or_explained() -> None:
    report = probe()
    assert set(report.levels) | set(report.problems) == set(LEVELS)
    assert not set(report.levels) & set(report.problems)
    assert list(report.levels) == sorted(report.levels, key=LEVELS.index, reverse=True)
    assert all(report.problems.values())
    assert bool(report.remedies) >= bool(not report.levels)


def test_an_unsafe_level_can_not_be_asked_for_in_data() -> None:
    for wanted in ({"min_level": "unsafe"}, {"unsafe_local": True}, {"min_level": "none"}):
        with pytest.raises(ValueError, match="literal_error|extra_forbidden"):
            Permissions.model_validate(wanted)


# --- other systems ---


# What the modules find missing there; everything else is the machine at hand.
ELSEWHERE = """
import ctypes, os, sys, sysconfig
import anyio
import corral
sysconfig.get_config_vars()
anyio.run(anyio.sleep, 0)
for name in [name for name in sys.modules if name.startswith("corral.tools")]:
    del sys.modules[name]
platform = sys.argv[1]
gone = ["O_PATH", "pidfd_open", "memfd_create", "setresuid", "sched_getaffinity"]
if platform == "win32":
    gone += ["O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "fork", "uname", "geteuid"]
    sys.modules.update(dict.fromkeys(("resource", "fcntl", "pwd", "grp", "termios")))
for name in gone:
    delattr(os, name)
ctypes.CDLL = None
sys.platform = platform
from corral.tools.sandbox import run_python
from corral.errors import SandboxUnavailable
try:
    anyio.run(run_python, "print('ran')")
except SandboxUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("platform", "remedy"), [("darwin", "Linux virtual machine"), ("win32", "WSL2")]
)
def test_other_systems_are_refused_with_a_way_out(platform: str, remedy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, platform],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("This machine can't confine code"), done.stderr
    assert repr(platform) in done.stdout and remedy in done.stdout and "ran\n" not in done.stdout


# --- the system's bubblewrap ---


def bubblewrap_here() -> None:
    if "bubblewrap" not in probe().levels:
        pytest.skip(f"no bubblewrap to be used here: {probe().problems['bubblewrap']}")


async def test_bubblewrap_confines_where_it_is_new_enough() -> None:
    bubblewrap_here()
    code = "import os\nprint(os.getuid(), sorted(os.listdir('/tmp')))\n17 * 23"
    result = await run_at("bubblewrap", code)
    assert result.level == "bubblewrap"
    assert result.stdout.startswith("1000 [") and result.stdout.endswith("]\n391\n")


async def test_files_are_counted_under_bubblewrap() -> None:
    bubblewrap_here()
    code = "import time\nfor n in range(100): open(f'f{n}', 'w').close()\ntime.sleep(20)"
    result = await run_at("bubblewrap", code, permissions=Permissions(files=50))
    assert result.over == "files"
    result = await run_at("bubblewrap", code[:-2] + ".2)", permissions=Permissions(files=200))
    assert result.over is None and result.exit_code == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="backends-") as made:
        Path(made).chmod(0o755)
        yield Path(made).resolve()


@pytest.fixture
def put(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where a `bwrap` is looked for, for tests that put one there."""
    place = folder / "bwrap"
    monkeypatch.setattr(_bubblewrap, "PLACES", (str(place),))
    return place


def told(place: Path, script: str, mode: int = 0o755) -> str:
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(mode)
    return self_test("bubblewrap") or "passed"


def test_no_bubblewrap_is_said(put: Path) -> None:
    assert "there is no bubblewrap" in (self_test("bubblewrap") or "")


@pytest.mark.parametrize("version", ["0.8.0", "0.11.9", "0.4", "", "0.x", "bubblewrap"])
def test_a_bubblewrap_that_can_be_led_out_is_refused(put: Path, version: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a program that is trusted to be bubblewrap")
    why = told(put, f"echo bubblewrap {version}; touch {put}.ran")
    assert "CVE-2026-87766" in why and "0.12" in why


def test_a_bubblewrap_with_rights_of_its_own_is_refused(put: Path) -> None:
    why = told(put, "echo bubblewrap 0.13.1", mode=0o755 | stat.S_ISUID)
    assert "setuid" in why


def test_a_bubblewrap_that_others_may_change_is_refused(put: Path) -> None:
    assert "changed by others" in told(put, "echo bubblewrap 0.13.1", mode=0o777)
    if os.geteuid() != 0:
        assert "changed by others" in told(put, "echo bubblewrap 0.13.1")


@pytest.mark.parametrize("rest", ["exit 0", "exec sleep 0", 'while [ "$1" != -- ]; do shift; done'])
def test_a_bubblewrap_that_does_nothing_fails_the_self_test(put: Path, rest: str) -> None:
    """Its version alone gets it nowhere: what counts is what the confined code can still do."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program that is trusted to be bubblewrap")
    version = '[ "$1" = --version ] && echo bubblewrap 0.13.1 && exit 0'
    why = told(put, f'{version}\n{rest}\nshift\nexec "$@"')
    assert why != "passed"


async def test_asking_for_bubblewrap_where_there_is_none_runs_nothing(put: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="Nothing was run"):
        await run_at("bubblewrap", "print('ran')")


# --- grants that would lead out ---


def test_the_code_that_corral_runs_on_can_not_be_granted_for_writing() -> None:
    packages = next(path for path in sys.path if path.endswith("-packages"))
    source = Path(_bubblewrap.__file__).resolve().parent
    package = source.parent.parent
    standard = os.path.dirname(os.__file__)
    for path in (packages, standard, source, package / "agents", package, "/usr/lib"):
        if not Path(path).resolve().exists() or Path.home().is_relative_to(Path(path).resolve()):
            continue
        with pytest.raises(ConfigError, match="outside the sandbox as well"):
            policy_for(Permissions(write=(Path(path),)), "reduced")


# --- unconfined, when told ---


async def test_unsafe_local_runs_a_plain_process_and_says_so(folder: Path) -> None:
    (folder / "file").write_text("seen")
    code = f"print(open({str(folder / 'file')!r}).read(), input())\n17 * 23"
    with pytest.warns(RuntimeWarning, match="nothing confines it"):
        result = await run_python(code, stdin=b"hello\n", unsafe_local=True)
    assert (result.stdout, result.stderr, result.exit_code) == ("seen hello\n391\n", "", 0)
    assert result.level == "unsafe"


async def test_the_code_interpreter_runs_unconfined_when_told() -> None:
    interpreter = CodeInterpreter(unsafe_local=True).narrowed(Permissions(wall_seconds=15))
    await interpreter.ready()
    with pytest.warns(RuntimeWarning, match="nothing confines it"):
        output = await interpreter.call(
            {"code": "17 * 23"}, ToolContext(session="s", turn_id="t", call_id="c")
        )
    assert (output.content, output.is_error) == ("391", False)
    await interpreter.aclose()


async def test_nothing_runs_unconfined_unless_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            result = await run_python("1")
        except SandboxUnavailable:
            return
    assert result.level in LEVELS


@pytest.mark.filterwarnings("ignore:unsafe_local=True")
async def test_unsafe_local_keeps_time_and_output_in_bounds() -> None:
    limits = Permissions(wall_seconds=1.5, output_bytes=10)
    result = await run_python(
        "print('x' * 1000)\nwhile True: pass", permissions=limits, unsafe_local=True
    )
    assert (result.timed_out, result.over, result.exit_code) == (True, "wall", None)
    assert result.stdout == "x" * 10 and result.truncated
    result = await run_python("1 / 0", unsafe_local=True)
    assert result.exit_code == 1 and "ZeroDivisionError" in result.stderr


@pytest.mark.filterwarnings("ignore:unsafe_local=True")
async def test_what_an_unsafe_program_leaves_behind_is_ended(folder: Path) -> None:
    beat = folder / "beat"
    program = f"import time\nwhile True: open({str(beat)!r}, 'w').write(str(time.time()))"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {program!r}])\n"
        f"while not __import__('os').path.exists({str(beat)!r}): time.sleep(0.01)"
    )
    result = await run_python(code, unsafe_local=True)
    assert result.exit_code == 0, result.stderr
    last = await anyio.Path(beat).read_text()
    await anyio.sleep(0.2)
    assert await anyio.Path(beat).read_text() == last


@pytest.mark.filterwarnings("ignore:unsafe_local=True")
async def test_cancelling_ends_an_unsafe_program() -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    with anyio.move_on_after(0.5) as scope:
        await run_python("while True: pass", unsafe_local=True)
    assert scope.cancelled_caught
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("corral-unsafe-")]


# --- what a person is told ---


def test_the_doctor_says_which_level_and_why() -> None:
    report = probe()
    if not report.levels:
        pytest.skip(f"no sandbox here: {dict(report.problems)}")
    lines = sandbox_lines(report)
    assert lines[0].startswith(f"sandbox  level {report.levels[0]}")
    text = "\n".join(lines)
    for level in LEVELS:
        assert f"{level}: {report.problems.get(level, 'passed its self-test')}" in text
    for layer in ("user", "namespaces", "privileges", "landlock", "seccomp", "limits"):
        assert f"- {layer}: " in text
    assert str(Permissions()) in text
    assert "unsafe_local=True" in text


def test_the_doctor_says_what_is_missing() -> None:
    report = SandboxReport(
        levels=(), problems=dict.fromkeys(LEVELS, "not here"), remedies=("Do this.",)
    )
    lines = sandbox_lines(report)
    assert lines[0] == "sandbox  none: the code interpreter will not run here"
    assert sum("not here" in line for line in lines) == len(LEVELS)
    assert "Do this." in "\n".join(lines)


# --- the page of documentation ---


def test_the_page_on_the_sandbox_is_true() -> None:
    if not probe().levels:
        pytest.skip(f"no sandbox here: {dict(probe().problems)}")
    assert run_page("sandbox.md") == 4


def test_the_permissions_in_yaml_on_that_page_can_be_granted(folder: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "sandbox.md").read_text(), re.S)
    agent = folder / "agent.yaml"
    agent.write_text(block)
    document = read_yaml(agent)
    given = cast("dict[str, dict[str, object]]", document.value)["permissions"]
    permissions = read_permissions(given, document, agent, ("permissions",))
    assert permissions.read == (folder / "reports",)
    assert permissions.allows_host("www.example.org", 443)
    assert permissions.min_level == "bubblewrap"


def test_the_page_speaks_of_every_permission() -> None:
    page = (DOCS / "sandbox.md").read_text()
    assert not [name for name in Permissions.model_fields if f"`{name}`" not in page]
    assert not [level for level in LEVELS if f"| `{level}` |" not in page]
