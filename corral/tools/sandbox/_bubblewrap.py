"""Namespaces made by the system's `bwrap`, on hosts that let it make them and not this Python.

Distributions that forbid unprivileged user namespaces make an exception for bubblewrap. It is given
no policy of its own to decide: it makes the namespaces, an empty root and the same mounts as
`_namespaces.py` would, drops every capability, and starts this package's confined side again as
the first of the new process table, which locks itself down in there as on every level.

Versions before 0.12 follow links in a writable folder to the host while they mount
(CVE-2026-87766, GHSA-pxhw-h44j-8pfx), so they are refused, as is one that runs with root's rights.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys

from . import _libc, _namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ._policy import Policy

__all__ = ["PLACES", "TEMP", "WORKSPACE", "find", "inodes_in_use", "start"]

PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap")
"""Where the program may lie: folders that only root writes, not whatever $PATH says."""

TEMP = "/tmp"
WORKSPACE = "/tmp/workspace"  # In the same file system as TEMP: one quota for both.
_OLDEST = (0, 12)
_SOURCES = "/corral"
_START = (
    "import sys\n"
    "jail = type(sys)('corral_sandbox')\n"
    f"jail.__path__ = [{_SOURCES!r}]\n"
    "sys.modules['corral_sandbox'] = jail\n"
    "from corral_sandbox._child import inside_bubblewrap\n"
    "sys.exit(inside_bubblewrap(*map(int, sys.argv[1:])))\n"
)


def find() -> str:
    """The path of a `bwrap` that can be trusted.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If there is one, and it is too old or could be anyone's.
    """
    import subprocess

    for path in PLACES:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise OSError(f"{path} runs with root's rights (setuid), which it must not")
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"{path} may be changed by others than root")
        try:
            done = subprocess.run(
                [path, "--version"], capture_output=True, env={}, timeout=10, check=False
            )
        except subprocess.SubprocessError as error:
            raise OSError(f"{path} did not tell its version: {error}") from error
        words = done.stdout.decode("utf-8", "replace").split()
        if _version(words[-1] if words else "") < _OLDEST:
            told = " ".join(words) or "no version"
            raise OSError(
                f"{path} is {told}, and before 0.12 it can be led out by a link (CVE-2026-87766)"
            )
        return path
    raise FileNotFoundError(f"there is no bubblewrap ({' or '.join(PLACES)})")


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def start(policy: Policy, status: int, request: int) -> NoReturn:
    """Become `bwrap`, which starts `_child.inside_bubblewrap` with these descriptors.

    Called in a process made for it, by the identity that the host's permissions know.
    """
    arguments, held = _arguments(policy)
    content = marshal.dumps(dict(policy))
    told = _data(len(content).to_bytes(8, "big") + content)  # As the host tells it.
    if policy["user"] is not None:
        os.setgroups([])
        os.setresgid(*[policy["user"]] * 3)
        os.setresuid(*[policy["user"]] * 3)
        _libc.die_with(policy["alive"])  # Changing user has undone it.
    python = os.path.realpath(sys.executable)
    if not os.access(python, os.R_OK | os.X_OK):
        raise OSError(f"{python} is out of reach of the user that programs run as")
    others = [policy["results"], policy["folder"], policy["gate"]]
    for fd in (*held, told, status, request, *(fd for fd in others if fd >= 0)):
        os.set_inheritable(fd, True)
    interpreter = [python, "-I", "-S", "-X", "utf8", "-c", _START]
    numbers = [str(fd) for fd in (told, status, request)]
    os.execv(policy["bubblewrap"], ["bwrap", *arguments, "--", *interpreter, *numbers])


def _arguments(policy: Policy) -> tuple[list[str], list[int]]:
    inside = str(_namespaces.INSIDE_ID)
    unshared = [f"--unshare-{kind}" for kind in ("user", "pid", "net", "ipc", "uts", "cgroup")]
    made = [*unshared, "--disable-userns", "--uid", inside, "--gid", inside]
    made += ["--cap-drop", "ALL", "--die-with-parent", "--as-pid-1", "--hostname", "sandbox"]
    # No mount point is made below what untrusted code could have written: the folder for temporary
    # files is new, and no grant lies inside one that may be written.
    made += ["--size", str(policy["disk_bytes"]), "--tmpfs", TEMP, "--dir", WORKSPACE]
    made += ["--symlink", WORKSPACE, _namespaces.WORKSPACE]
    held: list[int] = []
    for path, target in policy["links"]:
        made += ["--symlink", target, path]
    for name, text in _namespaces.ACCOUNTS:
        held.append(_data(text.encode()))
        made += ["--perms", "0444", "--ro-bind-data", str(held[-1]), f"/{name}"]
    here = os.path.dirname(os.path.abspath(__file__))
    python = os.path.realpath(sys.executable)
    places = [*policy["binds"], (os.path.realpath(here), "source")]
    if not any(_holds(path, python) for path, _ in policy["binds"]):
        places.append((python, "read"))
    for path, kind in places:
        if kind == "device":
            made += ["--dev-bind", path, path]
            continue
        held.append(_libc.open_no_links(path))
        option = "--bind-fd" if kind == "write" else "--ro-bind-fd"
        inside = {"source": _SOURCES, "data": _namespaces.DATA}.get(kind, path)
        made += [option, str(held[-1]), inside]
    made += ["--remount-ro", "/", "--chdir", WORKSPACE]
    return made, held


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _data(content: bytes) -> int:
    fd = os.memfd_create("corral")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def inodes_in_use(bwrap: int) -> int:
    """How many files and folders the program has made, which bubblewrap has no means to limit.

    `bwrap` is the process that `start` became, or was started from. 0 until it is that far.
    """
    try:
        with open(f"/proc/{bwrap}/task/{bwrap}/children", "rb") as file:
            first = int(file.read().split()[0])
        seen = os.statvfs(f"/proc/{first}/root{TEMP}")
        outside = os.statvfs(f"/proc/{bwrap}/root{TEMP}")
    except (OSError, IndexError):
        return 0
    if seen.f_fsid == outside.f_fsid:
        return 0
    return seen.f_files - seen.f_ffree
