"""Executables in the sandbox: found by name, given their arguments as they are, and confined."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from sandbox_fixtures import confined

from corral.errors import ConfigError, SandboxUnavailable
from corral.tools.sandbox import Level, Permissions, probe, run_program
from corral.tools.sandbox.run import run_program_at

pytestmark = confined


async def test_arguments_arrive_as_they_are(level: Level) -> None:
    words = ["a b", "$HOME", "*", "", "'", "h\u00e9", "\udcff", "-n", ";true"]
    result = await run_program_at(level, ["printf", "[%s]", *words])
    assert result.stdout == "".join(f"[{w}]" for w in words).replace("\udcff", "\ufffd")
    assert (result.exit_code, result.level) == (0, level)


async def test_input_and_files_are_given(level: Level) -> None:
    files = {"in/a.txt": b"a\n", "b.bin": b"\xff\0"}
    result = await run_program_at(level, ["cat", "-", "in/a.txt"], stdin=b"x\n", files=files)
    assert result.stdout == "x\na\n"
    result = await run_program_at(level, ["wc", "-c", "b.bin"], files=files)
    assert result.stdout.split() == ["2", "b.bin"]


async def test_exit_codes_and_signals_come_through(level: Level) -> None:
    assert (await run_program_at(level, ["sh", "-c", "exit 3"])).exit_code == 3
    assert (await run_program_at(level, ["sh", "-c", "kill -9 $$"])).signal == 9
    # What Python ignores isn't ignored by what it becomes.
    piped = await run_program_at(level, ["sh", "-c", "kill -PIPE $$; echo alive"])
    assert (piped.stdout, piped.signal) == ("", 13)


async def test_what_can_not_be_run_says_so(level: Level) -> None:
    missing = await run_program_at(level, ["no-such-program"])
    assert missing.exit_code == 127 and missing.stderr.startswith("no-such-program: not found in")
    closed = await run_program_at(level, ["/etc/ld.so.cache"])
    assert closed.exit_code == 126 and "Permission denied" in closed.stderr


@pytest.mark.skipif(
    "namespaces" not in probe().levels and os.geteuid() == 0,
    reason="this Python may lie where only root can reach it",
)
async def test_the_python_that_runs_corral_is_found_with_its_packages() -> None:
    # Packages that only a variable of the environment leads to are not found by it.
    package = "pydantic" if sys.prefix != sys.base_prefix else "json"
    for name in (os.path.basename(sys.executable), sys.executable):
        result = await run_program([name, "-c", f"import {package}, sys; print(sys.executable)"])
        assert (result.stdout.strip(), result.stderr) == (sys.executable, "")


async def test_no_other_program_is_started_without_leave(level: Level) -> None:
    result = await run_program_at(level, ["sh", "-c", "echo one; ls | cat; echo two"])
    assert "fork" in result.stderr and "two" not in result.stdout


async def test_with_leave_programs_start_others() -> None:
    if "namespaces" not in probe().levels:
        with pytest.raises(SandboxUnavailable):
            await run_program(["true"], permissions=Permissions(processes=3))
        return
    argv = ["sh", "-c", "ls | wc -l"]
    result = await run_program(argv, permissions=Permissions(processes=3), files={"a": b""})
    assert result.stdout.strip() == "1"


async def test_a_program_sees_and_changes_only_what_it_may(level: Level, shared: Path) -> None:
    secret = shared / "secret"
    secret.write_text("secret")
    secret.chmod(0o666)
    code = f"cat {secret}; echo x > {secret}; cat /proc/1/environ; echo $SECRET"
    result = await run_program_at(level, ["sh", "-c", f"exec 2>&1; {code}"])
    assert "secret\n" not in result.stdout and secret.read_text() == "secret"
    allowed = Permissions(write=(shared,))
    result = await run_program_at(level, ["sh", "-c", f"echo new > {secret}"], permissions=allowed)
    assert (result.stderr, secret.read_text()) == ("", "new\n")


async def test_only_named_variables_are_there(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_TEST_SHOWN", "shown")
    monkeypatch.setenv("CORRAL_TEST_HIDDEN", "hidden")
    allowed = Permissions(env=("CORRAL_TEST_SHOWN",))
    result = await run_program_at(level, ["env"], permissions=allowed)
    assert "CORRAL_TEST_SHOWN=shown" in result.stdout and "hidden" not in result.stdout


async def test_limits_hold_for_programs(level: Level) -> None:
    slow = await run_program_at(level, ["sleep", "60"], permissions=Permissions(wall_seconds=0.3))
    assert slow.over == "wall"
    busy = ["sh", "-c", "while :; do :; done"]
    hot = await run_program_at(level, busy, permissions=Permissions(cpu_seconds=1))
    assert hot.over == "cpu"
    small = Permissions(output_bytes=10)
    loud = await run_program_at(level, ["head", "-c", "100000", "/dev/zero"], permissions=small)
    assert (len(loud.stdout), loud.truncated) == (10, True)


async def test_no_socket_is_given_to_programs(level: Level) -> None:
    if not shutil.which("bash"):
        pytest.skip("no bash, which can open one")
    result = await run_program_at(level, ["bash", "-c", "echo > /dev/tcp/127.0.0.1/1"])
    assert result.exit_code != 0 and "refused" not in result.stderr.lower()


@pytest.mark.parametrize("argv", [[], [""], ["echo", "a\0b"]])
async def test_arguments_that_are_none_are_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigError):
        await run_program(argv)


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a/../../b", "a\0b", "."])
async def test_files_stay_in_the_working_directory(name: str) -> None:
    with pytest.raises(ConfigError):
        await run_program(["true"], files={name: b""})
