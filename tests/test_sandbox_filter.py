"""The system call filter, for each machine it knows, run by an interpreter of the kernel's BPF.

On the machine at hand the attacks show what it stops; this shows the same of the other's table.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.tools.sandbox._seccomp import (
    ARCHITECTURES,
    asking_filter,
    base_filter,
    no_fork_filter,
)

ALLOW, KILL, ASK = "allow", "kill", "ask"
THREAD = 0x3D0F00  # The flags that glibc starts a thread with.


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> str | int:
    """What the kernel would answer: `allow`, `kill`, `ask`, or the error's number (0: not done)."""
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
            if action == 0x00050000:
                return detail
            return {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x7FC00000: ASK}[action]


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
    ("futex", (0, 0), ALLOW),
    ("futex", (0, 128 | 9), ALLOW),
    ("futex", (0, 6), errno.EPERM),
    ("futex", (0, 128 | 12), errno.EPERM),
    ("clock_gettime", (7,), ALLOW),
    ("clock_gettime", (~77 << 3 | 2,), errno.EPERM),
    ("clock_nanosleep", ((~77 << 3 | 6) & 0xFFFFFFFF,), errno.EPERM),
    ("setsockopt", (3, 1, 2), ALLOW),
    ("setsockopt", (3, 1, 7), errno.EPERM),
    ("setsockopt", (3, 1, 26), errno.EPERM),
    ("setsockopt", (3, 6, 2), errno.EPERM),
    ("getxattr", (), errno.EOPNOTSUPP),
    ("readlinkat", (), errno.EINVAL),
    ("getpgid", (0,), ALLOW),
    ("getpgid", (77,), ALLOW),
    ("getpgid", (78,), errno.EPERM),
    ("getpriority", (0, 78), errno.EPERM),
    ("getpriority", (2, 0), errno.EPERM),
    ("sched_getaffinity", (78,), errno.EPERM),
    ("splice", (), errno.ENOSYS),
    ("timer_create", (), errno.ENOSYS),
    ("madvise", (0, 0, 4), ALLOW),
    ("madvise", (0, 0, 21), errno.EPERM),
    ("mmap", (0, 0, 0, 0x21), ALLOW),
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


BASES = [
    base_filter(
        machine,
        reduced=reduced,
        processes=processes,
        own_pid=own,
        truncate=reduced,
        more=reduced,
        shared_memory=not processes,
    )
    for machine in ARCHITECTURES
    for reduced in (False, True)
    for processes in (False, True)
    for own in (None, 77)
]
PROGRAMS = [
    *BASES,
    *(no_fork_filter(machine, programs=p) for machine in ARCHITECTURES for p in (False, True)),
    *(asking_filter(machine, processes=p) for machine in ARCHITECTURES for p in (False, True)),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_filter_is_one_that_the_kernel_takes(program: bytes) -> None:
    """By the rules of its checker: whole, in reach, forward alone, and ended by an answer."""
    code = list(struct.iter_unpack("<HBBI", program))
    assert 0 < len(code) <= 4096
    for at, (operation, if_true, if_false, k) in enumerate(code):
        assert operation in (0x20, 0x54, 0x15, 0x35, 0x06)
        if operation == 0x20:
            assert k % 4 == 0 and k < 64
        if operation in (0x15, 0x35):
            assert at + 1 + max(if_true, if_false) < len(code)
    assert code[-1][0] == 0x06


@settings(deadline=None, database=None, max_examples=300)
@given(
    st.sampled_from(PROGRAMS),
    st.sampled_from([audit for audit, _ in ARCHITECTURES.values()]) | st.integers(0, 2**32 - 1),
    st.integers(0, 600) | st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 255) | st.integers(0, 2**64 - 1), max_size=6),
)
def test_whatever_is_called_gets_an_answer(
    program: bytes, audit: int, number: int, arguments: list[int]
) -> None:
    answer = verdict(program, audit, number, *arguments)
    if audit not in (known for known, _ in ARCHITECTURES.values()) or number >= 0x40000000:
        assert answer == KILL


@pytest.mark.parametrize("other", [m for m in sorted(ARCHITECTURES) if m != os.uname().machine])
def test_the_kernel_takes_the_other_machines_filter(other: str) -> None:
    """Here every call is then one by another machine's table, so the first one is the end."""
    script = (
        "from corral.tools.sandbox import _libc, _seccomp\n"
        f"program = _seccomp.base_filter({other!r}, reduced=True, processes=False, own_pid=1, "
        "truncate=False)\n"
        "_libc.prctl(38, 1)\n"
        "print('before', flush=True)\n"
        "_libc.set_filter(program)\n"
        "print('after', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"before\n", done.stderr
    assert done.returncode == -signal.SIGSYS


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def test_the_numbers_are_those_of_the_kernels_own_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no kernel headers here: {HEADERS[machine]}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", HEADERS[machine].read_text())
    header = {name: int(number) for name, number in found}
    header.setdefault("newfstatat", header.get("fstatat", 0))
    _, numbers = ARCHITECTURES[machine]
    known = {name: number for name, number in numbers.items() if name in header}
    assert len(known) > 0.95 * len(numbers)  # The headers may be older than some calls.
    assert known == {name: header[name] for name in known}
    # What both machines have is in both tables, or a rule would be missing on one.
    (other,) = (table for name, (_, table) in ARCHITECTURES.items() if name != machine)
    assert not [name for name in other if name not in numbers and name in header]


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
    assert verdict(program, audit, numbers["prctl"], 22) == errno.EPERM
    apart = base_filter(
        machine, reduced=False, processes=True, own_pid=None, truncate=True, shared_memory=False
    )
    for flags, expected in ((0x21, errno.EPERM), (0x23, errno.EPERM), (0x22, ALLOW), (1, ALLOW)):
        assert verdict(apart, audit, numbers["mmap"], 0, 0, 0, flags) == expected
    above = no_fork_filter(machine)
    assert verdict(above, audit, numbers["clone"], 17) == errno.EPERM
    assert verdict(above, audit, numbers["clone"], THREAD) == ALLOW
    assert verdict(above, audit, numbers["execveat"]) == errno.EPERM
    assert verdict(above, audit, numbers["prctl"], 22) == errno.EPERM
    assert verdict(above, audit, numbers["read"]) == ALLOW


@pytest.mark.parametrize("processes", [False, True])
def test_forks_are_asked_about_and_programs_are_not_started(machine: str, processes: bool) -> None:
    audit, numbers = ARCHITECTURES[machine]
    program = asking_filter(machine, processes=processes)

    def answer(name: str, *arguments: int) -> str | int:
        return verdict(program, audit, numbers[name], *arguments)

    assert answer("clone", 17) == ASK
    assert answer("clone", THREAD) == ALLOW
    assert answer("execve") == (ALLOW if processes else errno.EPERM)
    assert answer("execveat") == (ALLOW if processes else errno.EPERM)
    if "fork" in numbers:
        assert answer("fork") == answer("vfork") == (ASK if processes else errno.EPERM)
    assert answer("read") == ALLOW
    assert verdict(program, audit ^ 1, numbers["read"]) == KILL
