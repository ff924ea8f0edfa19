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
from corral.tools.sandbox.permissions import LEVELS, Level, Permissions

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
        layers: What each layer amounts to here, by its name, in the order of the way down.
    """

    levels: tuple[Level, ...]
    problems: Mapping[Level, str] = field(default_factory=dict[Level, str])
    remedies: tuple[str, ...] = ()
    landlock: int = 0
    layers: Mapping[str, str] = field(default_factory=dict[str, str])

    def level_for(self, permissions: Permissions) -> Level:
        """The level to run a program with these permissions on: the strongest there is.

        Raises:
            SandboxUnavailable: If none here is strong enough.
            ConfigError: For permissions that no level can enforce: any `network`.
        """
        permissions.check_program()
        wanted = LEVELS.index(permissions.min_level)
        strong: list[Level] = [level for level in self.levels if LEVELS.index(level) >= wanted]
        for level in strong:
            if level != "reduced" or not permissions.processes:
                return level
        blamed: dict[str, list[str]] = {}
        for level, why in self.problems.items():
            blamed.setdefault(why, []).append(level)
        problems = "; ".join(f"{', '.join(levels)}: {why}" for why, levels in blamed.items())
        if not self.levels:
            why = "This machine can't confine code"
        elif not strong:
            why = (
                f"The level {permissions.min_level!r}, which min_level asks for, "
                "can't be had on this machine"
            )
        else:
            why = (
                f"processes={permissions.processes!r} needs the level 'bubblewrap' or "
                "'namespaces', which can't be had here"
            )
        remedy = " ".join(self.remedies) or "Run `corral doctor` for details."
        raise SandboxUnavailable(f"{why} ({problems}). Nothing was run. {remedy}")


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
        return _nowhere(
            f"the sandbox is made of Linux's own means, and this is {sys.platform!r}",
            _ELSEWHERE.get(sys.platform, "Run Corral in a Linux virtual machine or container."),
        )
    from corral.tools.sandbox import _libc, _seccomp

    if _libc.machine() not in _seccomp.ARCHITECTURES:
        return _nowhere(
            f"no system call table for {_libc.machine()!r}",
            f"Use one of {sorted(_seccomp.ARCHITECTURES)}.",
        )
    problems: dict[Level, str] = {}
    levels: list[Level] = []
    for level in reversed(LEVELS):
        why = self_test(level)
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
        layers=_layers(levels, landlock),
    )


_ELSEWHERE = {
    "darwin": (
        "On macOS, run Corral in a Linux virtual machine or container (Docker Desktop, Colima, "
        "Lima, UTM)."
    ),
    "win32": "On Windows, run Corral in WSL2, where it has the whole sandbox.",
}


def _nowhere(why: str, remedy: str) -> SandboxReport:
    problems: dict[Level, str] = dict.fromkeys(reversed(LEVELS), why)
    return SandboxReport(levels=(), problems=problems, remedies=(remedy,))


def _layers(levels: list[Level], landlock: int) -> dict[str, str]:
    from corral.tools.sandbox import _landlock, _libc, _seccomp

    if not levels:
        return {}
    machine = _libc.machine()
    root = os.geteuid() == 0
    namespaces = {
        "namespaces": "its own files, processes, network, users, host name and IPC",
        "bubblewrap": "the same, made by the system's bwrap",
        "reduced": "none: the user's files exist for it, closed",
    }
    return {
        "environment": "only what is named; no descriptor but its own pipes",
        "user": "65534 in place of root" if root else "this user",
        "namespaces": namespaces[levels[0]],
        "privileges": "no capability, and none to be had again",
        "landlock": _landlock.covers(landlock),
        "seccomp": f"{_seccomp.allowed(machine)} system calls of {machine}, the rest refused",
        "limits": "memory, processor, files, processes, descriptors; wall clock and output outside",
    }


def self_test(level: Level) -> str | None:
    """Why `level` can't be used here, or None when its self-test passed."""
    from corral.tools.sandbox import _bubblewrap
    from corral.tools.sandbox._host import prepare

    if level == "bubblewrap":
        try:
            _bubblewrap.find()
        except OSError as error:
            return str(error)
    with tempfile.TemporaryDirectory(prefix="corral-probe-") as folder:
        os.chmod(folder, 0o755)
        secret = Path(folder, "secret")
        secret.write_text("secret")
        secret.chmod(0o666)
        stdin = f"{secret}\n{os.getpid()}\n".encode()
        try:
            result = prepare(
                level, {"source": _SELF_TEST}, permissions=Permissions(wall_seconds=10), stdin=stdin
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
    if "bubblewrap" in problems and "namespaces" in problems:
        remedies.append(
            "Or install bubblewrap 0.12 or later (`apt install bubblewrap`, where that is new "
            "enough), which some systems let make what they deny to others."
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
