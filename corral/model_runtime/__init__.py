"""Prompts in, tokens out: prompt formats, the output parser, and the runtimes that run models."""

from __future__ import annotations

from corral.model_runtime.formats import FORMATS, render_prompt
from corral.model_runtime.opening import check_model_string, open_runtime
from corral.model_runtime.parser import (
    OutputParser,
    ParserOptions,
    parse_output,
    pieces_from_ids,
    pieces_from_text,
)
from corral.model_runtime.profiles import ModelProfile, profile_for
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Constraint, Embedder, Finish, Piece, Runtime, Sampling

__all__ = [
    "FORMATS",
    "Constraint",
    "Embedder",
    "Finish",
    "ModelProfile",
    "OutputParser",
    "ParserOptions",
    "Piece",
    "Prompt",
    "Runtime",
    "Sampling",
    "check_model_string",
    "open_runtime",
    "parse_output",
    "pieces_from_ids",
    "pieces_from_text",
    "profile_for",
    "render_prompt",
]
