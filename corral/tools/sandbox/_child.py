"""The confined side: a supervisor, and the process that locks itself and runs the program.

Started as a fresh interpreter (`-I -S`) by `_host.py`, outside the `corral` package, so it imports
only the standard library's small modules and its neighbours. Three descriptors come with it:

- the leash: first the policy, then nothing; when the host closes it, or dies, everything here is
  killed;
- the status: what the host learns, one line each: `ready`, `failed ...`, `over ...`, `exit N
  SECONDS`, `signal N SECONDS`;
- the request: the program, read by the process that runs it when it is already locked.

    supervisor            outside the program's namespaces; kills, measures and cleans up
    └── init              (namespaces) first of its process table; locked, may still fork
        └── worker        locked; becomes the program

On the reduced level there is no init and the supervisor starts the worker itself. Nothing of the
program runs unless every layer reported success: any exception on the way down is a `failed` line
and the end.
"""

from __future__ import annotations

import marshal
import os
import resource
import select
import sys

from . import _landlock, _libc, _namespaces, _program, _seccomp, _workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ._policy import Policy

__all__ = ["main"]

_SIGKILL = 9
_DISK_POLL_MS = 50
_MEMORY_POLL_MS = 20
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 4, 38, 36


def main(leash: int, status: int, request: int) -> int:
    """Run one call. Returns in the program's own process alone, with the exit code."""
    workspace = ""
    try:
        policy = _read_policy(leash)
        _keep_only({0, 1, 2, leash, status, request})
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if policy["level"] == "reduced":
            workspace = _workspace.make(policy["temporary"], policy["user"])
        else:
            _namespaces.own_user_and_processes(policy["user"])
        alive, _held = os.pipe()
        child = os.fork()
    except BaseException as error:
        _report(status, error)
        if workspace:
            os.rmdir(workspace)
        os._exit(0)
    if child:
        _supervise(policy, leash, status, child, workspace, close=(0, 1, 2, request, alive))
    try:
        _keep_only({0, 1, 2, alive, status, request})
        _lock(policy, alive, status, request, workspace)
        source = _read_request(request)
    except BaseException as error:
        _report(status, error)
        os._exit(0)
    os.close(status)
    _tidy_interpreter()
    return _program.run(source)


def _say(status: int, line: str) -> None:
    try:
        os.write(status, line.replace("\n", " ").encode("utf-8", "replace")[:2000] + b"\n")
    except BrokenPipeError:
        pass  # The host is gone; there is still cleaning up to do.


def _report(status: int, error: BaseException) -> None:
    _say(status, f"failed {type(error).__name__}: {error}")


def _read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(fd, count - len(data))
        if not piece:
            os._exit(0)  # The host is gone.
        data += piece
    return data


def _read_policy(leash: int) -> Policy:
    # marshal and not JSON: it is the host's own data on a private pipe, and json is slow to import.
    return marshal.loads(_read_exactly(leash, int.from_bytes(_read_exactly(leash, 8), "big")))


def _keep_only(fds: set[int]) -> None:
    last = -1
    for fd in sorted(fds):
        if fd > last + 1:  # An empty range would be taken as everything.
            os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, 1 << 20)


# --- the supervisor


def _supervise(
    policy: Policy, leash: int, status: int, child: int, workspace: str, *, close: tuple[int, ...]
) -> NoReturn:
    try:
        for fd in close:
            os.close(fd)
        if not workspace:
            # The program's own user, so that it may be killed; with no way to do anything else.
            if policy["user"] is not None:
                os.setresgid(*[_namespaces.INSIDE_ID] * 3)
                os.setresuid(*[_namespaces.INSIDE_ID] * 3)
            _libc.drop_capabilities()
        _libc.prctl(_PR_SET_DUMPABLE, 0)
        _watch(policy, leash, status, child, workspace)
    except BaseException as error:
        _report(status, error)
    try:
        outcome = _sweep(child)
        if workspace:
            _say(status, outcome)
            _workspace.remove(workspace)
    finally:
        os._exit(0)


