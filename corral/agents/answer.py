"""The answer gate: text goes in as the model writes it, and comes out as the shield clears it.

The answer is judged in windows that end with a sentence. Each check reads the user's message and
the whole answer so far, so nothing slips through by being spread over two windows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from corral.events import ShieldChecked

__all__ = ["AnswerGate"]

_WINDOW = 280
"""Characters from which a sentence's end closes a window."""

_SENTENCE_ENDS = (". ", "! ", "? ", ".\n", "!\n", "?\n", "\n\n", "。", "！", "？", "।")


class AnswerGate:
    """Holds an answer back until it is judged. Without a check everything passes at once."""

    def __init__(self, check: Callable[[str], Awaitable[ShieldChecked]] | None) -> None:
        """Judge with `check`, which is given the whole answer so far."""
        self._check = check
        self._answer = ""
        self._released = 0

    @property
    def released(self) -> str:
        """What the user has been shown."""
        return self._answer[: self._released]

    def feed(self, text: str) -> str | None:
        """Add text. What can go out without a check comes back, which is all of it or nothing."""
        self._answer += text
        if self._check is None:
            self._released = len(self._answer)
            return text
        return None

    @property
    def window_full(self) -> bool:
        """Whether enough whole sentences wait for a check to be worth its time."""
        waiting = self._answer[self._released :]
        return self._check is not None and len(waiting) >= _WINDOW and self._last_end(waiting) > 0

    async def judge(self, *, last: bool) -> tuple[ShieldChecked, str] | None:
        """Check what waits: up to its last whole sentence, or all of it when it is the last.

        Gives the check and the text that it releases, none where it blocks. None if nothing waits.
        """
        waiting = self._answer[self._released :]
        upto = len(waiting) if last else self._last_end(waiting)
        if self._check is None or not upto:
            return None
        checked = await self._check(self._answer[: self._released + upto])
        if checked.blocked:
            return checked, ""
        self._released += upto
        return checked, waiting[:upto]

    @staticmethod
    def _last_end(text: str) -> int:
        return max(text.rfind(end) + len(end) if end in text else 0 for end in _SENTENCE_ENDS)
