"""What is known of each model family, as data: facts in a table instead of branches in the code.

Sources: Meta's model cards and prompt-format pages for Llama 3.1, 3.2, 3.3 and Llama Guard 3, its
`generation_config.json` files for the sampling, Ollama's library for its names, and cria's own
card.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Final

from corral.model_runtime.formats.guard import GuardVariant

__all__ = [
    "PROFILES",
    "ModelProfile",
    "UnknownModelWarning",
    "find_profile",
    "profile_for",
    "warn_unknown",
]


class UnknownModelWarning(UserWarning):
    """A model's name says nothing to Corral, so its profile is a cautious guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Facts about a model: its prompt formats, context length in tokens, and what it can do."""

    family: str
    format: str = "llama3.2"
    """The prompt format to use, a key of `corral.model_runtime.FORMATS`."""
    other_formats: tuple[str, ...] = ()
    """Formats that the model is documented or known to read as well."""
    context_length: int = 131_072
    tools: bool = True
    parallel_calls: bool = True
    """Whether it makes several calls in one message. Where it doesn't, a grammar holds it to one;
    without a grammar all that it makes are read in any case."""
    code_interpreter: bool = True
    builtins: tuple[str, ...] = ()
    """Names of the tools that it knows by training."""
    images: bool = False
    guard: GuardVariant | None = None
    """Which variant of Llama Guard 3's prompt the model reads, where it is one."""
    temperature: float = 0.6
    top_p: float = 0.9
    """`temperature` and `top_p` are what its makers sample it with."""
    demonstration: bool = False
    """A model made to show Corral at work, not to be relied on."""


_META_BUILTINS = ("brave_search", "wolfram_alpha")
_PYTHONIC = ("llama3.2-later", "llama3.2-user", "llama3.2-e2e", "hf-json", "hf-json-system")
_ENVIRONMENT = ("function-tag", "hf-json-3.1")


def _guard(family: str, variant: GuardVariant, *, images: bool = False) -> ModelProfile:
    return ModelProfile(
        family=family,
        tools=False,
        parallel_calls=False,
        code_interpreter=False,
        guard=variant,
        images=images,
        temperature=0.0,
        top_p=1.0,
    )


def _base(family: str, *, images: bool = False) -> ModelProfile:
    return ModelProfile(
        family=family,
        format="completion",
        tools=False,
        parallel_calls=False,
        code_interpreter=False,
        images=images,
    )


PROFILES: Final[dict[str, ModelProfile]] = {
    profile.family: profile
    for profile in (
        ModelProfile(
            family="cria",
            context_length=8192,
            temperature=0.0,
            top_p=1.0,
            demonstration=True,
        ),
        ModelProfile(
            family="cria-guard",
            context_length=8192,
            tools=False,
            parallel_calls=False,
            code_interpreter=False,
            guard="1b",
            temperature=0.0,
            top_p=1.0,
            demonstration=True,
        ),
        _guard("llama-guard-3-1b", "1b"),
        _guard("llama-guard-3-8b", "8b"),
        _guard("llama-guard-3-11b-vision", "11b-vision", images=True),
        ModelProfile(family="llama-3.2", other_formats=_PYTHONIC),
        ModelProfile(family="llama-3.2-quantized", other_formats=_PYTHONIC, context_length=8192),
        ModelProfile(
            family="llama-3.2-vision",
            format="vision",
            other_formats=("llama3.1-json", "function-tag", "hf-vision"),
            parallel_calls=False,
            builtins=_META_BUILTINS,
            images=True,
        ),
        ModelProfile(
            family="llama-3.1",
            format="llama3.1-json",
            other_formats=_ENVIRONMENT,
            parallel_calls=False,
            builtins=_META_BUILTINS,
        ),
        ModelProfile(
            family="llama-3.3",
            other_formats=("llama3.2-later", "llama3.3-user", "llama3.1-json", *_ENVIRONMENT),
            builtins=_META_BUILTINS,
        ),
        _base("llama-3.1-base"),
        _base("llama-3.2-base"),
        _base("llama-3.2-vision-base", images=True),
        _base("llama-3.3-base"),
        ModelProfile(family="unknown", context_length=8192),
    )
}
"""Family -> profile."""

# Meta's builds for phones, 4-bit by SpinQuant or QLoRA.
_QUANTIZED = r"llama-?3[._]2-[13]b.*(spinquant|qlora|int4_eo8)"
# `meta-llama/Llama-3.2-1B` and Ollama's `llama3.2:1b-text-q8_0` are base models.
_BASE = r"(-\d+b|:\d+b-text.*|:text)$"

_NAMES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), family)
    for pattern, family in (
        (r"^cria-guard$", "cria-guard"),
        (r"^cria$", "cria"),
        (r"llama-?guard-?3.*vision|llama-?guard-?3.*11b", "llama-guard-3-11b-vision"),
        (r"llama-?guard-?3.*1b", "llama-guard-3-1b"),
        # Ollama's bare `llama-guard3` is the 8B.
        (r"llama-?guard-?3", "llama-guard-3-8b"),
        (_QUANTIZED, "llama-3.2-quantized"),
        (r"llama-?3[._]2-(11|90)b-vision$", "llama-3.2-vision-base"),
        (r"llama-?3[._]2.*(vision|11b|90b)", "llama-3.2-vision"),
        (rf"llama-?3[._]1{_BASE}", "llama-3.1-base"),
        (rf"llama-?3[._]2{_BASE}", "llama-3.2-base"),
        (rf"llama-?3[._]3{_BASE}", "llama-3.3-base"),
        (r"llama-?3[._]1", "llama-3.1"),
        (r"llama-?3[._]2", "llama-3.2"),
        (r"llama-?3[._]3", "llama-3.3"),
    )
)


def find_profile(model: str) -> ModelProfile | None:
    """The profile of a model by its name on Hugging Face, Ollama or here; None where unknown.

    Of a path only the last part counts.
    """
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    for pattern, family in _NAMES:
        if pattern.search(name):
            return PROFILES[family]
    return None


def profile_for(model: str) -> ModelProfile:
    """The profile of a model by its name; for unknown names a cautious one and a warning."""
    found = find_profile(model)
    if found is None:
        warn_unknown(model)
        return PROFILES["unknown"]
    return found


def warn_unknown(model: str) -> None:
    """Warn that nothing is known of a model."""
    warnings.warn(
        f"Corral doesn't know the model {model!r}, and takes it for a Llama 3.2 text model of "
        f"{PROFILES['unknown'].context_length} tokens. If it is another, name its family.",
        UnknownModelWarning,
        stacklevel=3,
    )
