"""A prompt that came as one string, read back into control tokens and text.

Only the raw endpoint does this, for models whose operator has opened them to raw prompts: there
the client writes the control tokens, as it would to Ollama. Names that aren't in the vocabulary
stay text.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from corral.model_runtime.prompt import Prompt, Segment, Special, Text

__all__ = ["CONTROL_TOKENS", "read_prompt"]

CONTROL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<|image|>",
)
"""The control tokens of Llama 3's prompt formats (Meta's model cards and prompt formats)."""

_BOS = "<|begin_of_text|>"
_AFTER_HEADER = "\n\n"


def read_prompt(text: str, *, tokens: Collection[str] = CONTROL_TOKENS) -> Prompt:
    """The prompt that `text` spells, with `<|begin_of_text|>` in front whether it is there or not.

    The two newlines behind a header are a text of their own, as Corral's formats render them and
    as Llama's own tokenizer splits them.
    """
    names = "|".join(re.escape(token) for token in tokens)
    segments: list[Segment] = [Special(_BOS)]
    for part in re.split(f"({names})", text.removeprefix(_BOS)):
        if part in tokens:
            segments.append(Special(part))
            continue
        if segments[-1] == Special("<|end_header_id|>") and part.startswith(_AFTER_HEADER):
            segments.append(Text(_AFTER_HEADER))
            part = part.removeprefix(_AFTER_HEADER)
        if part:
            segments.append(Text(part))
    return Prompt(tuple(segments))
