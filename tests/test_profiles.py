"""What Corral knows of a model by its name."""

from __future__ import annotations

import pytest

from corral.model_runtime.formats import FORMATS
from corral.model_runtime.profiles import (
    PROFILES,
    UnknownModelWarning,
    find_profile,
    profile_for,
)

NAMES = {
    "llama-3.2": [
        "meta-llama/Llama-3.2-1B-Instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
        "unsloth/Llama-3.2-3B-Instruct",
        "llama3.2",
        "llama3.2:latest",
        "llama3.2:1b",
        "llama3.2:3b-instruct-q4_K_M",
        "bartowski/Llama-3.2-1B-Instruct-GGUF",
        "/home/ann/models/Llama-3.2-3B-Instruct",
        "models\\llama3_2-3b-instruct",
    ],
    "llama-3.2-quantized": [
        "meta-llama/Llama-3.2-1B-Instruct-SpinQuant_INT4_EO8",
        "meta-llama/Llama-3.2-3B-Instruct-QLORA_INT4_EO8",
    ],
    "llama-3.2-vision": [
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "meta-llama/Llama-3.2-90B-Vision-Instruct",
        "llama3.2-vision",
        "llama3.2-vision:90b",
    ],
    "llama-3.1": [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "llama3.1",
        "llama3.1:405b",
    ],
    "llama-3.3": ["meta-llama/Llama-3.3-70B-Instruct", "llama3.3:70b"],
    "llama-3.2-base": ["meta-llama/Llama-3.2-1B", "llama3.2:3b-text-q8_0"],
    "llama-3.2-vision-base": ["meta-llama/Llama-3.2-11B-Vision", "meta-llama/Llama-3.2-90B-Vision"],
    "llama-3.1-base": [
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B",
        "llama3.1:70b-text",
    ],
    "llama-guard-3-1b": ["meta-llama/Llama-Guard-3-1B", "llama-guard3:1b", "Llama-Guard-3-1B-INT4"],
    "llama-guard-3-8b": ["meta-llama/Llama-Guard-3-8B", "llama-guard3", "llama-guard3:8b"],
    "llama-guard-3-11b-vision": ["meta-llama/Llama-Guard-3-11B-Vision"],
    "cria": ["cria"],
    "cria-guard": ["cria-guard"],
}


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for family, names in NAMES.items() for name in names]
)
def test_a_model_is_known_by_its_names(name: str, family: str):
    assert profile_for(name).family == family


@pytest.mark.parametrize("name", ["mistral:7b", "my-finetune", "/models/llama-3.2/mine"])
def test_an_unknown_model_gets_a_cautious_profile_and_a_warning(name: str):
    assert find_profile(name) is None
    with pytest.warns(UnknownModelWarning, match="name its family"):
        profile = profile_for(name)
    assert profile.context_length == 8192


def test_what_a_profile_names_exists():
    for profile in PROFILES.values():
        for name in (profile.format, *profile.other_formats):
            assert name in FORMATS
        if profile.images and not profile.guard:
            assert FORMATS[profile.format].images
        assert (FORMATS[profile.format].calls == "none") == (profile.format == "completion")


def test_facts_from_the_model_cards():
    assert profile_for("llama3.2").context_length == 131_072
    assert profile_for("Llama-3.2-1B-Instruct-SpinQuant_INT4_EO8").context_length == 8192
    assert profile_for("llama3.2:1b").builtins == ()
    assert profile_for("llama3.1").builtins == ("brave_search", "wolfram_alpha")
    assert not profile_for("llama3.1").parallel_calls
    assert profile_for("llama3.3").format == "llama3.2"
    assert profile_for("llama3.2-vision").images
    assert (profile_for("llama3.2").temperature, profile_for("llama3.2").top_p) == (0.6, 0.9)
