"""A Llama checkpoint's matrices, put together as the engine multiplies them, exact or in 8 bits.

Converting takes much longer than reading what was converted, so the result lies in Corral's cache
folder and is mapped the next time. It is made anew when the checkpoint's files have changed, and
removed once it has not been used for a month and another model's is kept.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from corral.model_runtime.cache import cache_root
from corral.model_runtime.local.checkpoint import Checkpoint
from corral.model_runtime.local.kernels import Kernel, Linear, Quantised, no_deprecations, quantise

if TYPE_CHECKING:
    import torch

__all__ = [
    "EMBEDDING",
    "MATRICES",
    "Converted",
    "Exact",
    "Source",
    "Told",
    "converted_path",
    "prepare_all",
]

Told: TypeAlias = Callable[[int, int], None]
"""Called with how many steps are done, and how many there are."""

_FORMAT = 1
"""Raised when the converted weights are laid out in another way."""

_DAY = 86_400
_LIFE = {".safetensors": 30 * _DAY, ".part": _DAY}
"""Seconds after which a file is removed that nobody used, or that nobody finished."""

MATRICES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Matrices that take the same rows are multiplied as one."""

EMBEDDING = "model.embed_tokens.weight"
"""The tokens' vectors, which are the head as well where the checkpoint has no other."""


class Source(Protocol):
    """Matrices to convert."""

    def matrix(self, name: str) -> torch.Tensor:
        """One of them, of shape (out, in)."""
        ...

    def names(self) -> Iterable[str]:
        """All that `matrix` takes."""
        ...


class Exact:
    """The matrices as the checkpoint has them."""

    def __init__(self, checkpoint: Checkpoint, *, layers: int, device: str) -> None:
        """Read from a checkpoint of that many layers, onto a device."""
        self._checkpoint = checkpoint
        self._device = device
        self.layers = layers

    def matrix(self, name: str) -> torch.Tensor:
        """One matrix, of shape (out, in): `head`, or a layer's, such as `3.qkv`."""
        import torch

        tensors = [self._checkpoint.tensor(key) for key in self._keys(name)]
        return (torch.cat(tensors) if len(tensors) > 1 else tensors[0]).to(self._device)

    def names(self) -> Iterator[str]:
        """All that `matrix` takes."""
        for layer in range(self.layers):
            yield from (f"{layer}.{part}" for part in MATRICES)
        yield "head"

    def _keys(self, name: str) -> list[str]:
        if name == "head":
            return ["lm_head.weight" if "lm_head.weight" in self._checkpoint else EMBEDDING]
        layer, _, part = name.partition(".")
        return [f"model.layers.{layer}.{each}.weight" for each in MATRICES[part]]


class Converted:
    """The matrices in 8 bits, from the file where they are kept, or made now."""

    def __init__(self, checkpoint: Checkpoint, source: Source, *, tell: Told | None = None) -> None:
        """Find the converted weights, or convert them and keep them for the next time.

        Where they can't be kept, a warning says why and they stay in memory.

        Args:
            checkpoint: Where the matrices come from: it tells whether what is kept still holds.
            source: The matrices.
            tell: Told of the progress where they are converted.
        """
        path = converted_path(checkpoint)
        names = list(source.names())
        self._tensors = _kept(path, names) or _convert(source, names, path, tell)

    def matrix(self, name: str) -> Quantised:
        """One matrix of the source."""
        return Quantised(self._tensors(f"{name}.values"), self._tensors(f"{name}.scales"))


def prepare_all(
    kernel: Kernel, source: Source | Converted, names: Iterable[str]
) -> Mapping[str, Linear]:
    """The products with many matrices, by their names.

    Kernels pack a matrix on one thread and for longer than it takes to read, so as many are packed
    at once as there are threads.
    """
    import torch

    def prepared(name: str) -> Linear:
        return kernel.prepare(source.matrix(name))

    listed = list(names)
    with no_deprecations(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(listed, pool.map(prepared, listed), strict=True))


_Tensors: TypeAlias = "Callable[[str], torch.Tensor]"


def converted_path(checkpoint: Checkpoint) -> Path:
    """Where a checkpoint's converted weights are kept."""
    return cache_root() / "int8" / f"{checkpoint.digest}-{_FORMAT}.safetensors"


def _kept(path: Path, names: Sequence[str]) -> _Tensors | None:
    from safetensors import SafetensorError, safe_open

    opened: Any = safe_open
    try:
        file = opened(str(path), framework="pt")
    except (SafetensorError, OSError):
        return None  # not there, or damaged: made again
    needed = {f"{name}.{part}" for name in names for part in ("values", "scales")}
    if not needed <= set(file.keys()):
        return None
    with suppress(OSError):
        os.utime(path)  # still in use, which `_tidy` goes by
    return file.get_tensor


def _convert(source: Source, names: Sequence[str], path: Path, tell: Told | None) -> _Tensors:
    made: dict[str, torch.Tensor] = {}
    for done, name in enumerate(names, 1):
        quantised = quantise(source.matrix(name))
        made[f"{name}.values"], made[f"{name}.scales"] = quantised.values, quantised.scales
        if tell:
            tell(done, len(names))
    try:
        _keep(made, path)
    except OSError as error:
        warnings.warn(
            f"The converted weights can't be kept in {str(path.parent)!r} ({error}), so the next "
            "start will convert them again. Make room there, or set CORRAL_CACHE to another "
            "folder.",
            stacklevel=2,
        )
        return made.__getitem__
    return _kept(path, names) or made.__getitem__


def _keep(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a file whole or not at all, once what is old has made room. OSError says why not."""
    import safetensors.torch
    from safetensors import SafetensorError

    saving: Any = safetensors.torch

    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(descriptor)
    try:
        try:
            saving.save_file(tensors, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    for file in folder.iterdir():
        with suppress(OSError):  # another process was first, or has it open and forbids it
            if time.time() - file.stat().st_mtime > _LIFE.get(file.suffix, math.inf):
                file.unlink()
