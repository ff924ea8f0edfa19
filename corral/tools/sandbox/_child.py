"""The confined side: a supervisor, and the process that locks itself and runs the program.

Started as a fresh interpreter (`-I -S`) by `_worker.py`, outside the `corral` package: it imports
only the standard library's small modules and its neighbours. Three descriptors come with it:

- the leash: first the policy, then the words of `_words.py`; when the host closes it, or dies,
  everything here is killed;
- the status: what the host learns, one line each: `ready`, `failed ...`, `over ...`, `exit N
  SECONDS`, `signal N SECONDS`; of a session also `holder ID`, `end ID ...`, `next`, `lost`, `idle`;
- the request: the program, read by the process that runs it when it is already locked; or a
  session's cells, one after another.

    supervisor            outside the program's namespaces; kills, measures and cleans up
    └── init              (namespaces) first of its process table; locked, may still fork
        └── worker        locked; becomes the program

On the reduced level there is no init and the supervisor starts the worker itself; on the level
`bubblewrap` its child becomes `bwrap`, which starts the init. Nothing of the program runs unless
every layer reported success: any exception on the way down is a `failed` line and the end.
"""

from __future__ import annotations

import marshal
import os
import resource
import sys
import time

from . import (
    _command,
    _keeper,
    _landlock,
    _libc,
    _namespaces,
    _program,
    _seccomp,
    _workspace,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ._policy import Policy, Request

__all__ = ["inside_bubblewrap", "main"]

_SIGKILL = 9
_SESSION_CELLS = 50
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 4, 38, 36


def main(leash: int, status: int, request: int) -> int:
    """Run one call. Returns in the program's own process alone, with the exit code."""
    workspace = ""
    try:
        policy = _read_policy(leash)
        _bring_modules(policy)
        ours = {0, 1, 2, status, request, policy["results"], policy["folder"]} - {-1}
        _keep_only({leash} | ours)
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if policy["level"] == "reduced":
            workspace = _workspace.make(policy["temporary"], policy["user"])
        elif policy["level"] == "namespaces":
            _namespaces.own_user_and_processes(policy["user"])
        alive, _held = os.pipe()
        gate = -1
        if policy["session"]:
            from . import _notify

            gate, policy["gate"] = _notify.new_gate()
            ours.add(policy["gate"])
        child = os.fork()
    except BaseException as error:
        _report(status, error)
        if workspace:
            os.rmdir(workspace)
        os._exit(0)
    if child:
        _supervise(policy, leash, status, child, workspace, gate, close=(ours - {status}) | {alive})
    try:
        if "descriptors" not in policy["without"]:
            _keep_only({alive} | ours)
        policy["alive"] = alive
        _libc.die_with(alive)
        if policy["level"] == "bubblewrap":
            from . import _bubblewrap

            _bubblewrap.start(policy, status, request)
    except BaseException as error:
        _report(status, error)
        os._exit(0)
    return _locked(policy, status, request, workspace)


def inside_bubblewrap(leash: int, status: int, request: int) -> int:
    """Go on where `bwrap` has started us, as the first of the new process table."""
    try:
        policy = _read_policy(leash)
        policy["alive"] = -1  # bwrap sees to it.
        _bring_modules(policy)
        os.close(leash)
    except BaseException as error:
        _report(status, error)
        os._exit(0)
    return _locked(policy, status, request, "")


def _locked(policy: Policy, status: int, request: int, workspace: str) -> int:
    """Lock down and run what is asked. Returns in its own process alone, with the exit code."""
    try:
        copies = _lock(policy, status, request, workspace)
        if policy["data"]:
            os.symlink(policy["data"], "data")
        serve = _session(policy, copies=copies) if policy["session"] else None
        if policy["preload"]:
            _program.preload(policy["preload"])
        _say(status, "ready")
        wanted: Request = {} if policy["session"] else _read_request(request)
        _command.lay_out(wanted.get("files", {}))
    except BaseException as error:
        _report(status, error)
        os._exit(0)
    os.close(status)
    if policy["alive"] >= 0:
        os.close(policy["alive"])
    if serve is not None:
        _tidy_interpreter()
        return serve(request, policy["results"])
    if "argv" in wanted:
        return _command.run(wanted["argv"])
    _tidy_interpreter()
    return _program.run(wanted.get("source", ""))


def _bring_modules(policy: Policy) -> None:
    """Import what only some calls need, while the files can still be read."""
    names: set[str] = set()
    if policy["level"] == "bubblewrap":
        names.add("_bubblewrap")
    if policy["session"]:
        names |= {"_cells", "_notify", "_session_keeper"}
    if policy["folder"] >= 0:
        names.add("_notify")
    for name in names:
        __import__(name, globals(), level=1)


def _session(policy: Policy, *, copies: bool) -> Callable[[int, int], int]:
    """What serves a session, once it is told that we are its process."""
    from . import _cells

    _program.preload(_cells.NEEDED)
    if copies:
        _cells.announce()
    return lambda request, results: _cells.serve(request, results, copies=copies)


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
    policy: Policy,
    leash: int,
    status: int,
    child: int,
    workspace: str,
    gate: int,
    *,
    close: set[int],
) -> NoReturn:
    keeper: _keeper.Keeper | None = None
    try:
        for fd in close:
            os.close(fd)
        if not workspace:
            # The program's own user, so that it may be killed; with no way to do anything else.
            if policy["user"] is not None:
                inside = policy["level"] == "namespaces"
                user = _namespaces.INSIDE_ID if inside else policy["user"]
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            _libc.drop_capabilities()
        _libc.prctl(_PR_SET_DUMPABLE, 0)

        def say(line: str) -> None:
            _say(status, line)

        if gate < 0:
            keeper = _keeper.Keeper(policy, leash, child, workspace, say)
        else:
            keeper = _session_keeper(policy, leash, child, workspace, say, gate)
        keeper.watch()
    except BaseException as error:
        _report(status, error)
    try:
        outcome = _sweep(0 if keeper and keeper.child_reaped else child)
        if workspace:
            _say(status, outcome)
            if keeper and policy["folder"] >= 0 and not keeper.was_idle:
                keeper.wait_for_host()  # It has yet to look at the files.
            _workspace.remove(workspace)
    finally:
        os._exit(0)


