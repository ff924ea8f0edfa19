"""Finds out how strongly this machine can confine code: each level runs an attack on itself."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corral.errors import SandboxUnavailable
from corral.tools.sandbox.permissions import Level, Permissions

__all__ = ["SandboxReport", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxReport:
    """What this machine's sandbox can do.

    Attributes:
        levels: The levels whose self-test passed, strongest first. Empty: no untrusted code will
            run here.
        problems: For each other level, why not.
        remedies: What would mend it, in sentences for the user.
        landlock: The kernel's Landlock version, 0 for none.
    """

    levels: tuple[Level, ...]
    problems: Mapping[Level, str] = field(default_factory=dict[Level, str])
    remedies: tuple[str, ...] = ()
    landlock: int = 0

    def level_for(self, permissions: Permissions) -> Level:
        """The level to run a program with these permissions on: the strongest there is.

        Raises:
            SandboxUnavailable: If none here is strong enough.
        """
        strict = permissions.min_level == "namespaces"
        if "namespaces" in self.levels:
            return "namespaces"
        if self.levels and not strict and not permissions.processes:
            return self.levels[0]
        problems = "; ".join(f"{level}: {why}" for level, why in self.problems.items())
        if not self.levels:
            wanted = "This machine can't confine code"
        elif strict:
            wanted = (
                "The level 'namespaces', which min_level asks for, can't be had on this machine"
            )
        else:
            wanted = (
                f"processes={permissions.processes!r} needs the level 'namespaces', "
                "which can't be had here"
            )
        remedy = " ".join(self.remedies) or "Run `corral doctor` for details."
        raise SandboxUnavailable(f"{wanted} ({problems}). Nothing was run. {remedy}")


# Prints one line for each thing that must be refused, and one that must work.
_SELF_TEST = """
import ctypes, os, _socket
secret, host_pid = input(), int(input())
prctl = ctypes.CDLL(None).prctl
def tried(name, act):
    try:
        act()
    except OSError:
        print(name, "refused")
    else:
        print(name, "allowed")
tried("read", lambda: open(secret).read())
tried("list", lambda: os.listdir(os.path.dirname(secret)))
tried("write", lambda: open(secret + ".new", "w"))
tried("remove", lambda: os.unlink(secret))
tried("socket", lambda: _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM))
tried("unix", lambda: _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM))
tried("fork", lambda: os.fork() or os._exit(0))
tried("exec", lambda: os.execv("/bin/true", ["true"]))
tried("signal", lambda: os.kill(host_pid, 0))
print("privileges", prctl(39, 0, 0, 0, 0), prctl(21, 0, 0, 0, 0), os.getuid() != 0)
tried("workspace", lambda: open("file", "w").write("x"))
"""
_EXPECTED = """\
read refused
list refused
write refused
remove refused
socket refused
unix refused
fork refused
exec refused
signal refused
privileges 1 2 True
workspace allowed
"""


@functools.cache
def probe() -> SandboxReport:
    """Run every level's self-test, once in a process; later calls return the same report.

    Blocks for some tenths of a second the first time.
    """
    if sys.platform != "linux":
        why = f"the sandbox is made of Linux's own means, and this is {sys.platform!r}"
        remedy = "Run Corral in a Linux container or virtual machine (on Windows: in WSL2)."
        return SandboxReport(
            levels=(), problems={"namespaces": why, "reduced": why}, remedies=(remedy,)
        )
    from corral.tools.sandbox import _libc, _seccomp

    if _libc.machine() not in _seccomp.ARCHITECTURES:
        why = f"no system call table for {_libc.machine()!r}"
        remedy = f"Use one of {sorted(_seccomp.ARCHITECTURES)}."
        return SandboxReport(
            levels=(), problems={"namespaces": why, "reduced": why}, remedies=(remedy,)
        )
    problems: dict[Level, str] = {}
    levels: list[Level] = []
    order: tuple[Level, ...] = ("namespaces", "reduced")
    for level in order:
        why = _problem(level)
        if why is None:
            levels.append(level)
        else:
            problems[level] = why
    landlock = _libc.abi_of_landlock()
    return SandboxReport(
        levels=tuple(levels),
        problems=problems,
        remedies=tuple(_remedies(problems, landlock)),
        landlock=landlock,
    )


def _problem(level: Level) -> str | None:
    """Why `level` can't be used here, or None when its self-test passed."""
    from corral.tools.sandbox._host import prepare

    with tempfile.TemporaryDirectory(prefix="corral-probe-") as folder:
        os.chmod(folder, 0o755)
        secret = Path(folder, "secret")
        secret.write_text("secret")
        secret.chmod(0o666)
        stdin = f"{secret}\n{os.getpid()}\n".encode()
        try:
            result = prepare(
                level, _SELF_TEST, permissions=Permissions(wall_seconds=10), stdin=stdin
            ).run()
        except SandboxUnavailable as error:
            return str(error).partition(" Nothing was run.")[0]
    if result.stdout == _EXPECTED:
        return None
    pairs = zip(result.stdout.splitlines(), _EXPECTED.splitlines(), strict=False)
    wrong = [got for got, expected in pairs if got != expected]
    detail = ", ".join(wrong) or result.stderr.strip()[-300:] or "it ended early"
    return f"its self-test failed: {detail}"


def _remedies(problems: Mapping[Level, str], landlock: int) -> list[str]:
    remedies: list[str] = []
    if "namespaces" in problems:
        if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
            remedies.append(
                "For namespaces: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, "
                "or an AppArmor profile with `userns,` for this Python."
            )
        elif _setting("user/max_user_namespaces") == "0":
            remedies.append("For namespaces: `sudo sysctl -w user.max_user_namespaces=10000`.")
        elif _setting("kernel/unprivileged_userns_clone") == "0":
            remedies.append("For namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1`.")
        else:
            remedies.append(
                "For namespaces: allow user namespaces; in a container, start it with a seccomp "
                "profile that allows unshare and mount (`docker run --security-opt seccomp=FILE`)."
            )
    if "reduced" in problems and not landlock:
        remedies.append(
            "For the reduced level: a Linux of 5.13 or later with `landlock` among the modules in "
            "/sys/kernel/security/lsm (kernel parameter `lsm=landlock,...`)."
        )
    return remedies


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
