"""How long work tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress"]

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how far it has come, and how far it has to go if that is known.

Called in the event loop's thread.
"""
