"""How far the guard's probabilities can be taken at their word.

A score is calibrated if of the conversations that are given 0.8, eight in ten are unsafe. What is
learnt tends to be too sure of itself, which one number mends: the temperature that all logits are
divided by. It is fitted on the validation split and goes with the adapter. Source: Guo et al. 2017,
On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["best_temperature", "brier", "calibration_error"]

_LEAST = 1e-6
_BINS = 10

Scored = Sequence[tuple[float, bool]]
"""Probabilities that something is unsafe, 0 to 1, and whether it is."""


def brier(scored: Scored) -> float:
    """The mean squared error: 0 is perfect, 0.25 is what always saying 0.5 gives."""
    return sum((score - unsafe) ** 2 for score, unsafe in scored) / len(scored)


def calibration_error(scored: Scored) -> float:
    """The expected calibration error: how far scores are off on average, in ten bins of score."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, unsafe in scored:
        bins.setdefault(min(int(score * _BINS), _BINS - 1), []).append((score, unsafe))
    off = 0.0
    for some in bins.values():
        off += abs(sum(score for score, _ in some) - sum(unsafe for _, unsafe in some))
    return off / len(scored)


def best_temperature(scored: Scored) -> float:
    """What the logits should be divided by, so that what happened was likeliest; 0.5 to 8."""
    logits = [(_logit(score), unsafe) for score, unsafe in scored]
    candidates = [0.5 * 1.05**step for step in range(58)]
    return min(candidates, key=lambda temperature: _surprise(logits, temperature))


def _logit(score: float) -> float:
    score = min(max(score, _LEAST), 1 - _LEAST)
    return math.log(score / (1 - score))


def _surprise(logits: Sequence[tuple[float, bool]], temperature: float) -> float:
    """Nats in all; log(1 + exp(-x)) of the side that was right."""
    total = 0.0
    for logit, unsafe in logits:
        x = (logit if unsafe else -logit) / temperature
        total += math.log1p(math.exp(-abs(x))) + max(-x, 0.0)
    return total