def _watch(policy: Policy, leash: int, status: int, child: int, workspace: str) -> None:
    """Wait until the child ends, the host lets go, or a quota that only we enforce is exceeded."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    poll.register(ended, select.POLLIN)
    every = _DISK_POLL_MS if workspace else _MEMORY_POLL_MS if policy["processes"] else None
    while not poll.poll(every):
        over = None
        if workspace:
            over = _workspace.exceeds(
                workspace, disk_bytes=policy["disk_bytes"], files=policy["files"]
            )
        elif _resident_bytes(child) > policy["memory_bytes"]:
            over = "memory"
        if over:
            _say(status, f"over {over}")
            break
    os.close(ended)


def _resident_bytes(root: int) -> int:
    """Resident memory of a process and all its descendants."""
    pages = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                pages += int(file.read().split()[1])
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    waiting += [int(child) for child in file.read().split()]
        except OSError:
            continue  # It ended while we looked.
    return pages * os.sysconf("SC_PAGESIZE")


def _sweep(child: int) -> str:
    """Kill the child and all that it left behind, reap it, and say how the child ended."""
    outcome = f"signal {_SIGKILL} 0"
    targets = {child}
    while True:
        for pid in targets:
            try:
                os.kill(pid, _SIGKILL)
            except ProcessLookupError:
                pass
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return outcome
        targets.discard(pid)
        if pid == child:
            outcome = _outcome(status, usage)
        targets |= _children()


def _children() -> set[int]:
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def _outcome(status: int, usage: resource.struct_rusage) -> str:
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    return f"exit {code} {seconds:.3f}" if code >= 0 else f"signal {-code} {seconds:.3f}"


# --- the way down


def _lock(policy: Policy, alive: int, status: int, request: int, workspace: str) -> None:
    """Lock this process down, or a fork of it where there are namespaces; say that it is ready."""
    _die_with_parent(alive)
    os.setsid()
    sys.path += policy["python_path"]
    sys.executable = os.path.realpath(sys.executable)  # What a link of it leads to is seen inside.
    temporary = workspace
    others = 3  # Supervisor, init and this one are all that its user namespace counts.
    if policy["level"] == "namespaces":
        _lock_in_namespaces(policy)
        worker = os.fork()
        if worker:
            _init(worker, status, close=(0, 1, 2, request))
        workspace, temporary = _namespaces.WORKSPACE, _namespaces.TEMP
        if not policy["processes"] and "seccomp" not in policy["without"]:
            _libc.set_filter(_seccomp.no_fork_filter(_libc.machine()))
    else:
        others = _tasks_on_host()
        _lock_in_place(policy, workspace)
    os.close(alive)
    _limit(policy, others)
    os.environ["HOME"] = workspace
    os.environ["TMPDIR"] = os.environ["MPLCONFIGDIR"] = temporary
    _say(status, "ready")


def _die_with_parent(alive: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    poll = select.poll()
    poll.register(alive, 0)
    if poll.poll(0):
        os._exit(0)  # It died before we asked: its end of the pipe is closed.


def _give_up_privileges() -> None:
    _libc.drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _libc.prctl(_PR_SET_DUMPABLE, 0)
    # Changing user clears it.
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def _lock_in_namespaces(policy: Policy) -> None:
    _namespaces.enter_root(policy)
    _give_up_privileges()
    abi = _landlock_abi(policy)
    if abi:
        rules = [
            *policy["binds"],
            (_namespaces.WORKSPACE, "build" if policy["processes"] else "write"),
            (_namespaces.TEMP, "write"),
            ("/etc", "read"),
            ("/proc", "read"),
        ]
        _landlock.confine(_landlock.open_rules(rules), abi=abi)
    if "seccomp" not in policy["without"]:
        program = _seccomp.base_filter(
            _libc.machine(),
            reduced=False,
            processes=True,
            own_pid=None,
            truncate=abi == 0 or abi >= 3,
        )
        _libc.set_filter(program)


def _lock_in_place(policy: Policy, workspace: str) -> None:
    abi = _landlock_abi(policy)
    if not abi and policy["landlock"]:
        raise OSError(
            "this kernel has no Landlock, and without namespaces nothing else hides files"
        )
    opened = _landlock.open_rules([*policy["binds"], (workspace, "write")])
    held = [_hold(path) for path in sys.path]
    if policy["user"] is not None:
        _libc.drop_bounding_set()  # Only root may.
        os.setgroups([])
        os.setresgid(*[policy["user"]] * 3)
        os.setresuid(*[policy["user"]] * 3)
    _reach(held)
    os.chdir(workspace)
    _give_up_privileges()
    if abi:
        _landlock.confine(opened, abi=abi)
    if "seccomp" not in policy["without"]:
        program = _seccomp.base_filter(
            _libc.machine(),
            reduced=True,
            processes=bool(policy["processes"]),
            own_pid=os.getpid(),
            truncate=abi >= 3,
        )
        _libc.set_filter(program)


def _landlock_abi(policy: Policy) -> int:
    return min(policy["landlock"], _libc.abi_of_landlock())


def _limit(policy: Policy, others: int) -> None:
    if "limits" in policy["without"]:
        return
    for name, soft, hard in (
        (resource.RLIMIT_CPU, policy["cpu_seconds"], policy["cpu_seconds"] + 1),
        (resource.RLIMIT_AS, policy["memory_bytes"], policy["memory_bytes"]),
        (resource.RLIMIT_FSIZE, policy["disk_bytes"], policy["disk_bytes"]),
        (resource.RLIMIT_NPROC, *[others + policy["processes"] + policy["threads"]] * 2),
        (resource.RLIMIT_NOFILE, 256, 256),
        (resource.RLIMIT_STACK, 8 << 20, 8 << 20),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        _, ceiling = resource.getrlimit(name)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(name, (soft, hard))


def _tasks_on_host() -> int:
    """An upper bound of this user's tasks, all of which count where there is no user namespace."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[3].split(b"/")[1])
    except (OSError, ValueError, IndexError):
        return 4096


