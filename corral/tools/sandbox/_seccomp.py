"""The system call filter: an allow-list in the kernel's classic BPF.

What isn't listed answers ENOSYS, so that libraries take their fallback; what programs try in
earnest (sockets, fork, exec) answers EPERM. A call by another machine's table (i386, x32) kills the
process at once, since the numbers below would mean something else there.
"""

from __future__ import annotations

import errno
import struct

from ._syscalls import AARCH64, X86_64

__all__ = ["ARCHITECTURES", "allowed", "base_filter", "no_fork_filter", "refusing_filter"]

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
_ASK = 0x7FC00000
_LD_WORD, _AND, _JEQ, _JGE, _RET = 0x20, 0x54, 0x15, 0x35, 0x06

ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, X86_64),
    "aarch64": (0xC00000B7, AARCH64),
}
"""AUDIT_ARCH_* and the table of numbers, by machine."""

_CLONE_THREAD = 0x00010000
# Every CLONE_NEW*, and CLONE_PARENT, which would hand the child to the supervisor.
_CLONE_REFUSED = 0x7E020000 | 0x00008000
_O_ACCMODE, _O_TRUNC = 0o3, 0o1000

_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek
stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents
getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link
linkat symlink symlinkat ftruncate fallocate fsync fdatasync fadvise64 umask statfs fstatfs flock
dup dup2 dup3 pipe pipe2 copy_file_range sendfile select pselect6 poll ppoll epoll_create
epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
timerfd_create timerfd_settime timerfd_gettime recvfrom shutdown getsockname getpeername getsockopt
mmap munmap mprotect mremap madvise brk msync mincore membarrier rt_sigaction
rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall
pause alarm setitimer getitimer nanosleep gettimeofday time times getrusage
sysinfo uname getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups
getpgrp getpgid getsid setsid setpgid getpriority getrlimit setrlimit sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu
futex_waitv set_robust_list set_tid_address rseq getrandom wait4 waitid
exit exit_group
""".split()

_METADATA = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
""".split()
_SIGNALS = "kill tgkill rt_sigqueueinfo".split()
# What takes the number of a process and tells something of it: that it exists, at the least.
_ABOUT_PROCESSES = """
getpgid getsid sched_getaffinity sched_getparam sched_getscheduler
""".split()
# Answered as a file system does that knows no such attributes: programs copy on without them.
_ATTRIBUTES = """
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr getxattr lgetxattr fgetxattr
listxattr llistxattr flistxattr
""".split()
_FORK = "fork vfork".split()
_EXEC = "execve execveat".split()
_REFUSED = """
socket connect bind listen accept accept4 sendmsg recvmsg sendmmsg recvmmsg unshare setns mount
pivot_root ptrace process_vm_readv process_vm_writev bpf perf_event_open userfaultfd keyctl add_key
request_key mknod mknodat personality
""".split()

# A condition: argument index, half of it (0 low, 1 high), mask, value, and whether it must equal.
_Condition = tuple[int, int, int, int, bool]
# A rule: the call is let through when all conditions of any one alternative hold.
_Rule = list[list[_Condition]]


def _is(argument: int, value: int, mask: int = 0xFFFFFFFF) -> _Condition:
    return (argument, 0, mask, value, True)


def _one_of(argument: int, *values: int) -> _Rule:
    return [[_is(argument, value)] for value in values]


