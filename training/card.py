"""The tables of the models' card, written from the scores in the manifest.

They stand between `<!-- NAME -->` and `<!-- end -->` in `CARD.md`; all other text is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["hand_table", "guard_table", "write_tables"]

_ROWS = (
    ("the right tool or tools", "tool"),
    ("every call right to the last argument", "exact"),
    ("words where no call was wanted", "no_needless_call"),
    ("a missing argument is asked for", "asks"),
    ("the interpreter prints what was wanted", "code"),
    ("an answer keeps the facts", "facts"),
)


def hand_table(scores: Mapping[str, Any]) -> str:
    """The items written by hand: measures down, without and with the grammar across."""
    plain, held = scores.get("hand"), scores.get("grammar")
    lines = ["| of the items written by hand | without grammar | with | of |", "| --- " * 4 + "|"]
    for label, name in _ROWS:
        cells = [_cell(some, name) for some in (plain, held)]
        count = next((some[name]["of"] for some in (plain, held) if some and name in some), None)
        if count is not None:
            lines.append(f"| {label} | {cells[0]} | {cells[1]} | {count} |")
    exact = scores.get("fp32")
    if exact:
        told = ", ".join(f"{label} {exact[name]['percent']} %" for label, name in _ROWS)
        lines += ["", f"The same with the grammar, in float32 instead of 8 bits: {told}."]
    leaderboard = scores.get("bfcl")
    if leaderboard:
        lines += ["", "| of the Berkeley leaderboard | without grammar | with | of |"]
        lines += ["| --- " * 4 + "|"]
        for category in dict.fromkeys(name.partition(" ")[0] for name in leaderboard):
            ways = [f"{category} {way} grammar" for way in ("without", "with")]
            cells = [_cell(leaderboard, way) for way in ways]
            count = next(leaderboard[way]["of"] for way in ways if way in leaderboard)
            lines.append(f"| {category} | {cells[0]} | {cells[1]} | {count} |")
    general = scores.get("general")
    if general:
        mine, base = general["cria"], general["base"]
        lines += [
            "",
            f"General questions right by their rubric, of {mine['of']}: cria {mine['percent']} % "
            f"({mine['low']} to {mine['high']}), the base in its own format {base['percent']} %.",
        ]
    return "\n".join(lines)


def _cell(some: Mapping[str, Any] | None, name: str) -> str:
    if not some or name not in some:
        return "-"
    share = some[name]
    return f"{share['percent']} % ({share['low']} to {share['high']})"


def guard_table(scores: Mapping[str, Any]) -> str:
    """The guard's verdicts on the generated and on the hand-written conversations."""
    sets = [(name, scores[name]) for name in ("heldout", "hand") if scores.get(name)]
    names = {"heldout": "generated", "hand": "written by hand"}
    head = "| | " + " | ".join(f"{names[n]}, {s['items']} ({s['unsafe']} unsafe)" for n, s in sets)
    lines = [head + " |", "| --- " * (len(sets) + 1) + "|"]
    for label, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        lines.append(f"| {label} | " + " | ".join(f"{s[key]} %" for _, s in sets) + " |")
    flagged = " | ".join(_cell(s, "harmless_flagged") for _, s in sets)
    lines.append(f"| harmless ones flagged | {flagged} |")
    lines.append("| right category, where unsafe | " + _joined(sets, "category") + " |")
    if all("calibration_error" in s for _, s in sets):
        for label, key in (
            ("calibration error of the score", "calibration_error"),
            ("its Brier score (0 is best, 0.25 a coin's)", "brier"),
        ):
            lines.append(f"| {label} | " + " | ".join(str(s[key]) for _, s in sets) + " |")
    by_category = [s["categories"] for n, s in sets if n == "hand"]
    if by_category:
        told = ", ".join(f"{name} {share['recall']}" for name, share in by_category[0].items())
        lines += ["", f"Recall by category, of those written by hand, in percent: {told}."]
    return "\n".join(lines)


def _joined(sets: list[tuple[str, Any]], key: str) -> str:
    return " | ".join(f"{some[key]} %" for _, some in sets)


def write_tables(manifest: Mapping[str, Any], card: Path) -> None:
    """Put the tables of both adapters into the card; one without scores keeps its table."""
    text = card.read_text(encoding="utf-8")
    for name, table in (("cria", hand_table), ("cria-guard", guard_table)):
        scores = manifest["adapters"].get(name, {}).get("scores") or {}
        if not {"hand", "grammar"} & scores.keys():
            continue
        whole = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        made = table(scores)
        text = whole.sub(lambda found, made=made: found[1] + made + found[2], text)
    card.write_text(text, encoding="utf-8")
