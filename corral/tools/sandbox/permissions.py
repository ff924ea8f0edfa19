"""What untrusted code may do: nothing, until it is allowed by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from corral.errors import ConfigError
from corral.tools.sandbox import _network

__all__ = ["LEVELS", "Level", "Permissions"]

Level = Literal["reduced", "bubblewrap", "namespaces"]
"""How strongly code is confined.

- `namespaces`: the code sees a file system, a process table and a network of its own, and is locked
  down in them.
- `bubblewrap`: the same with the system's `bwrap` making them, for machines that let only chosen
  programs do so. How many files there are is enforced by looking every few milliseconds, and there
  is no /proc.
- `reduced`: the same lock-down without those. Whether a file of the user's exists can be found out
  (never what is in it), and the disk quota is enforced by looking every few milliseconds.
"""

LEVELS: tuple[Level, ...] = ("reduced", "bubblewrap", "namespaces")
"""Every level, the weakest first."""

_KERNEL_TREES = (Path("/proc"), Path("/sys"), Path("/dev"), Path("/run"))
# Variables that change how programs load code: letting the user's through would hand the sandbox a
# path into the host.
_LOADER_PREFIXES = ("LD_", "PYTHON", "GLIBC_", "DYLD_", "MALLOC_")
_LOADER_NAMES = frozenset(("BASH_ENV", "ENV", "GCONV_PATH", "IFS", "LOCPATH", "NLSPATH"))

_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Permissions(BaseModel):
    """What a program in the sandbox may read, write and use up: by default, nothing. Frozen.

    Plain data that goes through JSON and YAML unchanged. Paths are made absolute, with their
    symbolic links resolved, when the permissions are made, not when they are used.

    Attributes:
        read: Files and folders that may be read, seen inside at the same path.
        write: Files and folders that may be read and changed. When Corral runs as root the code
            runs as user 65534, so a granted path must also be open to that user.
        network: Hosts that a tool running in Corral itself may reach, as `api.example.com`,
            `*.example.com:443` or `127.0.0.1:8080`. Code in the sandbox gets no socket at all, so
            a program that is given this list is refused rather than run without it being enforced.
        env: Names of environment variables whose values are passed in.
        wall_seconds: Time on the clock, after which everything is killed.
        cpu_seconds: Processor time of one process, rounded up to whole seconds.
        memory_bytes: Address space of one process; where `processes` is not 0, their resident
            memory together as well.
        disk_bytes: What may be written into the workspace and its temporary folder together.
        files: How many files and folders may be made there.
        processes: How many processes beyond the first; 0 refuses fork and exec. More needs level
            `bubblewrap` or `namespaces`. Threads count as well there, of which 64 are everyone's.
        output_bytes: How much is kept of each of the two output streams; the rest is read and
            dropped.
        min_level: The weakest confinement under which the code may run at all.

    Raises:
        ConfigError: For a path that is relative, or is `/`, the home folder or above it, or one of
            the kernel's own trees; for a readable path below a writable one; for a `network` entry
            that is no host; for an `env` name that steers a loader.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    wall_seconds: _Seconds = 20.0
    cpu_seconds: _Seconds = 10.0
    memory_bytes: Annotated[int, Field(ge=32 << 20)] = 1 << 30
    disk_bytes: Annotated[int, Field(ge=64 << 10)] = 64 << 20
    files: Annotated[int, Field(ge=8)] = 4096
    processes: Annotated[int, Field(ge=0, le=256)] = 0
    output_bytes: Annotated[int, Field(ge=1)] = 1 << 20
    min_level: Level = "reduced"

    @field_validator("read", "write")
    @classmethod
    def _resolved(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(_grantable(path) for path in paths))

    @field_validator("network")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(_network.parsed(host)) for host in hosts))

    @field_validator("env")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            plain = name and "=" not in name and "\0" not in name and name not in _LOADER_NAMES
            if not plain or name.startswith(_LOADER_PREFIXES):
                raise ConfigError(
                    f"Permission env names {name!r}, which can't be passed into the sandbox. "
                    "Name a plain variable, such as 'TZ'."
                )
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _no_read_below_write(self) -> Permissions:
        for path in self.read:
            for parent in self.write:
                if path != parent and path.is_relative_to(parent):
                    raise ConfigError(
                        f"Permission read={str(path)!r} lies inside write={str(parent)!r}, so it "
                        "could be swapped by the code that it should bind. Grant only one of them."
                    )
        return self

    def narrowed(self, ceiling: Permissions) -> Permissions:
        """The permissions that both `self` and `ceiling` grant: never wider than either.

        Paths are kept as they were resolved when each was made: what lies on the disk now can't
        widen them.
        """
        write = _shared(self.write, ceiling.write)
        read = _shared((*self.read, *self.write), (*ceiling.read, *ceiling.write))
        limits = {name: min(getattr(self, name), getattr(ceiling, name)) for name in _LIMITS}
        return self.model_copy(
            update={
                "read": tuple(p for p in read if not any(p.is_relative_to(w) for w in write)),
                "write": write,
                "network": _network.shared(self.network, ceiling.network),
                "env": tuple(name for name in self.env if name in ceiling.env),
                "min_level": max(self.min_level, ceiling.min_level, key=LEVELS.index),
                **limits,
            }
        )

    def allows_host(self, host: str, port: int) -> bool:
        """Whether `network` lets a tool that runs in Corral itself connect to `port` of `host`."""
        return _network.allows(self.network, host, port)

    def check_program(self) -> None:
        """See that these can be enforced for a program in the sandbox.

        Raises:
            ConfigError: For any `network`: the kernel has no means to grant a program some hosts
                and not others, so it is granted none.
        """
        if self.network:
            raise ConfigError(
                f"Permission network={list(self.network)!r} can't be granted to a program: code in "
                "the sandbox gets no sockets. Fetch what it needs in a tool of your own, and leave "
                "network empty for this one."
            )

    def describe(self) -> str:
        """Everything that is granted, in one line for a person."""
        processes = f"{self.processes} more processes" if self.processes else "one process"
        parts = (
            f"reads {_named(self.read)}",
            f"writes {_named(self.write)}",
            f"network {', '.join(self.network) or 'none'}",
            f"variables {', '.join(self.env) or 'none'}",
            f"{self.wall_seconds:g} s ({self.cpu_seconds:g} s of processor)",
            f"{_size(self.memory_bytes)} memory",
            f"{_size(self.disk_bytes)} disk in {self.files} files",
            processes,
            f"{_size(self.output_bytes)} output",
            f"level {self.min_level}{'' if self.min_level == LEVELS[-1] else ' or stronger'}",
        )
        return "; ".join(parts)

    def __str__(self) -> str:
        """The same as `describe()`."""
        return self.describe()


