"""HTTP requests as tools: only to the hosts that were granted, and only to checked addresses."""

from __future__ import annotations

from corral.tools.http.tool import HttpTool

__all__ = ["HttpTool"]
