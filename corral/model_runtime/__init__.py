"""Prompts in, tokens out: prompt formats, the output parser, and the runtimes that run models."""

from __future__ import annotations

from corral.model_runtime.formats import render_prompt
from corral.model_runtime.opening import check_model_string, open_runtime
from corral.model_runtime.profiles import ModelProfile, profile_for
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Finish, Piece, Runtime, Sampling

__all__ = [
    "Finish",
    "ModelProfile",
    "Piece",
    "Prompt",
    "Runtime",
    "Sampling",
    "check_model_string",
    "open_runtime",
    "profile_for",
    "render_prompt",
]
