"""The system call filter, for each machine it knows, run by an interpreter of the kernel's BPF.

On the machine at hand the attacks show what it stops; this shows the same of the other's table.
"""

from __future__ import annotations

import errno
import struct

import pytest

from corral.tools.sandbox._seccomp import ARCHITECTURES, base_filter, no_fork_filter

ALLOW, KILL = "allow", "kill"
THREAD = 0x3D0F00  # The flags that glibc starts a thread with.


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> str | int:
    """What the kernel would answer: `allow`, `kill`, or the error's number (0: not done)."""
    six = [a & 0xFFFFFFFFFFFFFFFF for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number, audit, 0, *six)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x15:
            at += if_true if accumulator == k else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= k else if_false
        else:
            assert operation == 0x06
            action, detail = k & 0xFFFF0000, k & 0xFFFF
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(action, detail)


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


CASES = [
    ("read", (0,), ALLOW),
    ("openat", (0, 0, 0o100), ALLOW),
    ("openat", (0, 0, 0o1000), errno.EPERM),
    ("openat", (0, 0, 0o1001), ALLOW),
    ("socket", (2, 1), errno.EPERM),
    ("socket", (40, 1), errno.EPERM),
    ("socketpair", (1, 1 | 0o2000000), ALLOW),
    ("socketpair", (1, 2), errno.EPERM),
    ("socketpair", (2, 1), errno.EPERM),
    ("sendto", (3, 1, 1, 0, 0), ALLOW),
    ("sendto", (3, 1, 1, 0, 0x1000), errno.EPERM),
    ("sendto", (3, 1, 1, 0, 1 << 32), errno.EPERM),
    ("connect", (3,), errno.EPERM),
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), errno.EPERM),
    ("clone", (THREAD | 0x10000000,), errno.EPERM),
    ("clone3", (), errno.ENOSYS),
    ("execve", (), errno.EPERM),
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412), errno.EPERM),
    ("ioctl", (0, 0x5412 | 1 << 32), errno.EPERM),
    ("fcntl", (0, 3), ALLOW),
    ("fcntl", (0, 8), errno.EPERM),
    ("prctl", (15,), ALLOW),
    ("prctl", (22,), errno.EPERM),
    ("prlimit64", (0,), ALLOW),
    ("prlimit64", (1,), errno.EPERM),
    ("kill", (77, 9), ALLOW),
    ("kill", (78, 9), errno.EPERM),
    ("kill", (-1, 9), errno.EPERM),
    ("tkill", (77, 9), errno.EPERM),
    ("truncate", (), errno.EPERM),
    ("fchmodat", (0, 0, 0o777), 0),
    ("fchownat", (), 0),
    ("mkdirat", (0, 0, 0o777), ALLOW),
    ("mkdirat", (0, 0, 0o300), errno.EPERM),
    ("umask", (0o022,), ALLOW),
    ("umask", (0o700,), errno.EPERM),
    ("mount", (), errno.EPERM),
    ("unshare", (), errno.EPERM),
    ("ptrace", (), errno.EPERM),
    ("keyctl", (), errno.EPERM),
    ("userfaultfd", (), errno.EPERM),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_a_call_is_answered_as_meant(
    name: str, arguments: tuple[int, ...], expected: str | int, machine: str
) -> None:
    audit, numbers = ARCHITECTURES[machine]
    program = base_filter(machine, reduced=True, processes=False, own_pid=77, truncate=False)
    assert verdict(program, audit, numbers[name], *arguments) == expected


def test_a_call_by_another_table_kills(machine: str) -> None:
    audit, numbers = ARCHITECTURES[machine]
    for program in (
        base_filter(machine, reduced=False, processes=True, own_pid=None, truncate=True),
        no_fork_filter(machine),
    ):
        assert verdict(program, audit ^ 0x80000000, numbers["read"]) == KILL
        assert verdict(program, 0x40000003, numbers["read"]) == KILL
        assert verdict(program, audit, numbers["read"] | 0x40000000) == KILL


def test_every_number_that_is_not_listed_is_refused(machine: str) -> None:
    audit, numbers = ARCHITECTURES[machine]
    program = base_filter(machine, reduced=False, processes=True, own_pid=None, truncate=True)
    listed = set(numbers.values())
    for number in range(1000):
        if number not in listed:
            assert verdict(program, audit, number) == errno.ENOSYS


def test_processes_may_start_where_they_are_allowed_but_not_elsewhere(machine: str) -> None:
    audit, numbers = ARCHITECTURES[machine]
    program = base_filter(machine, reduced=False, processes=True, own_pid=None, truncate=True)
    assert verdict(program, audit, numbers["clone"], 17) == ALLOW
    assert verdict(program, audit, numbers["execve"]) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000):
        assert verdict(program, audit, numbers["clone"], 17 | flag) == errno.EPERM
    above = no_fork_filter(machine)
    assert verdict(above, audit, numbers["clone"], 17) == errno.EPERM
    assert verdict(above, audit, numbers["clone"], THREAD) == ALLOW
    assert verdict(above, audit, numbers["execveat"]) == errno.EPERM
    assert verdict(above, audit, numbers["prctl"], 22) == errno.EPERM
    assert verdict(above, audit, numbers["read"]) == ALLOW
