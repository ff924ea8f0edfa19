"""Corral: agents and tool calling for Llama 3.2 on your own machine.

Importing this loads no model library and no database; each is loaded where it is first used.
"""

from __future__ import annotations

from corral.agents import Agent, GuardSettings, Limits, TurnResult
from corral.agents.images import fetch_image, image_part
from corral.errors import (
    ConfigError,
    ContextOverflow,
    ContextTruncated,
    CorralError,
    InputError,
    ModelError,
    RuntimeUnavailable,
    SandboxUnavailable,
    ScoreUnavailable,
    SessionBusy,
    ShieldError,
    StoreError,
    ToolError,
    ToolRetry,
)
from corral.model_runtime import Sampling, open_runtime
from corral.tools import (
    CodeInterpreter,
    CommandTool,
    HttpTool,
    MCPServer,
    RunContext,
    Tool,
    ToolOutput,
    tool,
)

__all__ = [
    "Agent",
    "CodeInterpreter",
    "CommandTool",
    "ConfigError",
    "ContextOverflow",
    "ContextTruncated",
    "CorralError",
    "GuardSettings",
    "HttpTool",
    "InputError",
    "Limits",
    "MCPServer",
    "ModelError",
    "RunContext",
    "RuntimeUnavailable",
    "Sampling",
    "SandboxUnavailable",
    "ScoreUnavailable",
    "SessionBusy",
    "ShieldError",
    "StoreError",
    "Tool",
    "ToolError",
    "ToolOutput",
    "ToolRetry",
    "TurnResult",
    "fetch_image",
    "image_part",
    "open_runtime",
    "tool",
]
