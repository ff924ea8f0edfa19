"""Shields, and the gates where they stand."""

from __future__ import annotations

from corral.safety.gates import ask
from corral.safety.llama_guard import Action, LlamaGuard, read_verdict
from corral.safety.shield import Said, Shield

__all__ = ["Action", "LlamaGuard", "Said", "Shield", "ask", "read_verdict"]
