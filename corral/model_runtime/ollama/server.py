"""What is asked of an Ollama server once, before a model's first prompt: can it, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import anyio.to_thread
from pydantic import JsonValue

from corral.errors import RuntimeUnavailable
from corral.model_runtime.byte_pairs import BytePairs
from corral.model_runtime.ollama.client import OllamaClient
from corral.model_runtime.ollama.failures import VISION_REMEDY
from corral.model_runtime.profiles import ModelProfile

__all__ = ["ServedModel", "examine"]

_OLDEST = (0, 5, 0)
"""The first version that holds an output to a JSON Schema."""

_NO_VISION_FROM = (0, 30, 0)
_MISCOUNTS = (0, 30, 0)
"""Counted only the tokens of a prompt that were not cached."""

_SHOWS_SPECIALS_UNTIL = (0, 30, 0)
"""Control tokens in an output are shown before this version, and left out from it on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as a server has it.

    `vocabulary` is None where the server doesn't give one that can be counted with, `context` the
    context length that the model was trained for, where it is known. `raw` says whether the model
    reads Llama 3's prompt format.
    """

    version: tuple[int, ...]
    profile: ModelProfile
    raw: bool
    vocabulary: BytePairs | None
    context: int | None
    adds_bos: bool

    @property
    def counts_prompts(self) -> bool:
        """Whether the count of a prompt's tokens that comes with an answer is right."""
        return self.version != _MISCOUNTS

    @property
    def shows_specials(self) -> bool:
        """Whether control tokens in an output are shown, as text."""
        return self.version < _SHOWS_SPECIALS_UNTIL


async def examine(
    client: OllamaClient, model: str, *, profile: ModelProfile, allow_cloud: bool, url: str
) -> ServedModel:
    """See what the server is and what it knows of `model`.

    Raises:
        RuntimeUnavailable: The server is too old, can't run this model any more, or would send
            prompts on to another machine.
        ResponseError, httpx.TransportError: As the client raises them.
    """
    version = _version(await client.version())
    if version < _OLDEST:
        raise RuntimeUnavailable(
            f"The Ollama server at {url} is of version {_dotted(version)}, which is too old. Update"
            f" it to {_dotted(_OLDEST)} or newer."
        )
    shown = await client.show_all(model)
    if (remote := shown.get("remote_host") or shown.get("remote_model")) and not allow_cloud:
        raise RuntimeUnavailable(
            f"The Ollama server would send all that is said to {model!r} on to {remote!r}. Use a "
            f"model that runs on it, or allow this one: ollama:{model}?cloud=allow"
        )
    info = shown.get("model_info")
    facts: Mapping[str, JsonValue] = info if isinstance(info, dict) else {}
    architecture = str(facts.get("general.architecture", ""))
    if architecture == "mllama" and version >= _NO_VISION_FROM:
        raise RuntimeUnavailable(
            f"The Ollama server at {url} is of version {_dotted(version)}. {VISION_REMEDY}"
        )
    context = facts.get(f"{architecture}.context_length")
    vocabulary = await anyio.to_thread.run_sync(BytePairs.from_gguf, facts)
    return ServedModel(
        version=version,
        profile=profile,
        raw=_reads_llama_prompts(profile, shown),
        vocabulary=vocabulary,
        context=context if isinstance(context, int) and context > 0 else None,
        adds_bos=facts.get("tokenizer.ggml.add_bos_token") is not False,
    )


def _reads_llama_prompts(profile: ModelProfile, shown: Mapping[str, JsonValue]) -> bool:
    """By its name, or else by the template that the server would use: a header is Llama 3's."""
    return profile.family != "unknown" or "<|start_header_id|>" in str(shown.get("template", ""))


def _version(text: str) -> tuple[int, ...]:
    """`0.33.0-rc1` as numbers. What can't be read is taken for new: forks name themselves so."""
    found = re.match(r"\D*(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return (999, 0, 0)
    numbers = tuple(int(part or 0) for part in cast("tuple[str, ...]", found.groups()))
    # A build from source says 0.0.0.
    return numbers if any(numbers) else (999, 0, 0)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
