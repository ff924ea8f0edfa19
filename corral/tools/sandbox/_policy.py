"""What the host tells the confined side about one call, before it locks itself down."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Policy", "Request"]


class Request(TypedDict, total=False):
    """What the confined process is to run, read when it is already locked: Python, or a command."""

    source: str
    argv: list[str]
    files: dict[str, bytes]
    """Files to write into the working directory first, by relative path."""


class Policy(TypedDict):
    """Plain data, resolved on the host: the confined side decides nothing, it only carries out."""

    level: str
    """`namespaces`, `bubblewrap` or `reduced`."""
    bubblewrap: str
    """The path of `bwrap`, on its level; else empty."""
    user: int | None
    """The unprivileged user to become, where the caller is root."""
    binds: list[tuple[str, str]]
    """Real paths to see inside, parents first, each `read`, `run`, `write` or `device`; or `data`,
    which is to be read, and is seen at `/data` where there are namespaces.
    """
    data: str
    """Where the data folder is seen, for a link `data` in the working directory, or empty."""
    links: list[tuple[str, str]]
    """Symbolic links to make inside, each with its target, so that names lead to the real paths."""
    python_path: list[str]
    """Folders of installed packages, to go behind the standard library on `sys.path`."""
    temporary: str
    """The host's folder for temporary files, where the reduced level makes its workspace."""
    programs: bool
    """Whether the process may become another program, where it may start none beside itself."""
    processes: int
    threads: int
    cpu_seconds: int
    memory_bytes: int
    disk_bytes: int
    files: int
    session: bool
    """Whether cells are to come one after another, and not one program."""
    preload: list[str]
    """Modules to import before the program is there."""
    idle_seconds: float
    """After how long without anything to do the worker ends by itself; 0 for never."""
    results: int
    """The descriptor on which a session's results go to the host, or -1."""
    folder: int
    """The socket on which the host is sent a descriptor of the workspace, or -1."""
    gate: int
    """The socket on which the supervisor is sent the listener of a session's forks, or -1."""
    alive: int
    """A pipe's end by which a process sees whether the supervisor is gone, or -1."""
    landlock: int
    """The newest Landlock version to use; 0, in tests, leaves that layer out."""
    without: list[str]
    """Layers to leave out, for tests that show what each stops.

    `seccomp`, `limits`, `user`, `capabilities`, `descriptors`.
    """
