"""Model strings: how a person names a model, and what that opens.

cria, cria-guard            the bundled demonstration models
transformers:SOURCE         a folder or a Hugging Face id, in this process
ollama:NAME[@URL]           a model of an Ollama server, by default that of OLLAMA_HOST
openai:NAME[@URL]           a model of a server that speaks completions, by default that of
                            OPENAI_BASE_URL

All take options behind a question mark: `cria?precision=fp32`, `ollama:llama3.2:3b?num_ctx=16384`,
`openai:llama@http://gpu:8000/v1?tokenizer=/models/llama&key_env=VLLM_KEY`.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, cast

import anyio.to_thread

from corral.errors import ConfigError
from corral.model_runtime.local.kernels import PRECISIONS
from corral.model_runtime.profiles import PROFILES, find_profile, profile_for, warn_unknown
from corral.model_runtime.progress import Progress
from corral.model_runtime.runtime import Runtime
from corral.model_runtime.targets import Target, parse_target

if TYPE_CHECKING:
    from corral.model_runtime.cria.build import CriaName
    from corral.model_runtime.local.kernels import Precision
    from corral.model_runtime.local.sharing import LocalOptions

__all__ = [
    "BUNDLED",
    "MODEL_OPTIONS",
    "Progress",
    "bundled_name",
    "check_model_string",
    "open_runtime",
]

BUNDLED: Final = ("cria", "cria-guard")
"""The demonstration models that come with Corral."""

_SCHEMES = ("transformers", "ollama", "openai")

MODEL_OPTIONS: Final = {
    "transformers": ("precision", "device", "keep_alive", "cache_mb", "adapter"),
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
    if bundled_name(model):
        if "adapter" in _local_target(model).options:
            raise ConfigError(
                f"{bundled_name(model)!r} is an adapter itself and takes no other. Name a model "
                "with it: transformers:FOLDER-OR-ID?adapter=FOLDER"
            )
        return
    if colon and rest and scheme in _SCHEMES:
        if scheme == "transformers":
            _local_target(rest)
        else:
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
    return await _open_local(model, progress)


def bundled_name(model: str) -> str | None:
    """Which demonstration model a model string names, if it does."""
    name = model.partition("?")[0]
    return name if name in BUNDLED else None


async def _open_local(model: str, progress: Progress | None) -> Runtime:
    from corral.model_runtime.transformers_runtime import TransformersRuntime

    bundled = bundled_name(model)
    target = _local_target(model if bundled else model.partition(":")[2])
    options = _local_options(target)
    if bundled:
        from corral.model_runtime.cria.build import adapter_path
        from corral.model_runtime.cria.fetch import ensure_base

        name = cast("CriaName", bundled)
        options = replace(options, adapter=adapter_path(name))
        folder = await ensure_base(name=name, progress=progress)
        profile = profile_for(bundled)
    else:
        from corral.model_runtime.loading import resolve

        folder = await anyio.to_thread.run_sync(resolve, target.name)
        if (adapter := target.options.get("adapter")) is not None:
            options = replace(options, adapter=await anyio.to_thread.run_sync(resolve, adapter))
        profile = find_profile(target.name)
    runtime = await TransformersRuntime.load(
        folder,
        name=model,
        profile=profile or PROFILES["unknown"],
        options=options,
        progress=progress,
    )
    if profile is None:
        warn_unknown(target.name)
    return runtime


def _local_target(rest: str) -> Target:
    target = parse_target(rest, options=MODEL_OPTIONS["transformers"], addressed=False)
    precision = target.options.get("precision")
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(
            f"In the model string, precision is {precision!r}. It can be: {', '.join(PRECISIONS)}."
        )
    target.seconds("keep_alive")
    target.number("cache_mb")
    return target


def _local_options(target: Target) -> LocalOptions:
    from corral.model_runtime.local.sharing import LocalOptions

    megabytes = target.number("cache_mb")
    return LocalOptions(
        precision=cast("Precision | None", target.options.get("precision")),
        device=target.options.get("device"),
        keep_alive=target.seconds("keep_alive"),
        cache_bytes=None if megabytes is None else megabytes * 2**20,
    )


def _target(scheme: str, rest: str) -> Target:
    target = parse_target(rest, options=MODEL_OPTIONS[scheme])
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
