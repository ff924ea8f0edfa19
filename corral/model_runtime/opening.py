"""Model strings: how a person names a model, and what that opens.

cria, cria-guard            the bundled demonstration models
transformers:SOURCE         a folder or a Hugging Face id, in this process
ollama:NAME                 a model of an Ollama server
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Final, TypeAlias

import anyio.to_thread

from corral.errors import ConfigError
from corral.model_runtime.profiles import profile_for
from corral.model_runtime.runtime import Runtime

__all__ = ["BUNDLED", "Progress", "check_model_string", "open_runtime"]

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how many bytes are done, and how many there are where that is
known.
"""

BUNDLED: Final = ("cria", "cria-guard")
"""The demonstration models that come with Corral."""

_SCHEMES = ("transformers", "ollama")


def check_model_string(model: str) -> None:
    """See that a model string is spelled right, without opening anything.

    Raises:
        ConfigError: It isn't; the message shows the forms there are.
    """
    scheme, colon, rest = model.partition(":")
    if model in BUNDLED or (colon and rest and scheme in _SCHEMES):
        return
    near = get_close_matches(scheme, [*BUNDLED, *_SCHEMES], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"There is no model {model!r}.{hint} Write 'cria' (the demonstration model), "
        "'transformers:FOLDER-OR-ID' or 'ollama:NAME', "
        "for example 'ollama:llama3.2:3b'."
    )


async def open_runtime(model: str, *, progress: Progress | None = None) -> Runtime:
    """Open a model by its string, fetching and loading what that takes.

    Raises:
        ConfigError: The string names no model.
        RuntimeUnavailable: The model can't be had here; the message says what to do.
    """
    check_model_string(model)
    scheme, _, rest = model.partition(":")
    if scheme == "ollama":
        from corral.model_runtime.ollama_runtime import OllamaRuntime

        return OllamaRuntime(rest)
    from corral.model_runtime.transformers_runtime import TransformersRuntime

    if model in BUNDLED:
        from corral.model_runtime.cria.fetch import ensure

        folder = await ensure(model, progress=progress)
        return await TransformersRuntime.load(folder, name=model, profile=profile_for(model))
    from corral.model_runtime.loading import resolve

    folder = await anyio.to_thread.run_sync(resolve, rest)
    return await TransformersRuntime.load(folder, name=model, profile=profile_for(rest))