def _session_keeper(
    policy: Policy,
    leash: int,
    child: int,
    workspace: str,
    say: Callable[[str], None],
    gate: int,
) -> _keeper.Keeper:
    from . import _notify
    from ._session_keeper import SessionKeeper

    def outcome(pid: int) -> str:
        _, code, usage = os.wait4(pid, 0)
        return _outcome(code, usage)

    listener = _notify.take_over(gate)
    return SessionKeeper(policy, leash, child, workspace, say, listener=listener, outcome=outcome)


def _sweep(child: int) -> str:
    """Kill the child and all that it left behind, reap it, and say how the child ended.

    `child` is 0 where it is reaped already, so that its number may be another process's by now.
    """
    outcome = f"signal {_SIGKILL} 0"
    targets = {child} if child else _children()
    while True:
        for pid in targets:
            _kill(pid)
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return outcome
        targets.discard(pid)
        if pid == child:
            outcome = _outcome(status, usage)
        targets |= _children()


def _kill(pid: int) -> None:
    """Kill a process of ours, as soon as it is of the user that we have become."""
    while True:
        try:
            os.kill(pid, _SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:
            # It is still on its way down: as root, and we are not any more.
            time.sleep(0.001)
        else:
            return


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


def _lock(policy: Policy, status: int, request: int, workspace: str) -> bool:
    """Lock this process down, or a fork of it where there are namespaces.

    Returns whether a session's process may copy itself.
    """
    os.setsid()
    copies = _ask_for_forks(policy)
    sys.path += policy["python_path"]
    sys.executable = os.path.realpath(sys.executable)  # What a link of it leads to is seen inside.
    temporary = workspace
    # What its user namespace counts: supervisor, init and this one; bwrap's hasn't the first.
    others = 2 if policy["level"] == "bubblewrap" else 3
    if policy["level"] != "reduced":
        if policy["level"] == "namespaces":
            _namespaces.enter_root(policy)
        _lock_in_namespaces(policy, more=not policy["processes"] and not copies)
        worker = os.fork()
        if worker:
            _init(policy, worker, status, close=(0, 1, 2, request))
        workspace, temporary = _namespaces.WORKSPACE, _namespaces.TEMP
        if not policy["processes"] and not copies and "seccomp" not in policy["without"]:
            _libc.set_filter(_seccomp.no_fork_filter(_libc.machine(), programs=policy["programs"]))
    else:
        others = _tasks_on_host()
        _lock_in_place(policy, workspace, copies=copies)
    _limit(policy, others)
    os.environ["HOME"] = workspace
    os.environ["TMPDIR"] = os.environ["MPLCONFIGDIR"] = temporary
    return copies


def _ask_for_forks(policy: Policy) -> bool:
    if policy["gate"] < 0:
        return False
    from . import _notify

    listener = -1
    if "seccomp" not in policy["without"]:
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
        listener = _notify.install(processes=bool(policy["processes"]))
    copies = listener >= 0
    _notify.hand_over(policy["gate"], listener)
    return copies


def _show_workspace(policy: Policy) -> None:
    """Send the host a descriptor of the workspace, which is the working directory."""
    if policy["folder"] >= 0:
        from . import _notify

        _notify.hand_over(policy["folder"], os.open(".", os.O_RDONLY | os.O_DIRECTORY))


def _give_up_privileges(policy: Policy) -> None:
    if "capabilities" not in policy["without"]:
        _libc.drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _libc.prctl(_PR_SET_DUMPABLE, 0)
    _libc.die_with(policy["alive"])  # Changing user has undone it.


def _lock_in_namespaces(policy: Policy, *, more: bool) -> None:
    _give_up_privileges(policy)
    abi = _landlock_abi(policy)
    if abi:
        workspace = _namespaces.WORKSPACE
        if policy["level"] == "bubblewrap":
            from . import _bubblewrap

            workspace = _bubblewrap.WORKSPACE
        rules = [
            *policy["binds"],
            (workspace, "build" if policy["processes"] else "write"),
            (_namespaces.TEMP, "write"),
            ("/etc", "read"),
            ("/proc", "read"),
            (_namespaces.DATA, "read"),
        ]
        _landlock.confine(_landlock.open_rules(rules), abi=abi)
    _show_workspace(policy)
    if "seccomp" not in policy["without"]:
        program = _seccomp.base_filter(
            _libc.machine(),
            reduced=False,
            processes=True,
            own_pid=None,
            truncate=abi == 0 or abi >= 3,
            more=more,
            shared_memory=not policy["processes"],
        )
        _libc.set_filter(program)


def _lock_in_place(policy: Policy, workspace: str, *, copies: bool) -> None:
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
    _give_up_privileges(policy)
    if abi:
        _landlock.confine(opened, abi=abi)
    _show_workspace(policy)
    if "seccomp" not in policy["without"]:
        # A session's process changes, so none may be named; where Landlock doesn't keep signals
        # from leaving, they may then go nowhere (0 is the session's own process group).
        own_pid = None if abi >= 6 and copies else 0 if copies else os.getpid()
        program = _seccomp.base_filter(
            _libc.machine(),
            reduced=True,
            processes=bool(policy["processes"]) or copies,
            own_pid=own_pid,
            truncate=abi >= 3,
            programs=policy["programs"],
        )
        _libc.set_filter(program)


def _landlock_abi(policy: Policy) -> int:
    return min(policy["landlock"], _libc.abi_of_landlock())


def _limit(policy: Policy, others: int) -> None:
    if "limits" in policy["without"]:
        return
    # The supervisor limits each cell; this is for all of a session's cells together.
    seconds = policy["cpu_seconds"] * (_SESSION_CELLS if policy["session"] else 1)
    others += policy["session"]  # The copy.
    for name, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
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


def _init(policy: Policy, worker: int, status: int, *, close: tuple[int, ...]) -> NoReturn:
    """First of the process table: reap, tell how the worker ended, and by ending end the rest."""
    for fd in close:
        os.close(fd)
    if policy["results"] >= 0:
        os.close(policy["results"])
    _libc.ignore_signals()  # The program may signal its process group, which this belongs to.
    while True:
        try:
            pid, code, usage = os.wait4(-1, 0)
        except ChildProcessError:
            os._exit(0)
        if policy["session"]:
            _say(status, f"end {pid} {_outcome(code, usage)}")
        elif pid == worker:
            _say(status, _outcome(code, usage))
            os._exit(0)


def _read_request(request: int) -> Request:
    pieces: list[bytes] = []
    while piece := os.read(request, 1 << 20):
        pieces.append(piece)
    os.close(request)
    return marshal.loads(b"".join(pieces))


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
