"""From a model's name to its folder, or to a paragraph that says why not and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from corral.errors import ConfigError, RuntimeUnavailable

__all__ = ["resolve"]

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_INSTALL = "Install what is missing: pip install 'llama-corral[local]'"


def resolve(source: str) -> Path:
    """The folder of a local path or a Hugging Face id.

    Downloads the id's files when they are not in the hub's cache.

    Raises:
        ConfigError: `source` is neither an existing folder nor spelled like an id.
        RuntimeUnavailable: The id can't be had: unknown, gated, or this machine is offline.
    """
    path = Path(source).expanduser()
    if path.exists():
        if not path.is_dir():
            raise ConfigError(
                f"The model {source!r} is a file. Name the folder that holds config.json and the "
                "weights."
            )
        return path
    if source.startswith((".", "/", "~")) or not _HUB_ID.match(source):
        raise ConfigError(
            f"There is no model folder {source!r}. Name a folder, or a Hugging Face id such as "
            "'meta-llama/Llama-3.2-1B-Instruct'."
        )
    return _snapshot(source)


def _snapshot(repo: str) -> Path:
    try:
        from huggingface_hub import (
            snapshot_download,  # pyright: ignore[reportUnknownVariableType]
        )
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Loading {repo!r} needs the package {error.name!r}. {_INSTALL}"
        ) from error
    try:
        return Path(
            snapshot_download(repo, allow_patterns=["*.json", "*.safetensors", "tokenizer*"])
        )
    except GatedRepoError as error:
        raise RuntimeUnavailable(
            f"The model {repo!r} is gated. Accept its licence at https://huggingface.co/{repo}, "
            "then log in: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise RuntimeUnavailable(
            f"Hugging Face has no model {repo!r}, or it is private. Check the name, or log in: hf "
            "auth login"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise RuntimeUnavailable(
            f"The model {repo!r} is not on this machine and Hugging Face can't be reached. "
            "Download it once with a network "
            f"(hf download {repo}), name a local folder, or use the bundled demonstration model: "
            "cria"
        ) from error
