"""Runs programs that nobody has vouched for, with the permissions declared and nothing else.

The idea: a fresh interpreter is started with an empty environment; it takes away from itself, by
the kernel's own means, everything that the permissions don't grant; it reports that each layer is
in place; and only then does it read the program. Where a layer can't be had, the program is not
run.

Layers, on every level: scrubbed environment and descriptors, an unprivileged user where Corral runs
as root, no capabilities, no new privileges, resource limits, Landlock (files, TCP, signals), a
system call allow-list. On the levels `namespaces` and `bubblewrap` all of that happens inside a
file system, process table, network and user table of the program's own.
"""

from __future__ import annotations

from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.pool import PythonPool
from corral.tools.sandbox.probe import SandboxReport, probe
from corral.tools.sandbox.result import CellResult, CellState, Limit, MadeFile, SandboxResult
from corral.tools.sandbox.run import run_program, run_python
from corral.tools.sandbox.session import PythonSession
from corral.tools.sandbox.untrusted_json import read_untrusted_json

__all__ = [
    "CellResult",
    "CellState",
    "Level",
    "Limit",
    "MadeFile",
    "Permissions",
    "PythonPool",
    "PythonSession",
    "SandboxReport",
    "SandboxResult",
    "probe",
    "read_untrusted_json",
    "run_program",
    "run_python",
]
