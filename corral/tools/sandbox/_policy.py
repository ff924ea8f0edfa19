"""What the host tells the confined side about one call, before it locks itself down."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Policy"]


class Policy(TypedDict):
    """Plain data, resolved on the host: the confined side decides nothing, it only carries out."""

    level: str
    """`namespaces` or `reduced`."""
    user: int | None
    """The unprivileged user to become, where the caller is root."""
    binds: list[tuple[str, str]]
    """Real paths to see inside, parents first, each `read`, `run`, `write` or `device`."""
    links: list[tuple[str, str]]
    """Symbolic links to make inside, each with its target, so that names lead to the real paths."""
    python_path: list[str]
    """Folders of installed packages, to go behind the standard library on `sys.path`."""
    temporary: str
    """The host's folder for temporary files, where the reduced level makes its workspace."""
    processes: int
    threads: int
    cpu_seconds: int
    memory_bytes: int
    disk_bytes: int
    files: int
    landlock: int
    """The newest Landlock version to use; 0, in tests, leaves that layer out."""
    without: list[str]
    """Layers to leave out, for tests that show what each stops: `seccomp`, `limits`."""
