"""Shields: who says whether a text may pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from corral.events import Verdict

__all__ = ["Said", "Shield"]


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a conversation as a shield reads it."""

    who: Literal["user", "agent"]
    text: str


class Shield(Protocol):
    """Judges the last thing said in a conversation."""

    @property
    def name(self) -> str:
        """What verdicts are signed with."""
        ...

    async def check(self, conversation: Sequence[Said]) -> Verdict:
        """Judge the last of `conversation`; what came before is context.

        May raise any `CorralError`: a gate takes every failure as unsafe.
        """
        ...

    def blocks(self, verdict: Verdict) -> bool:
        """Whether the shield's policy stops what it found."""
        ...
