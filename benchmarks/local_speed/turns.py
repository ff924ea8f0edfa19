"""Measuring side by side: everyone takes a turn in every round, so a busy machine slows all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

Values = dict[str, list[float]]


async def take_turns(
    measures: Mapping[str, Callable[[], Awaitable[Mapping[str, float]]]], rounds: int
) -> dict[str, Values]:
    """Let each measure have its turn in every round: A B C A B C ...

    A measure returns named figures. Returns, for each measure, the values of each figure. A first
    round warms everything up and isn't counted where there are more than two.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            began = time.perf_counter()
            figures = await measure()
            log(f"round {number + 1} of {rounds}, {name}: {time.perf_counter() - began:.1f} s")
            for figure, value in figures.items():
                found[name].setdefault(figure, []).append(value)
    if rounds > 2:
        found = {n: {f: v[1:] for f, v in values.items()} for n, values in found.items()}
    return found


def medians(found: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    """The median of each figure of each measure."""
    return {
        name: {figure: statistics.median(values) for figure, values in figures.items()}
        for name, figures in found.items()
    }


def spread(values: Sequence[float]) -> str:
    """The lowest and the highest, for people."""
    return f"{_shown(min(values))}-{_shown(max(values))}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table. Floats are shown with three digits."""
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join(lines)


def title(text: str) -> None:
    print(f"\n### {text}\n", flush=True)


def say(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def log(text: str) -> None:
    """Say where it is, beside the results."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(_shown, cells))} |"


def _shown(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    if cell != cell:
        return ""
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
