"""What a model runtime is: prompts in, pieces out.

One small protocol that every way of running a model fulfils (in process, Ollama, a completions
server, a script in tests), and the plain data that passes through it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import JsonValue

from corral.errors import ConfigError
from corral.events import Usage
from corral.messages import StopReason, ToolSpec
from corral.model_runtime.profiles import ModelProfile
from corral.model_runtime.prompt import Prompt

__all__ = [
    "Constraint",
    "ConstraintKind",
    "Embedder",
    "Finish",
    "Piece",
    "Runtime",
    "Sampling",
    "check_constraint",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    `temperature` 0 is greedy; `seed` makes a draw repeatable on one machine and runtime.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None


ConstraintKind: TypeAlias = Literal["calls", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What an output may be, for runtimes that can hold a model to it.

    Either `json_schema`: the output is one JSON value that the schema admits. Or `tools`: the
    output is plain text or calls of these tools, valid by their schemas, in the `syntax` of the
    model's profile; with `required` it can only be calls, and without `parallel` one call only,
    for models that make one at a time. The code interpreter's code stays free.
    """

    json_schema: Mapping[str, JsonValue] | None = None
    tools: tuple[ToolSpec, ...] = ()
    required: bool = False
    syntax: Literal["pythonic", "json", "tags"] = "pythonic"
    parallel: bool = True

    @property
    def kind(self) -> ConstraintKind:
        """What it constrains the output to."""
        return "calls" if self.json_schema is None else "json"


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

    @property
    def constrains(self) -> frozenset[ConstraintKind]:
        """The kinds of constraint that `generate` can hold the model to."""
        ...

    def generate(
        self, prompt: Prompt, *, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Piece | Finish]:
        """Continue a prompt: pieces as they come, then one `Finish`.

        End tokens are not yielded. Closing the generator, or cancelling the task that reads it,
        stops the model within a token.

        Raises:
            ConfigError: The constraint is of a kind that is not in `constrains`.
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


def check_constraint(runtime: Runtime, constraint: Constraint | None) -> None:
    """See that `runtime` can hold its model to `constraint`.

    Raises:
        ConfigError: It can't.
    """
    if constraint is not None and constraint.kind not in runtime.constrains:
        raise ConfigError(
            f"{runtime.name!r} can't hold a model to {constraint.kind!r}. Ask without a "
            "constraint and check what comes, or use a runtime that can."
        )


@runtime_checkable
class Embedder(Protocol):
    """A model that turns texts into vectors."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of unit length for each text, all of the same dimension, in order."""
        ...
