"""A file system, a process table, a network and a user table of the program's own.

Everything that the program is to see is first opened by the host's paths and copied as detached
mount trees, made read-only while nobody can see them. Only then is an empty root made and the trees
attached to it: no mount point is ever created below anything that untrusted code could have
written, and no path is walked twice.
"""

from __future__ import annotations

import os

from . import _libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._policy import Policy

__all__ = [
    "ACCOUNTS",
    "DATA",
    "INSIDE_ID",
    "TEMP",
    "WORKSPACE",
    "enter_root",
    "own_user_and_processes",
]

WORKSPACE = "/workspace"
TEMP = "/tmp"
DATA = "/data"
INSIDE_ID = 1000

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND = 1, 2, 4, 8, 4096
_REC, _PRIVATE = 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4

ACCOUNTS = (
    (
        "etc/passwd",
        f"sandbox:x:{INSIDE_ID}:{INSIDE_ID}::{WORKSPACE}:/bin/false\n"
        "nobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/group", f"sandbox:x:{INSIDE_ID}:\nnogroup:x:65534:\n"),
)
"""The files that name the users inside, below the root."""


def own_user_and_processes(outside_id: int | None) -> None:
    """Move into a new user namespace; the next fork starts a new process table.

    `outside_id` is the unprivileged user that the program is to run as when the caller is root; it
    becomes `INSIDE_ID` inside. Else the caller's own user does.
    """
    if outside_id is None:
        uid, gid = os.geteuid(), os.getegid()
        _libc.unshare(_NEWUSER | _NEWPID)
        _map_ids("self", uid, gid)
        return
    # Once inside, this process may no longer map an identity that isn't its own: a helper outside
    # does it.
    os.setgroups([])
    target = os.getpid()
    read_end, write_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            os.close(write_end)
            if os.read(read_end, 1):
                _map_ids(str(target), outside_id, outside_id)
                code = 0
        finally:
            os._exit(code)
    os.close(read_end)
    try:
        _libc.unshare(_NEWUSER | _NEWPID)
        os.write(write_end, b"x")
    finally:
        os.close(write_end)
        _, status = os.waitpid(helper, 0)
    if status != 0:
        raise OSError("the user namespace's identity map could not be written")


def _map_ids(process: str, uid: int, gid: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {uid} 1"),
        ("gid_map", f"{INSIDE_ID} {gid} 1"),
    ):
        fd = os.open(f"/proc/{process}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def enter_root(policy: Policy) -> None:
    """Make the program's own root and go there; the host's file system is out of reach afterwards.

    Called by the first process of the new process table, with all capabilities in its user
    namespace. Afterwards that process is `INSIDE_ID` and still holds them.
    """
    _libc.unshare(_NEWNS | _NEWIPC | _NEWUTS | _NEWNET | _NEWCGROUP)
    _libc.sethostname("sandbox")
    _libc.mount("none", "/", None, _REC | _PRIVATE)
    trees = [(_detached(source, kind), source, kind) for source, kind in policy["binds"]]
    # Opened by the identity that the host's permissions know; what is made from here on belongs to
    # the new one.
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)

    entries = 64 + 16 * (len(trees) + len(policy["links"]))
    options = f"size=1m,nr_inodes={entries},mode=0755"
    _libc.mount("sandbox", TEMP, "tmpfs", _NOSUID | _NODEV, options)
    os.chdir(TEMP)
    _make_skeleton(policy)
    # Before the trees: a granted path or the packages may lie in a folder below /tmp.
    _mount_workspace(policy)
    for tree, source, kind in trees:
        inside = "." + (DATA if kind == "data" else source)
        if not os.path.lexists(inside):
            _make_target(inside, is_folder=_is_folder(tree))
        # Opened without following links, in case that a folder that is already attached is changed
        # by a program on the host meanwhile.
        target = _libc.open_no_links(inside)
        _libc.move_mount(tree, target)
        os.close(target)
        os.close(tree)
    _mount_processes()
    _libc.pivot_root(".", ".")
    _libc.umount_detached(".")
    os.chdir("/")
    _libc.mount("none", "/", None, _BIND | 32 | _RDONLY | _NOSUID | _NODEV)  # MS_REMOUNT
    os.chdir(WORKSPACE)


def _detached(source: str, kind: str) -> int:
    fd = _libc.open_no_links(source)
    try:
        tree = _libc.open_tree(fd)
    finally:
        os.close(fd)
    if kind == "device":
        return tree
    _libc.mount_setattr(tree, _ATTR_NOSUID | _ATTR_NODEV | (0 if kind == "write" else _ATTR_RDONLY))
    return tree


def _is_folder(fd: int) -> bool:
    return (os.fstat(fd).st_mode & 0o170000) == 0o040000


def _make_target(path: str, *, is_folder: bool) -> None:
    folder = path if is_folder else os.path.dirname(path)
    os.makedirs(folder, 0o755, exist_ok=True)
    if not is_folder:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _make_skeleton(policy: Policy) -> None:
    for folder in ("etc", "dev", "proc", "tmp", "workspace"):
        os.mkdir(folder, 0o755)
    for name, text in ACCOUNTS:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444)
        os.write(fd, text.encode())
        os.close(fd)
    os.symlink("/proc/self/fd", "dev/fd")
    for path, target in policy["links"]:
        inside = "." + path
        os.makedirs(os.path.dirname(inside), 0o755, exist_ok=True)
        if not os.path.lexists(inside):
            os.symlink(target, inside)


def _mount_processes() -> None:
    """The program's own processes under /proc, if the host lets it be mounted; else nothing."""
    flags = _NOSUID | _NODEV | _NOEXEC | _RDONLY
    for options in ("subset=pid,hidepid=2", "hidepid=2"):
        try:
            _libc.mount("proc", "proc", "proc", flags, options)
        except OSError:
            continue
        return


def _mount_workspace(policy: Policy) -> None:
    """One quota for the workspace and the temporary folder: two folders of the same file system."""
    flags = _NOSUID | _NODEV | (0 if policy["processes"] else _NOEXEC)
    size = f"size={policy['disk_bytes']},nr_inodes={policy['files'] + 8}"
    _libc.mount("workspace", "workspace", "tmpfs", flags, f"{size},mode=0755")
    os.mkdir("workspace/tmp", 0o755)
    os.mkdir("workspace/work", 0o755)
    _libc.mount("workspace/tmp", "tmp", None, _BIND)
    _libc.mount("workspace/work", "workspace", None, _BIND)
