"""Every error that Corral raises.

    CorralError
    ├── ConfigError               the user's to mend: a file, a key, an argument, a name
    ├── InputError                a message that can't be taken: empty, not text, too long
    ├── RuntimeUnavailable        the model can't be had: missing extra, gated, offline, too large,
    server down
    ├── ModelError                the model's runtime broke while it ran
    │   ├── ContextTruncated      a server read less of the prompt than was sent
    │   ├── ModelBusy             more is asked of a model at once than it takes
    │   └── ScoreUnavailable      a runtime can't tell the probability of a token
    ├── ContextOverflow           the prompt and its answer don't fit the model's context
    ├── SandboxUnavailable        this machine can't confine code, so none is run
    ├── StoreError                the conversation store can't be read or written
    │   └── SessionBusy           another turn holds this session
    ├── ShieldError               a shield could not be asked (the gate then counts it as unsafe)
    └── ToolError                 a tool failed; the text goes to the model
        └── ToolRetry             the call should be made again, in other words

A message says what happened, quotes values with `!r`, and ends with what to do about it.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "ContextOverflow",
    "ContextTruncated",
    "CorralError",
    "InputError",
    "ModelBusy",
    "ModelError",
    "RuntimeUnavailable",
    "SandboxUnavailable",
    "ScoreUnavailable",
    "SessionBusy",
    "ShieldError",
    "StoreError",
    "ToolError",
    "ToolRetry",
]


class CorralError(Exception):
    """The root of Corral's errors."""


class ConfigError(CorralError):
    """Something the user wrote can't be used: says where, and the remedy."""


class InputError(CorralError):
    """A message that no turn can start from."""


class RuntimeUnavailable(CorralError):
    """A model can't be loaded or reached: says why, and the command or setting that mends it."""


class ModelError(CorralError):
    """The model's runtime failed in the middle of its work."""


class ModelBusy(ModelError):
    """More is asked of a model at once than it takes: says to come again later."""


class ContextTruncated(ModelError):
    """A server cut the prompt before the model read it, so its answer is to another question."""

    def __init__(self, *, sent: int, read: int, who: str) -> None:
        """Say how many tokens were `sent` and how many `who` has `read`."""
        self.sent = sent
        self.read = read
        super().__init__(
            f"{who} read {read} of the prompt's {sent} tokens and cut the rest, so its answer was "
            "thrown away. Give it a larger context, or ask for a smaller one here, so that the "
            "prompt is shortened where it does no harm."
        )


class ScoreUnavailable(ModelError):
    """A runtime has no probabilities to give. What it writes can still be read."""


class ContextOverflow(CorralError):
    """The prompt, with room for an answer, is longer than the model's context. Nothing was sent."""

    def __init__(self, *, needed: int, available: int, what: str = "The prompt") -> None:
        """Say how many tokens are `needed` and how many are `available`."""
        self.needed = needed
        self.available = available
        super().__init__(
            f"{what} needs {needed} tokens and the model has room for {available}. "
            "Shorten the message or the instructions, offer fewer tools, or start a new session."
        )


class SandboxUnavailable(CorralError):
    """No sandbox passed its self-test here: says which probe failed, and the remedy."""


class StoreError(CorralError):
    """The conversation store can't be opened, read or written."""


class SessionBusy(StoreError):
    """Another turn is running in this session; turns never interleave."""


class ShieldError(CorralError):
    """A shield could not give a verdict."""


class ToolError(CorralError):
    """Raised by a tool to tell the model, in words, what went wrong."""


class ToolRetry(ToolError):
    """Raised by a tool to have the model make the call again, mended: says what to mend.

    A tool has so many tries a turn as its `retries` say; after them this is an error like any.
    """