_LIMITS = (
    "wall_seconds",
    "cpu_seconds",
    "memory_bytes",
    "disk_bytes",
    "files",
    "processes",
    "output_bytes",
)


def _named(paths: tuple[Path, ...]) -> str:
    return ", ".join(_printable(str(path)) for path in paths) or "nothing"


def _printable(text: str) -> str:
    # A file's name must neither act on the terminal nor pass for more of the line.
    return text if text.isprintable() and not set(text) & set(",;") else ascii(text)


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _grantable(path: Path) -> Path:
    """`path` with links resolved, or ConfigError when no tool should ever be granted it."""
    if not path.is_absolute() and not str(path).startswith("~"):
        raise ConfigError(
            f"Permission path {str(path)!r} is relative. Write it out from '/' or '~'."
        )
    resolved = path.expanduser().resolve()
    if _home().is_relative_to(resolved):
        raise ConfigError(
            f"Permission path {str(path)!r} is or holds the home folder. "
            "Grant a folder inside it instead."
        )
    if any(
        resolved.is_relative_to(tree) or tree.is_relative_to(resolved) for tree in _KERNEL_TREES
    ):
        raise ConfigError(
            f"Permission path {str(path)!r} belongs to the system. "
            "Copy what is needed to a folder and grant that."
        )
    return resolved


def _home() -> Path:
    try:
        return Path.home().resolve()
    except RuntimeError:  # A user without one, as in some containers.
        return Path("/")


def _shared(ours: tuple[Path, ...], theirs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The trees that lie in one of `ours` and in one of `theirs`."""
    shared: dict[Path, None] = {}
    for a in ours:
        for b in theirs:
            if a.is_relative_to(b):
                shared[a] = None
            elif b.is_relative_to(a):
                shared[b] = None
    return tuple(shared)
