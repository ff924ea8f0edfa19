"""Agents: the turn loop, its limits, and agents written in YAML."""

from __future__ import annotations

from corral.agents.agent import Agent, GuardSettings
from corral.agents.limits import Limits
from corral.agents.result import TurnResult
from corral.agents.turn import TurnParts, TurnRun

__all__ = ["Agent", "GuardSettings", "Limits", "TurnParts", "TurnResult", "TurnRun"]
