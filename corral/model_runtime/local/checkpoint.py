"""A model's weights as they lie on disk: safetensors files, mapped and never copied as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import RuntimeUnavailable

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint"]

_LONGEST_HEADER = 100_000_000


class Checkpoint:
    """The tensors of all `*.safetensors` files of a folder."""

    def __init__(self, folder: Path) -> None:
        """Read the files' headers; the tensors stay where they are.

        Raises:
            RuntimeUnavailable: A header is damaged.
        """
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._open: dict[Path, Any] = {}
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*.safetensors")):
            raw, header = _header(path)
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode() + raw)
            for name, tensor in header.items():
                if name != "__metadata__":
                    self._files[name] = path
                    self._shapes[name] = tuple(tensor["shape"])
        self.digest = digest.hexdigest()[:16]
        """Tells these files from others, and from themselves once they have changed."""

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._files

    def sizes(self) -> Mapping[str, int]:
        """The number of values of each tensor."""
        return {name: math.prod(shape) for name, shape in self._shapes.items()}

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, mapped from its file.

        Raises:
            RuntimeUnavailable: There is none of that name.
        """
        from safetensors import safe_open

        path = self._files.get(name)
        if path is None:
            raise RuntimeUnavailable(
                f"The weights lack {name!r}. They are not a whole Llama model: fetch them again."
            )
        if path not in self._open:
            self._open[path] = safe_open(str(path), framework="pt")
        return self._open[path].get_tensor(name)


def _header(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            raw = stream.read(min(length, _LONGEST_HEADER))
        header: dict[str, Any] = json.loads(raw)
        if not all("shape" in tensor for name, tensor in header.items() if name != "__metadata__"):
            raise ValueError("a tensor has no shape")
        return raw, header
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise RuntimeUnavailable(
            f"The weights {str(path)!r} are damaged: {error}. Fetch them again."
        ) from error