def _rules() -> dict[str, _Rule]:
    """The calls whose arguments matter, on every level."""
    truncating_reader = _O_TRUNC | _O_ACCMODE
    return {
        # Opening for reading with O_TRUNC empties a file, which Landlock before version 3 doesn't
        # see.
        "open": [[(1, 0, truncating_reader, _O_TRUNC, False)]],
        "openat": [[(2, 0, truncating_reader, _O_TRUNC, False)]],
        # Only connected streams between the program's own ends, as asyncio needs: a datagram socket
        # could still be pointed at a path with sendto.
        "socketpair": [[_is(0, 1), _is(1, 1, 0xF)]],
        "sendto": [[_is(4, 0), (4, 1, 0xFFFFFFFF, 0, True)]],
        # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX.
        "ioctl": _one_of(1, 0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x5450),
        # Without F_SETOWN and its kin, by which a process has signals sent to others.
        "fcntl": _one_of(1, 0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032),
        # PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
        # PR_GET_NO_NEW_PRIVS, PR_SET_VMA.
        "prctl": _one_of(0, 3, 15, 16, 21, 23, 39, 0x53564D41),
        # SO_REUSEADDR, timeouts and their likes: not what attaches a program to the socket, nor the
        # sizes of its buffers, which are memory that no limit counts.
        "setsockopt": [[_is(1, 1), *one] for one in _one_of(2, 2, 9, 13, 18, 19, 20, 21)],
        # The ordinary clocks: a negative number means the processor time of any process, or a file.
        "clock_gettime": [[_is(0, 0, 0xFFFFFFF0)]],
        "clock_getres": [[_is(0, 0, 0xFFFFFFF0)]],
        "clock_nanosleep": [[_is(0, 0, 0xFFFFFFF0)]],
        # Waiting and waking; the locks that inherit priorities have been a way into the kernel.
        "futex": [[_is(1, operation, 0x7F)] for operation in (0, 1, 3, 4, 5, 9, 10)],
        # ARCH_SET_FS, ARCH_GET_FS.
        "arch_prctl": _one_of(0, 0x1002, 0x1003),
        # Without MADV_COLD and MADV_PAGEOUT, which move memory out of what is measured.
        "madvise": [[(2, 0, 0xFFFFFFFF, 20, False), (2, 0, 0xFFFFFFFF, 21, False)]],
        "prlimit64": [[_is(0, 0)]],
        "sched_setaffinity": [[_is(0, 0)]],
        "setpriority": [[_is(0, 0), _is(1, 0)]],
    }


def allowed(machine: str) -> int:
    """How many system calls a program may make at most, whatever their arguments."""
    _, numbers = ARCHITECTURES[machine]
    return sum(name in numbers for name in {*_ALLOWED, *_METADATA, *_SIGNALS, *_rules()})


def base_filter(
    machine: str,
    *,
    reduced: bool,
    processes: bool,
    own_pid: int | None,
    truncate: bool,
    programs: bool = False,
    more: bool = False,
    shared_memory: bool = True,
) -> bytes:
    """The allow-list as a BPF program.

    Args:
        machine: A key of `ARCHITECTURES`.
        reduced: Without namespaces the user's real files are in reach of the calls that change
            modes, owners and times, so those report success and do nothing.
        processes: Whether fork and exec are let through. New namespaces never are.
        own_pid: Where set, signals may only go to this process.
        truncate: Whether truncating by path is let through; Landlock before version 3 doesn't
            govern it.
        programs: Whether exec is let through where fork isn't, so that this process may become
            another program.
        more: Whether one more filter may be put on top, by the launcher itself.
        shared_memory: Whether memory may be shared between processes other than through files:
            what one has filled and others merely hold is in nobody's resident memory, which is
            what is measured where there are several.
    """
    audit, numbers = ARCHITECTURES[machine]
    rules = _rules()
    answers: dict[str, int] = dict.fromkeys(_ALLOWED, _ALLOW)
    answers.update(dict.fromkeys(_REFUSED, _ERRNO | errno.EPERM))
    answers.update(dict.fromkeys(_ATTRIBUTES, _ERRNO | errno.EOPNOTSUPP))
    answers.update(dict.fromkeys(_METADATA, _ERRNO if reduced else _ALLOW))
    answers["truncate"] = answers["creat"] = _ALLOW if truncate else _ERRNO | errno.EPERM
    if reduced:
        # A folder that its owner can't list couldn't be measured from outside.
        rules["umask"] = [[_is(0, 0, 0o700)]]
        rules["mkdir"] = [[_is(1, 0o700, 0o700)]]
        rules["mkdirat"] = [[_is(2, 0o700, 0o700)]]
        # Landlock hides what is in a file, not where a link leads. Nothing is taken for a link, so
        # that libraries which look for links go on; the kernel still follows them.
        answers["readlink"] = answers["readlinkat"] = _ERRNO | errno.EINVAL
        own = (0, own_pid or 0)
        rules.update({name: _one_of(0, *own) for name in _ABOUT_PROCESSES})
        rules["getpriority"] = [[_is(0, 0), *who] for who in _one_of(1, *own)]
    if own_pid is None:
        answers.update(dict.fromkeys([*_SIGNALS, "tkill", "rt_tgsigqueueinfo"], _ALLOW))
        if reduced:  # To all processes at once: Landlock lets only our own be reached.
            rules["kill"] = [[(0, 0, 0xFFFFFFFF, 0xFFFFFFFF, False)]]
    else:
        rules.update({name: [[_is(0, own_pid)]] for name in _SIGNALS})
        answers.update(dict.fromkeys(["tkill", "rt_tgsigqueueinfo"], _ERRNO | errno.EPERM))
    if processes:
        answers.update(dict.fromkeys([*_FORK, *_EXEC], _ALLOW))
        rules["clone"] = [[_is(0, 0, _CLONE_REFUSED)]]
    else:
        answers.update(dict.fromkeys(_FORK, _ERRNO | errno.EPERM))
        answers.update(dict.fromkeys(_EXEC, _ALLOW if programs else _ERRNO | errno.EPERM))
        rules["clone"] = [[_is(0, _CLONE_THREAD, _CLONE_REFUSED | _CLONE_THREAD)]]
    if not shared_memory:
        # MAP_SHARED and MAP_ANONYMOUS together.
        rules["mmap"] = [[(3, 0, 0x21, 0x21, False)]]
    if more:
        rules["prctl"] = [*rules["prctl"], [_is(0, 22)]]  # PR_SET_SECCOMP
    return _assemble(audit, numbers, answers, rules, default=_ERRNO | errno.ENOSYS)


