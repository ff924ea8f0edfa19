"""What a model runtime is: prompts in, pieces out.

One small protocol that every way of running a model fulfils (in process, Ollama, a completions
server, a script in tests), and the plain data that passes through it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corral.events import Usage
from corral.messages import StopReason
from corral.model_runtime.profiles import ModelProfile
from corral.model_runtime.prompt import Prompt

__all__ = ["Finish", "Piece", "Runtime", "Sampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    `temperature` 0 is greedy; `seed` makes a draw repeatable on one machine and runtime.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of output: plain text, or one control token by its name (`is_special`).

    Text pieces are whole characters: a runtime holds back bytes until they make one.
    """

    text: str
    is_special: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The last thing that a generation yields: why it stopped, and the tokens it took."""

    reason: StopReason
    usage: Usage


class Runtime(Protocol):
    """A model that can be asked. One object serves any number of agents at once."""

    @property
    def name(self) -> str:
        """The model string it was opened with, such as `cria` or `ollama:llama3.2:3b`."""
        ...

    @property
    def profile(self) -> ModelProfile:
        """What is known of the model."""
        ...

    def generate(self, prompt: Prompt, *, sampling: Sampling) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt: pieces as they come, then one `Finish`.

        End tokens are not yielded. Closing the generator, or cancelling the task that reads it,
        stops the model within a token.

        Raises:
            ContextOverflow: The prompt and `sampling.max_tokens` don't fit; nothing was computed.
            ModelError: The model broke on the way.
        """
        ...

    async def score(self, prompt: Prompt, candidates: Sequence[str]) -> Mapping[str, float]:
        """The probability, 0 to 1, that the prompt goes on with each candidate's first token.

        Probabilities are over the whole vocabulary, so they need not add up to 1.
        """
        ...

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""
        ...

    async def aclose(self) -> None:
        """Let the model go. Safe to call twice."""
        ...
