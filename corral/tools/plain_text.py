"""Text from strangers, made fit for a terminal and a prompt."""

from __future__ import annotations

import re

__all__ = ["plain", "shortened"]

# Escape sequences first, whole; then every control character but newline and tab. A carriage return
# goes too, since it would let a terminal overwrite the line that was shown, and so do the marks
# that turn the direction of writing or can't be seen.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` as a terminal may be shown it: of control characters, only newline and tab remain."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def shortened(text: str, length: int) -> str:
    """`text` if it has at most `length` characters, else its beginning and a mark of the cut."""
    return text if len(text) <= length else f"{text[: length - 4].rstrip()} ..."
