"""The command line: thin functions over `corral.agents` and `corral.memory`."""

from __future__ import annotations

from corral.cli.main import main

__all__ = ["main"]
