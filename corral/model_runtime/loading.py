"""From a model's name to a model in memory, or to a paragraph that says why not and what to do.

`resolve` finds the folder (a local one, or a Hugging Face id's snapshot, downloaded if need be);
`load_folder` checks that it is a model, that it fits into memory, and loads it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import ConfigError, RuntimeUnavailable
from corral.model_runtime.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["load_folder", "resolve"]

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


def load_folder(folder: Path, name: str) -> tuple[Any, LlamaTokenizer]:
    """Load the model and the tokenizer of a folder.

    `name` is what errors call it. Blocking: seconds to minutes.

    Raises:
        ConfigError: The folder is no model's.
        RuntimeUnavailable: No Llama model, damaged, too large for the memory, or an
            extra is missing.
    """
    _check_folder(folder, name)
    try:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Running the model {name!r} in this process needs the package {error.name!r}. "
            f"{_INSTALL}"
        ) from error
    device, dtype = _placement(torch)
    _check_memory(folder, name, device, torch.finfo(dtype).bits // 8)
    logging.disable_progress_bar()  # pyright: ignore[reportUnknownMemberType]
    try:
        tokenizer = LlamaTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), source=name)
        model: Any = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportUnknownMemberType]
            str(folder), dtype=dtype, local_files_only=True, use_safetensors=True
        )
        return model.to(device).eval(), tokenizer
    except RuntimeUnavailable:
        raise
    except Exception as error:
        raise RuntimeUnavailable(
            f"The model {name!r} can't be loaded from {str(folder)!r}: {error}. Its files may be "
            "damaged: fetch them again."
        ) from error


def _check_folder(folder: Path, name: str) -> None:
    for needed, what in (("config.json", "model"), ("tokenizer.json", "fast tokenizer")):
        if not (folder / needed).is_file():
            raise ConfigError(
                f"The folder {str(folder)!r} (model {name!r}) holds no {needed}, so it is no "
                f"{what} that transformers can load. "
                "Name a folder in Hugging Face's layout: config.json, tokenizer.json, "
                "*.safetensors."
            )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"The folder {str(folder)!r} (model {name!r}) holds no *.safetensors file. Other "
            "kinds of weights can run code while "
            "they load, and are not read: convert them to safetensors."
        )


def _placement(torch_module: Any) -> tuple[str, torch.dtype]:
    """Device and precision: float32 on the CPU, where 16 bits are slower on most processors."""
    if torch_module.cuda.is_available():
        return "cuda", torch_module.bfloat16
    if torch_module.backends.mps.is_available():
        return "mps", torch_module.float16
    return "cpu", torch_module.float32


def _check_memory(folder: Path, name: str, device: str, bytes_each: int) -> None:
    if device == "cuda":
        import torch

        available = torch.cuda.mem_get_info()[0]
    else:
        available = _available_memory()
    needed = int(sum(_parameters(folder)) * bytes_each * 1.1)
    if available is not None and needed > available:
        raise RuntimeUnavailable(
            f"The model {name!r} needs {needed / 2**30:.1f} GiB of memory and "
            f"{available / 2**30:.1f} GiB are free. "
            "Close other programs, use a smaller model, or run a quantised one: --model "
            "ollama:llama3.2:1b"
        )


def _parameters(folder: Path) -> Iterator[int]:
    """The number of parameters of each tensor, read from the files' headers alone."""
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header: dict[str, Any] = json.loads(stream.read(min(length, 100_000_000)))
            for key, tensor in header.items():
                if key != "__metadata__":
                    count = 1
                    for size in tensor["shape"]:
                        count *= size
                    yield count
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RuntimeUnavailable(
                f"The weights {str(file)!r} are damaged: {error}. Fetch them again."
            ) from error


def _available_memory() -> int | None:
    """Bytes of memory that are free to take; None where the system doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
