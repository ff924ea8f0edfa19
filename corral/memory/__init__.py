"""What an agent remembers: the log of each session, and the window of it that fits the model.

`store` says what a store is, `sqlite` is the one that ships, `repair` makes a log whole for the
model, and `window` chooses what of it fits. Importing this package loads no sqlite: `SQLiteStore`
and `default_path` are looked up at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.memory.repair import INTERRUPTED, NOT_BEGUN, UNKNOWN, WITHDRAWN, denied, fate, repair
from corral.memory.store import (
    CallState,
    Item,
    PendingCall,
    SessionInfo,
    Store,
    Turn,
    UnfinishedTurn,
)
from corral.memory.window import Window, fit

if TYPE_CHECKING:
    from corral.memory.sqlite import SQLiteStore, default_path

__all__ = [
    "INTERRUPTED",
    "NOT_BEGUN",
    "UNKNOWN",
    "WITHDRAWN",
    "CallState",
    "Item",
    "PendingCall",
    "SQLiteStore",
    "SessionInfo",
    "Store",
    "Turn",
    "UnfinishedTurn",
    "Window",
    "default_path",
    "denied",
    "fate",
    "fit",
    "repair",
]


def __getattr__(name: str) -> object:
    if name in ("SQLiteStore", "default_path"):
        from corral.memory import sqlite

        return getattr(sqlite, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
