"""Which of the host's files a program needs to see: the libraries of the system and of Python."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from corral.errors import ConfigError, SandboxUnavailable
from corral.tools.sandbox import _bubblewrap
from corral.tools.sandbox._namespaces import DATA
from corral.tools.sandbox._policy import Policy
from corral.tools.sandbox.permissions import Level, Permissions

__all__ = ["NEWEST_LANDLOCK", "environment", "policy_for"]

NEWEST_LANDLOCK = 1000
"""Whatever the kernel has."""

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
_PROGRAMS = ("/bin", "/usr/bin", "/usr/local/bin")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_UNPRIVILEGED = 65534
_CORRAL = str(Path(__file__).resolve().parents[2])
_THREADS = 64


def policy_for(
    permissions: Permissions,
    level: Level,
    *,
    programs: bool = False,
    session: bool = False,
    data: Path | None = None,
    preload: Sequence[str] = (),
    idle_seconds: float = 0.0,
    without: frozenset[str] = frozenset(),
    landlock: int = NEWEST_LANDLOCK,
) -> Policy:
    """What the confined side is told for one call.

    Raises:
        ConfigError: If a granted path doesn't exist, or for any `network`.
    """
    permissions.check_program()
    grants = [(path, "read") for path in permissions.read] + [
        (path, "write") for path in permissions.write
    ]
    for path, kind in grants:
        if not path.exists():
            raise ConfigError(
                f"Permission {kind}={str(path)!r} names nothing. Create it, or take it out."
            )
    if data is not None and not data.is_dir():
        raise ConfigError(f"The data folder {str(data)!r} is no folder. Name one that exists.")
    runs = programs or permissions.processes > 0
    binds, links = _places(runs)
    _keep_from_own_code(permissions.write, [path for path, _ in binds])
    kinds = {path: kind for path, kind in binds}
    if permissions.processes:
        del kinds["/dev/zero"]  # Mapped, it is memory that several share and nobody counts.
    kinds.update({str(path): "run" if runs and kind == "read" else kind for path, kind in grants})
    placed = sorted(kinds.items(), key=lambda bind: bind[0].count("/"))
    seen_at = ""
    if data is not None:
        placed.append((str(data), "data"))
        seen_at = str(data) if level == "reduced" else DATA
    return Policy(
        level=level,
        bubblewrap=_found_bubblewrap() if level == "bubblewrap" else "",
        user=_UNPRIVILEGED if os.geteuid() == 0 and "user" not in without else None,
        binds=placed,
        data=seen_at,
        links=list(links),
        python_path=list(_packages()),
        temporary=_temporary(),
        programs=programs,
        processes=permissions.processes,
        threads=_THREADS,
        session=session,
        preload=list(preload),
        idle_seconds=idle_seconds,
        results=-1,
        folder=-1,
        gate=-1,
        alive=-1,
        cpu_seconds=max(1, -int(-permissions.cpu_seconds // 1)),
        memory_bytes=permissions.memory_bytes,
        disk_bytes=permissions.disk_bytes,
        files=permissions.files,
        landlock=landlock,
        without=sorted(without),
    )


def environment(permissions: Permissions, *, programs: bool = False) -> dict[str, str]:
    """The program's whole environment, but for HOME, TMPDIR and the like, which are set inside.

    With `programs`, the folder of the Python that runs Corral leads its PATH.
    """
    own = f"{os.path.dirname(sys.executable)}:" if programs else ""
    plain = {
        "PATH": f"{own}/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "sandbox",
        "MPLBACKEND": "Agg",
        # Linear algebra libraries start a thread a core, each with address space that counts
        # against the limit.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        # Some builds find their own library only by this.
        plain["LD_LIBRARY_PATH"] = os.path.join(sys.base_prefix, "lib")
    plain.update({name: os.environ[name] for name in permissions.env if name in os.environ})
    return plain


def _keep_from_own_code(granted: tuple[Path, ...], places: list[str]) -> None:
    """Refuse to have the code changed that Corral itself runs, outside the sandbox.

    It would be run there the next time. Such a grant would also have mounts made below a folder
    that untrusted code writes.
    """
    for own in (*places, _CORRAL):
        for path in granted:
            if path.is_relative_to(own) or Path(own).is_relative_to(path):
                raise ConfigError(
                    f"Permission write={str(path)!r} holds or lies in {own!r}, whose code runs "
                    "outside the sandbox as well. Grant a folder for data alone."
                )


def _found_bubblewrap() -> str:
    try:
        return _bubblewrap.find()
    except OSError as error:
        raise SandboxUnavailable(
            f"The level 'bubblewrap' can't be had: {error}. Nothing was run. "
            "Install bubblewrap 0.12 or later."
        ) from error


def _temporary() -> str:
    import tempfile

    return os.path.realpath(tempfile.gettempdir())


@functools.cache
def _packages() -> tuple[str, ...]:
    """The folders of installed packages that this interpreter imports from."""
    names = ("site-packages", "dist-packages")
    return tuple(p for p in sys.path if os.path.basename(p) in names and os.path.isdir(p))


@functools.cache
def _places(programs: bool) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Real paths and their kinds, none below another, and the links that lead to them."""
    if not sys.executable:
        raise SandboxUnavailable(
            "The sandbox needs a Python to start, and sys.executable is empty here. "
            "Run Corral with a plain Python."
        )
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    wanted = [*_SYSTEM, *_packages(), os.path.dirname(os.__file__)]
    wanted += [os.path.join(prefix, name) for prefix in prefixes for name in ("lib", "lib64")]
    if any(prefix.startswith("/nix/store/") for prefix in prefixes):
        wanted.append("/nix/store")
    if programs:
        wanted += [*_PROGRAMS, *(os.path.join(prefix, "bin") for prefix in prefixes)]
        wanted.append(os.path.dirname(os.path.realpath(sys.executable)))
        # Of a virtual environment, what makes its Python find the packages.
        wanted += [os.path.dirname(sys.executable), os.path.join(sys.prefix, "pyvenv.cfg")]
    links: dict[str, str] = {}
    real: set[str] = set()
    for path in wanted:
        if os.path.exists(path):
            real.add(_followed(path, links))
    kept: list[str] = []
    for path in sorted(real, key=lambda p: (p.count("/"), p)):
        if not any(Path(path).is_relative_to(parent) for parent in kept):
            kept.append(path)
    binds = [(path, "run" if programs else "read") for path in kept]
    binds += [(path, "device") for path in _DEVICES if os.path.exists(path)]
    # A link that lies in one of the places is seen there anyway.
    outside = {p: t for p, t in links.items() if not any(Path(p).is_relative_to(k) for k in kept)}
    return tuple(binds), tuple(outside.items())


def _followed(path: str, links: dict[str, str]) -> str:
    """The real path of `path`; each symbolic link on the way is noted in `links`, as written."""
    resolved = "/"
    rest = [part for part in path.split("/") if part]
    for _ in range(1000):
        if not rest:
            return resolved
        here = os.path.normpath(os.path.join(resolved, rest.pop(0)))
        if not os.path.islink(here):
            resolved = here
            continue
        target = os.readlink(here)
        links[here] = target
        if target.startswith("/"):
            resolved = "/"
        rest = [part for part in target.split("/") if part] + rest
    raise SandboxUnavailable(
        f"The path {path!r} goes round in symbolic links. Mend the installation."
    )
