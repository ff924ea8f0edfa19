"""What is known of each model family, as data: facts in a table instead of branches in the code.

Sources: Meta's model cards and prompt-format pages for Llama 3.2 and Llama Guard 3; cria's own
card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ModelProfile", "profile_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Facts about a model: its prompt format, context length in tokens, and what it can do."""

    family: str
    format: str = "llama3.2"
    context_length: int = 131_072
    tools: bool = True
    code_interpreter: bool = True
    guard: str | None = None
    """`"1b"` or `"8b"` where the model is a Llama Guard 3: which variant of its prompt it reads."""
    demonstration: bool = False
    """A model made to show Corral at work, not to be relied on."""


_PROFILES: tuple[tuple[re.Pattern[str], ModelProfile], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), profile)
    for pattern, profile in (
        (
            r"^cria-guard$",
            ModelProfile(
                family="cria-guard",
                context_length=8192,
                tools=False,
                code_interpreter=False,
                guard="1b",
                demonstration=True,
            ),
        ),
        (r"^cria$", ModelProfile(family="cria", context_length=8192, demonstration=True)),
        (
            r"llama-?guard-?3[-:.]?.*8b|llama-guard3:(latest|8b)|llama-guard3$",
            ModelProfile(
                family="llama-guard-3-8b", tools=False, code_interpreter=False, guard="8b"
            ),
        ),
        (
            r"llama-?guard-?3",
            ModelProfile(
                family="llama-guard-3-1b", tools=False, code_interpreter=False, guard="1b"
            ),
        ),
        (
            r"llama-?3[._]2.*(spinquant|qlora)",
            ModelProfile(family="llama-3.2-quantized", context_length=8192),
        ),
        (r"llama-?3[._]2", ModelProfile(family="llama-3.2")),
    )
)

_UNKNOWN = ModelProfile(family="unknown", context_length=8192)


def profile_for(model: str) -> ModelProfile:
    """The profile of a model by its name on Hugging Face, Ollama or here.

    Unknown names get a cautious one.
    """
    for pattern, profile in _PROFILES:
        if pattern.search(model):
            return profile
    return _UNKNOWN
