"""Grammars: what a model may write, token by token, so that its calls can't be malformed.

`Grammars` compiles a `Constraint` for one tokenizer; the `Matcher` it gives follows one output,
forbids the tokens that may not come next, and knows those that must.
"""

from __future__ import annotations

from corral.model_runtime.grammar.engine import Grammars, Matcher
from corral.model_runtime.grammar.schemas import SchemaBounds

__all__ = ["Grammars", "Matcher", "SchemaBounds"]