def no_fork_filter(machine: str, *, programs: bool = False) -> bytes:
    """A filter to put on top of the base: threads yes, other processes no, and programs if said."""
    audit, numbers = ARCHITECTURES[machine]
    refused = _FORK if programs else [*_FORK, *_EXEC]
    answers: dict[str, int] = dict.fromkeys(refused, _ERRNO | errno.EPERM)
    rules: dict[str, _Rule] = {
        "clone": [[_is(0, _CLONE_THREAD, _CLONE_THREAD)]],
        "prctl": [[(0, 0, 0xFFFFFFFF, 22, False)]],
    }
    return _assemble(audit, numbers, answers, rules, default=_ALLOW)


def asking_filter(machine: str, *, processes: bool) -> bytes:
    """A filter that has every fork decided by whoever holds its listener; threads are let through.

    Programs are let through only with `processes`. A base filter that lets fork through goes on
    top: of two answers the kernel takes the stricter.
    """
    audit, numbers = ARCHITECTURES[machine]
    refused = _ERRNO | errno.EPERM
    answers: dict[str, int] = dict.fromkeys(_FORK, _ASK if processes else refused)
    answers.update(dict.fromkeys(_EXEC, _ALLOW if processes else refused))
    rules: dict[str, _Rule] = {"clone": [[_is(0, _CLONE_THREAD, _CLONE_THREAD)]]}
    return _assemble(audit, numbers, answers, rules, default=_ALLOW, otherwise=_ASK)


def refusing_filter(machine: str, numbers: list[int], *, error: int) -> bytes:
    """A filter that answers `error` to these call numbers and lets the rest through."""
    audit, _ = ARCHITECTURES[machine]
    named = {str(number): number for number in numbers}
    return _assemble(audit, named, dict.fromkeys(named, _ERRNO | error), {}, default=_ALLOW)


def _assemble(
    audit: int,
    numbers: dict[str, int],
    answers: dict[str, int],
    rules: dict[str, _Rule],
    *,
    default: int,
    otherwise: int = _ERRNO | errno.EPERM,
) -> bytes:
    code = [
        _op(_LD_WORD, 4),
        _op(_JEQ, audit, 1, 0),
        _op(_RET, _KILL),
        _op(_LD_WORD, 0),
        # x32 calls carry bit 30 under the x86_64 audit value.
        _op(_JGE, 0x40000000, 0, 1),
        _op(_RET, _KILL),
    ]
    for name, answer in answers.items():
        if name in numbers and name not in rules:
            code += [_op(_JEQ, numbers[name], 0, 1), _op(_RET, answer)]
    for name, rule in rules.items():
        if name in numbers:
            block = _block(rule, otherwise)
            code += [_op(_JEQ, numbers[name], 0, len(block)), *block]
    code.append(_op(_RET, default))
    return b"".join(code)


def _block(rule: _Rule, otherwise: int) -> list[bytes]:
    block: list[bytes] = []
    for alternative in rule:
        tests: list[bytes] = []
        # Counted from the end, so that a failed test knows how far it is to the next alternative.
        left = sum(2 + (mask != 0xFFFFFFFF) for _, _, mask, _, _ in alternative)
        for argument, half, mask, value, equal in alternative:
            tests.append(_op(_LD_WORD, 16 + 8 * argument + 4 * half))
            if mask != 0xFFFFFFFF:
                tests.append(_op(_AND, mask))
            left -= 2 + (mask != 0xFFFFFFFF)
            out = left + 1
            tests.append(_op(_JEQ, value, 0 if equal else out, out if equal else 0))
        block += [*tests, _op(_RET, _ALLOW)]
    block.append(_op(_RET, otherwise))
    return block


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)
