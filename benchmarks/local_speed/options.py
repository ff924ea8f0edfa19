"""How much is measured: the sizes that the tables name, and smaller ones to try the script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from local_speed.machine import cores


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and how often."""

    folder: Path
    """The model that `llama_1b.py` made."""
    copying: Path | None = None
    """The one that it made with `--copying`."""
    rounds: int = 4
    threads: int = cores()
    without: tuple[str, ...] = ()
    """Ways that are left out."""
    prompt: int = 512
    tokens: int = 64
    busy_prompt: int = 128
    busy_tokens: int = 16
    steps: int = 5
    loop_prompt: int = 1200
    loop_more: int = 150
    loop_tokens: int = 60
    loop_rounds: int = 2
    preamble: int = 700
    turn: int = 150
    verdict: int = 8
    copied: int = 120
    calls: int = 1000
    tool_sets: int = 50
    at_once: int = 16
    sessions: int = 8
    session_prefix: int = 200
    session_own: int = 20
    session_tokens: int = 40
    turns: int = 10_000
    loads: int = 3
    context: int = 4096
    draft: int = 2
    """Tokens that llama-cpp-python's prompt lookup guesses: its documentation's advice for CPUs."""
    demo: str = "cria"
    """The small trained model, for many sessions and many turns."""


SMALL = {
    "rounds": 1,
    "prompt": 48,
    "tokens": 12,
    "busy_prompt": 24,
    "busy_tokens": 6,
    "steps": 2,
    "loop_prompt": 64,
    "loop_more": 24,
    "loop_tokens": 8,
    "loop_rounds": 1,
    "preamble": 64,
    "turn": 24,
    "verdict": 4,
    "copied": 16,
    "calls": 6,
    "tool_sets": 3,
    "at_once": 3,
    "sessions": 3,
    "session_prefix": 24,
    "session_own": 12,
    "session_tokens": 6,
    "turns": 12,
    "loads": 1,
    "context": 512,
}
"""Sizes for trying the script; their figures mean nothing."""
