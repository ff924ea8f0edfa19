"""Model strings: how a person names a model, and what that opens.

cria, cria-guard            the bundled demonstration models
transformers:SOURCE         a folder or a Hugging Face id, in this process
ollama:NAME[@URL]           a model of an Ollama server, by default that of OLLAMA_HOST
openai:NAME[@URL]           a model of a server that speaks completions, by default that of
                            OPENAI_BASE_URL

The last two take options behind a question mark: `ollama:llama3.2:3b?num_ctx=16384`,
`openai:llama@http://gpu:8000/v1?tokenizer=/models/llama&key_env=VLLM_KEY`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Final, TypeAlias

import anyio.to_thread

from corral.errors import ConfigError
from corral.model_runtime.profiles import PROFILES, find_profile, profile_for, warn_unknown
from corral.model_runtime.runtime import Runtime
from corral.model_runtime.targets import Target, parse_target

__all__ = ["BUNDLED", "SERVER_OPTIONS", "Progress", "check_model_string", "open_runtime"]

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how many bytes are done, and how many there are where that is
known.
"""

BUNDLED: Final = ("cria", "cria-guard")
"""The demonstration models that come with Corral."""

_SCHEMES = ("transformers", "ollama", "openai")

SERVER_OPTIONS: Final = {
    "ollama": ("num_ctx", "keep_alive", "cloud", "family"),
    "openai": ("server", "tokenizer", "context", "key_env", "family"),
}
"""The options that a model string may have behind its question mark, by scheme."""


def check_model_string(model: str) -> None:
    """See that a model string is spelled right, without opening anything.

    Raises:
        ConfigError: It isn't; the message shows the forms there are.
    """
    scheme, colon, rest = model.partition(":")
    if model in BUNDLED or (colon and rest and scheme in _SCHEMES):
        if scheme in SERVER_OPTIONS:
            _target(scheme, rest)
        return
    near = get_close_matches(scheme, [*BUNDLED, *_SCHEMES], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"There is no model {model!r}.{hint} Write 'cria' (the demonstration model), "
        "'transformers:FOLDER-OR-ID', 'ollama:NAME' or 'openai:NAME@URL', "
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
        return await _open_ollama(model, _target(scheme, rest))
    if scheme == "openai":
        return await _open_openai(model, _target(scheme, rest))
    from corral.model_runtime.transformers_runtime import TransformersRuntime

    if model in BUNDLED:
        from corral.model_runtime.cria.fetch import ensure

        folder = await ensure(model, progress=progress)
        return await TransformersRuntime.load(folder, name=model, profile=profile_for(model))
    from corral.model_runtime.loading import resolve

    folder = await anyio.to_thread.run_sync(resolve, rest)
    profile = find_profile(rest)
    runtime = await TransformersRuntime.load(
        folder, name=model, profile=profile or PROFILES["unknown"]
    )
    if profile is None:
        warn_unknown(rest)
    return runtime


def _target(scheme: str, rest: str) -> Target:
    target = parse_target(rest, options=SERVER_OPTIONS[scheme])
    target.number("num_ctx")
    target.number("context")
    family = target.options.get("family")
    if family is not None and family not in PROFILES:
        raise ConfigError(
            f"In the model string, family is {family!r}. It can be: {', '.join(PROFILES)}."
        )
    if target.options.get("cloud", "allow") != "allow":
        raise ConfigError("In the model string, cloud can only be 'allow'. Leave it out otherwise.")
    return target


async def _open_ollama(model: str, target: Target) -> Runtime:
    from corral.model_runtime.ollama import OllamaRuntime

    runtime = OllamaRuntime(
        target.name,
        host=target.url,
        num_ctx=target.number("num_ctx"),
        keep_alive=target.options.get("keep_alive", "10m"),
        allow_cloud="cloud" in target.options,
        profile=PROFILES.get(target.options.get("family", "")),
        name=model,
    )
    await runtime.prepare()
    return runtime


async def _open_openai(model: str, target: Target) -> Runtime:
    from corral.model_runtime.openai import OpenAIRuntime

    runtime = OpenAIRuntime(
        target.name,
        base_url=target.url,
        server=target.options.get("server"),
        tokenizer=target.options.get("tokenizer"),
        context=target.number("context"),
        key_env=target.options.get("key_env"),
        profile=PROFILES.get(target.options.get("family", "")),
        name=model,
    )
    await runtime.prepare()
    return runtime
