"""How long a prompt is, where no vocabulary is at hand: from above, and from below."""

from __future__ import annotations

import math
import re

from corral.model_runtime.prompt import Prompt, Text, escape_specials

__all__ = ["fewest_tokens", "most_tokens"]


def most_tokens(prompt: Prompt) -> int:
    """An estimate that is meant to be too high.

    Words of plain letters count for a token in four letters, digits, signs, line ends and runs of
    blanks for one each, and characters of other scripts for two.
    """
    count = 0
    for segment in prompt.segments:
        if not isinstance(segment, Text):
            count += 1
            continue
        for part in _PARTS.findall(escape_specials(segment.text)):
            count += math.ceil(len(part) / 4) if part[0].isalpha() and part.isascii() else 1
            count += not part.isascii()
    return count


_PARTS = re.compile(r"[A-Za-z]+|[ \t]{2,}|[^ \t]")


def fewest_tokens(prompt: Prompt) -> int:
    """Fewer than the prompt can have by any tokenizer in use: none has tokens of two words.

    Meant for seeing a prompt that was cut to half, which it does in every language that parts its
    words with spaces, and for never taking a whole one for cut.
    """
    return sum(
        len(segment.text.split()) for segment in prompt.segments if isinstance(segment, Text)
    )