def _hold(path: str) -> tuple[str, int]:
    try:
        return path, os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return path, -1


def _reach(held: list[tuple[str, int]]) -> None:
    """Make `sys.path` work for the user that we have become.

    Where the standard library lies in a home folder that only root may enter, it is reached through
    the descriptors that were opened before.
    """
    moved: dict[str, str] = {}
    for path, fd in held:
        if fd < 0:
            continue
        if os.access(f"{path}/.", os.R_OK | os.X_OK):
            os.close(fd)
        else:
            moved[path] = f"/proc/self/fd/{fd}"
    sys.path[:] = [moved.get(path, path) for path, fd in held if fd >= 0]
    for module in list(sys.modules.values()):
        for inside in getattr(module, "__path__", ()):
            top, _, rest = inside.rpartition("/")
            if top in moved:
                module.__path__ = [f"{moved[top]}/{rest}"]


def _init(worker: int, status: int, *, close: tuple[int, ...]) -> NoReturn:
    """First of the process table: reap, tell how the worker ended, and by ending end the rest."""
    for fd in close:
        os.close(fd)
    _libc.ignore_signals()  # The program may signal its process group, which this belongs to.
    while True:
        pid, code, usage = os.wait4(-1, 0)
        if pid == worker:
            _say(status, _outcome(code, usage))
            os._exit(0)


def _read_request(request: int) -> str:
    pieces: list[bytes] = []
    while piece := os.read(request, 1 << 20):
        pieces.append(piece)
    os.close(request)
    return b"".join(pieces).decode("utf-8", "surrogatepass")


def _tidy_interpreter() -> None:
    """Leave the program an interpreter that looks freshly started."""
    import builtins

    own = __name__.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == own]:
        del sys.modules[name]
    sys.argv = [""]
    for name in ("exit", "quit"):  # `site`, which isn't loaded, would have made them.
        setattr(builtins, name, sys.exit)
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        # By lines, so that what was printed before a kill is not lost.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
