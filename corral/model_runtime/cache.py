"""The folder in which Corral keeps what it can make again: fetched bases, converted weights."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """`CORRAL_CACHE` if set, else `XDG_CACHE_HOME/corral`, else `~/.cache/corral`.

    The folder need not exist yet.
    """
    root = os.environ.get("CORRAL_CACHE")
    if root:
        return Path(root).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "corral"
