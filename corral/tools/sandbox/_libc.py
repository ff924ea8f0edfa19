"""The few system calls that Python has no name for, behind typed functions.

The only file here that touches ctypes.

Runs inside the confined process as well as outside it, so it imports nothing but the standard
library's small modules. Numbers above 423 are the same on every machine that Linux knows.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys

__all__ = [
    "abi_of_landlock",
    "die_with",
    "drop_bounding_set",
    "drop_capabilities",
    "ignore_signals",
    "landlock_add_path",
    "landlock_create",
    "landlock_restrict",
    "machine",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_no_links",
    "open_tree",
    "pivot_root",
    "prctl",
    "set_filter",
    "set_listening_filter",
    "sethostname",
    "umount_detached",
    "unshare",
]

if sys.platform == "linux":  # Elsewhere nothing here is called, but it is imported.
    _libc = ctypes.CDLL(None, use_errno=True)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000


def machine() -> str:
    """The processor's name as the kernel gives it: `x86_64`, `aarch64`, ..."""
    return os.uname().machine


def _checked(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: int | bytes | None) -> int:
    # Each argument is given a full word: a bare Python int would be passed as 32 bits with garbage
    # above them.
    words: list[object] = [
        ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a or 0) for a in arguments
    ]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *words)), what)


def prctl(option: int, *arguments: int) -> int:
    """`prctl(2)` with up to four numbers."""
    words = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(int(_libc.prctl(ctypes.c_int(option), *words)), f"prctl({option})")


def die_with(alive: int) -> None:
    """Have the kernel kill this process when its parent dies, and end now if it has died already.

    `alive` is a pipe's end whose other end only the parent has; -1 leaves the latter out.
    """
    prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    if alive >= 0:
        poll = select.poll()
        poll.register(alive, 0)
        if poll.poll(0):
            os._exit(0)


def unshare(flags: int) -> None:
    """`unshare(2)`."""
    _checked(int(_libc.unshare(ctypes.c_int(flags))), f"unshare({flags:#x})")


def sethostname(name: str) -> None:
    """`sethostname(2)`."""
    raw = name.encode()
    _checked(int(_libc.sethostname(raw, ctypes.c_size_t(len(raw)))), "sethostname")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """`mount(2)`; `kind` is the file system's name, or None where the call takes none."""
    kind_raw = None if kind is None else kind.encode()
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind_raw, ctypes.c_ulong(flags), data.encode() or None
    )
    _checked(int(result), f"mount({kind or source!r} on {target!r})")


def umount_detached(target: str) -> None:
    """`umount2(2)` with MNT_DETACH: out of sight now, gone when nobody uses it."""
    _checked(int(_libc.umount2(os.fsencode(target), ctypes.c_int(2))), f"umount({target!r})")


def pivot_root(new_root: str, put_old: str) -> None:
    """`pivot_root(2)`."""
    number = _PIVOT_ROOT[machine()]
    _syscall("pivot_root", number, os.fsencode(new_root), os.fsencode(put_old))


def open_no_links(path: str) -> int:
    """Open `path` as an O_PATH descriptor; refuses any symbolic link on the way."""
    # struct open_how: flags, mode, resolve; RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS.
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x04 | 0x02)
    return _syscall(f"openat2({path!r})", _OPENAT2, _AT_FDCWD, os.fsencode(path), how, len(how))


def open_tree(fd: int) -> int:
    """A detached copy of the mount tree below an O_PATH descriptor."""
    flags = 1 | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE  # OPEN_TREE_CLONE
    return _syscall("open_tree", _OPEN_TREE, fd, b"", flags)


def mount_setattr(fd: int, attributes: int) -> None:
    """Add MOUNT_ATTR_* `attributes` to a detached tree and everything mounted in it."""
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    _syscall("mount_setattr", _MOUNT_SETATTR, fd, b"", flags, attr, len(attr))


def move_mount(fd: int, target: int) -> None:
    """Attach a detached tree at the O_PATH descriptor `target`."""
    # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
    _syscall("move_mount", _MOVE_MOUNT, fd, b"", target, b"", 0x04 | 0x40)


def drop_bounding_set() -> None:
    """Empty the set of capabilities that could ever be had again, as far as this process may."""
    for capability in range(64):
        try:
            prctl(24, capability)  # PR_CAPBSET_DROP
        except OSError:
            # EINVAL past the last capability; EPERM where the process has none that would let it.
            break


def drop_capabilities() -> None:
    """Give up every capability for good: bounding set, ambient set, then the process's own."""
    drop_bounding_set()
    prctl(47, 4)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    header = struct.pack("=Ii", 0x20080522, 0)
    _checked(int(_libc.capset(header, bytes(24))), "capset")


def ignore_signals() -> None:
    """Have every signal that can be ignored be ignored, but that of a child's end."""
    # Python's own signal module would do, and takes 7 ms to import.
    _libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    for number in range(1, 32):
        if number != 17:  # SIGCHLD; ignoring it would reap children before they are waited for.
            _libc.signal(number, 1)


def abi_of_landlock() -> int:
    """The kernel's Landlock version, 0 where it has none or won't let us use it."""
    try:
        return _syscall("landlock", _LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def landlock_create(filesystem: int, network: int, scoped: int, *, abi: int) -> int:
    """A ruleset descriptor that handles these access bits, of which `abi` knows all."""
    attr = struct.pack("=QQQ", filesystem, network, scoped)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    return _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, attr[:size], size, 0)


def landlock_add_path(ruleset: int, fd: int, access: int) -> None:
    """Allow `access` to what lies beneath the O_PATH descriptor `fd`."""
    rule = struct.pack("=Qi", access, fd)
    _syscall("landlock_add_rule", _LANDLOCK_ADD, ruleset, 1, rule, 0)


def landlock_restrict(ruleset: int) -> None:
    """Confine this process, and all that it starts, to the ruleset."""
    _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ruleset, 0)


def set_filter(program: bytes) -> None:
    """Install a seccomp filter: `program` is an array of `struct sock_filter`."""
    head, _code = _filter_program(program)
    prctl(22, 2, ctypes.addressof(head))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def set_listening_filter(program: bytes) -> int:
    """Install a seccomp filter and return the descriptor on which its questions are answered."""
    head, _code = _filter_program(program)
    # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
    return _syscall("seccomp", _SECCOMP[machine()], 1, 8, ctypes.addressof(head))


def _filter_program(program: bytes) -> tuple[ctypes.Array[ctypes.c_char], object]:
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a 16-bit length, padding, a pointer.
    head = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(code)), struct.calcsize("@HP")
    )
    return head, code
