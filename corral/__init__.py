"""Corral: agents and tool calling for Llama 3.2 on your own machine.

Importing this loads no model library and no database; each is loaded where it is first used.
"""

from __future__ import annotations

from corral.agents import Agent, GuardSettings, Limits, TurnResult
from corral.errors import (
    ConfigError,
    ContextOverflow,
    CorralError,
    InputError,
    ModelError,
    RuntimeUnavailable,
    SandboxUnavailable,
    SessionBusy,
    ShieldError,
    StoreError,
    ToolError,
)
from corral.model_runtime import Sampling, open_runtime
from corral.tools import CodeInterpreter, Tool, tool

__all__ = [
    "Agent",
    "CodeInterpreter",
    "ConfigError",
    "ContextOverflow",
    "CorralError",
    "GuardSettings",
    "InputError",
    "Limits",
    "ModelError",
    "RuntimeUnavailable",
    "Sampling",
    "SandboxUnavailable",
    "SessionBusy",
    "ShieldError",
    "StoreError",
    "Tool",
    "ToolError",
    "TurnResult",
    "open_runtime",
    "tool",
]
