"""Constraints compiled for a tokenizer by llguidance, and followed token by token."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corral.errors import ConfigError, ModelError, RuntimeUnavailable
from corral.model_runtime.grammar.calls import grammar_of
from corral.model_runtime.grammar.schemas import SchemaBounds
from corral.model_runtime.runtime import Constraint
from corral.model_runtime.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["Grammars", "Matcher"]

_KEPT = 64


class Grammars:
    """The grammars of one tokenizer: compiled once, the last used kept. Safe from any thread."""

    def __init__(
        self, tokenizer: LlamaTokenizer, *, vocabulary: int, bounds: SchemaBounds = SchemaBounds()
    ) -> None:
        """Make grammars for a model whose logits are `vocabulary` wide.

        Takes up to two seconds for Llama 3's vocabulary.

        Raises:
            RuntimeUnavailable: llguidance isn't installed.
        """
        try:
            import llguidance
        except ImportError as error:
            raise RuntimeUnavailable(
                "Holding a model to valid calls needs the package 'llguidance'. Install it: pip "
                "install 'llama-corral[local]'"
            ) from error
        self._engine: Any = llguidance
        self._tokenizer: Any = llguidance.LLTokenizer(
            tokenizer.definition(), n_vocab=vocabulary, eos_token=sorted(tokenizer.stops)
        )
        self._vocabulary = vocabulary
        self._ceilings = _ceilings()
        self._end = sorted(tokenizer.stops)[0]
        self._bounds = bounds
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Something that follows one output under a constraint.

        Raises:
            ConfigError: A schema can't be made a grammar of.
        """
        key = json.dumps(
            [
                constraint.json_schema,
                [tool.model_dump() for tool in constraint.tools],
                constraint.required,
                constraint.syntax,
                constraint.parallel,
            ],
            sort_keys=False,
            default=dict,
        )
        with self._lock:
            found = self._compiled.get(key)
            if found is None:
                found = self._compile(constraint)
                self._compiled[key] = found
                if len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return Matcher(
                found.deep_copy(),
                vocabulary=self._vocabulary,
                end=self._end,
                ceilings=self._ceilings,
            )

    def _compile(self, constraint: Constraint) -> Any:
        matcher = self._build(constraint, self._bounds)
        if matcher.is_error():
            # A pattern may look ahead, which no grammar can. What it forbids, validation refuses.
            matcher = self._build(constraint, replace(self._bounds, loose=True))
        if matcher.is_error():
            names = ", ".join(tool.name for tool in constraint.tools) or "the answer"
            raise ConfigError(
                f"The schema of {names} can't be made a grammar of: {matcher.get_error()}. "
                "Simplify it, or run unconstrained (constrained: false)."
            )
        return matcher

    def _build(self, constraint: Constraint, bounds: SchemaBounds) -> Any:
        engine = self._engine.LLMatcher
        return engine(
            self._tokenizer, engine.grammar_from_lark(grammar_of(constraint, bounds)), log_level=0
        )


def _ceilings() -> torch.Tensor:
    """The most that eight tokens' logits may be, by the byte that tells which of them may come.

    Shape: (256, 8). A table, since looking bytes up is many times faster than taking bits apart.
    """
    import torch

    allowed = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return torch.where(allowed.bool(), float("inf"), float("-inf"))


class Matcher:
    """Follows one output: what may come next, and what must."""

    def __init__(self, matcher: Any, *, vocabulary: int, end: int, ceilings: torch.Tensor) -> None:
        """Begin at the start of an output. Made by `Grammars.matcher`."""
        import torch

        self._matcher: Any = matcher
        self.end = end
        """A token that ends an output."""
        self._vocabulary = vocabulary
        # A bit a token, set where it may come. The engine writes them here by their address.
        words = torch.zeros((vocabulary + 31) // 32, dtype=torch.int32)
        self._bits, self._address = words.view(torch.uint8), words.data_ptr()
        self._ceilings = ceilings

    @property
    def done(self) -> bool:
        """Whether nothing but the end may come."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits with those of forbidden tokens at minus infinity. Shape: (vocabulary,)."""
        import torch

        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.numel())
        self._check()
        self._ceilings = self._ceilings.to(logits)
        rows = self._bits.to(logits.device).int()
        ceiling = self._ceilings.index_select(0, rows).flatten()[: self._vocabulary]
        return torch.minimum(logits, ceiling)

    def advance(self, token: int) -> None:
        """Take the token that came next.

        Raises:
            ModelError: It wasn't allowed.
        """
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> Sequence[int]:
        """The tokens that can only come next, already taken; none where there is a choice."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        for token in tokens:
            self.advance(token)
        return tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ModelError(
                f"The output left its grammar: {self._matcher.get_error()}. Run the agent "
                "unconstrained (constrained: false), and report the schema that did this."
            )
