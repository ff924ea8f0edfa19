"""Tools that come with Corral: files, the web, the clock, and Meta's own two."""

from __future__ import annotations

from corral.tools.builtin.brave import BraveSearch
from corral.tools.builtin.clock import now
from corral.tools.builtin.files import ListFiles, ReadFile, SearchFiles
from corral.tools.builtin.http_get import HttpGet
from corral.tools.builtin.wolfram import WolframAlpha
from corral.tools.builtin.write_file import WriteFile

__all__ = [
    "BraveSearch",
    "HttpGet",
    "ListFiles",
    "ReadFile",
    "SearchFiles",
    "WolframAlpha",
    "WriteFile",
    "now",
]
