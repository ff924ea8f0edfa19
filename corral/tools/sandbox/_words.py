"""The words that the host says to a supervisor, a byte each."""

from __future__ import annotations

__all__ = ["BEGIN", "KILL", "PAUSE"]

BEGIN, PAUSE, KILL = b"b", b"p", b"k"
"""That there is something to run; that all is to stand still until there is more; that what runs is
to be killed.
"""
