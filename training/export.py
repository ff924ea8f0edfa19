"""Put a run's adapter into the package: `python -m training.export cria training/runs/cria --base
FOLDER --scores hand=hand.json grammar=grammar.json`.

Writes the folder `corral/model_runtime/cria/NAME` in the layout of Hugging Face's `peft`, the
adapter's entry in `manifest.json`, and from its scores the tables of `CARD.md`. With `--try FOLDER`
it leaves the package alone and writes the adapter there, for an evaluation before that.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corral.model_runtime.cria.base import LORA_MAPS, RENAMED
from corral.model_runtime.cria.build import sha256_of
from corral.model_runtime.local.adapters import (
    NORM,
    ROWS,
    SETTINGS,
    STEM,
    WEIGHTS,
    read_adapter,
)
from training.card import write_tables
from training.trees import FolderEncoder

__all__ = ["Base", "Run", "base_of", "export", "main", "own_tensors", "write_adapter"]

PACKAGE = Path(__file__).parents[1] / "corral" / "model_runtime" / "cria"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run's folder holds: its settings, and its last checkpoint's state and tensors."""

    folder: Path
    settings: Mapping[str, Any]
    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run of a folder."""
        checkpoint = folder / "checkpoint"
        return cls(
            folder=folder,
            settings=json.loads((folder / "settings.json").read_text(encoding="utf-8")),
            state=json.loads((checkpoint / "state.json").read_text(encoding="utf-8")),
            tensors=load_file(checkpoint / "adapter.safetensors"),
        )

    def told(self) -> dict[str, Any]:
        """What the manifest says of it."""
        progress = self.state["progress"]
        return {
            "commit": self.settings.get("commit"),
            "began_with": self.settings.get("began_with"),
            "seed": self.settings["seed"],
            "steps": progress["step"],
            "minutes": round(progress["minutes"], 1),
            "tokens": progress["tokens"],
            "labels": progress["labels"],
            "loss": None if math.isnan(progress["loss"]) else round(progress["loss"], 4),
        }


def export(
    name: str,
    runs: Sequence[Run],
    base: Base,
    *,
    temperature: float = 1.0,
    share: float = 1.0,
    scores: dict[str, Any] | None = None,
    package: Path = PACKAGE,
) -> Path:
    """Write the adapter of a run's last checkpoint, or the mean of several runs', and its manifest
    entry; the adapter's folder.

    Its logits will be divided by `temperature`. For means see `write_adapter`; the adapter that the
    runs began with is then still in the package. Without `scores` those in the manifest are
    dropped, since they are another adapter's.
    """
    folder = package / name
    write_adapter(runs, base, folder, temperature=temperature, share=share, before=folder)
    first, *others = runs
    manifest_path = package / "manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    manifest["adapters"][name] = {
        "sha256": sha256_of(folder / WEIGHTS),
        "rank": first.state["rank"],
        "scale": first.state["scale"],
        "temperature": temperature,
        "share": share,
        **first.told(),
        "mean_with": [other.told() for other in others],
        "scores": scores,
    }
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    card = package / "CARD.md"
    if card.exists():
        write_tables(manifest, card)
    return folder


def write_adapter(
    runs: Sequence[Run],
    base: Base,
    folder: Path,
    *,
    temperature: float = 1.0,
    share: float = 1.0,
    before: Path | None = None,
) -> None:
    """Write the last checkpoint's adapter in float16, as `peft` would.

    Of several runs it is the mean. With a `share` below 1 the runs have
    that share, and the adapter of the folder `before`, which they began with, the rest.

    Raises:
        ValueError: What the runs began with isn't the same, or isn't there.
    """
    began = {run.settings.get("began_with") for run in runs}
    if len(runs) > 1 and (len(began) > 1 or None in began):
        raise ValueError("The mean of runs that began with different adapters says nothing.")
    state = runs[0].state
    tensors = {
        key: torch.stack([run.tensors[key] for run in runs]).mean(0) for key in runs[0].tensors
    }
    if share < 1:
        if before is None or {sha256_of(before / WEIGHTS)} != began:
            raise ValueError(f"{before} isn't the adapter that {runs[0].folder} began with.")
        earlier = own_tensors(before, base.weights, state["scale"])
        tensors = {key: share * t + (1 - share) * earlier[key] for key, t in tensors.items()}
    rows = base.weights["model.embed_tokens.weight"][list(base.control_ids)].float()
    written = {f"{STEM}{ROWS}": rows + tensors.pop("delta")}
    for key, tensor in tensors.items():
        name, _, letter = key.rpartition(".")
        written[f"{STEM}model.{name}.lora_{letter.upper()}.weight"] = tensor
    if temperature != 1.0:  # the last norm scales what the logits are made of, and nothing else
        norm = base.weights[NORM].float()
        written[f"{STEM}{NORM}"] = norm / temperature
    folder.mkdir(parents=True, exist_ok=True)
    halves = {key: tensor.to(torch.float16).contiguous() for key, tensor in written.items()}
    save_file(halves, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "inference_mode": True,
        "r": state["rank"],
        "lora_alpha": state["rank"] * state["scale"],
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [name.rpartition(".")[2] for name in LORA_MAPS],
        "trainable_token_indices": list(base.control_ids),
        "modules_to_save": None if temperature == 1.0 else ["model.norm"],
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def own_tensors(folder: Path, weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """An adapter as a run's checkpoint has it, with B to be multiplied by `scale`."""
    adapter = read_adapter(folder)
    assert adapter.rows is not None
    rows = weights["model.embed_tokens.weight"][list(adapter.rows.ids)].float()
    tensors = {"delta": adapter.rows.vectors - rows}
    for name, (a, b) in adapter.maps.items():
        head = name.removeprefix("model.")
        tensors |= {f"{head}.a": a, f"{head}.b": b / scale}
    return tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What an adapter is written for: the base's tensors and the control tokens' ids."""

    weights: Mapping[str, Tensor]
    control_ids: Sequence[int]


def base_of(folder: Path) -> Base:
    """The converted base of a folder."""
    encoder = FolderEncoder(folder)
    ids = [encoder.special_id(token) for token in RENAMED.values()]
    return Base(weights=load_file(folder / "model.safetensors"), control_ids=ids)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run's folder; of several that began with the same adapter, their mean",
    )
    parser.add_argument(
        "--scores", nargs="+", default=[], metavar="SET=FILE", help="what training.evaluate wrote"
    )
    parser.add_argument("--base", type=Path, required=True, help="the converted base's folder")
    parser.add_argument(
        "--try", type=Path, dest="folder", help="write the adapter there, and leave the package"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="what the logits are divided by"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="below 1: a mean with the package's adapter, which the runs began with",
    )
    options = parser.parse_args(arguments)
    base = base_of(options.base)
    runs = [Run.read(folder) for folder in options.runs]
    if options.folder is not None:
        write_adapter(
            runs,
            base,
            options.folder,
            temperature=options.temperature,
            share=options.share,
            before=PACKAGE / options.name,
        )
        print(options.folder)
        return
    scores: dict[str, Any] = {}
    for pair in options.scores:
        name, _, file = pair.partition("=")
        scores[name] = json.loads(Path(file).read_text(encoding="utf-8"))
    done = export(
        options.name,
        runs,
        base,
        temperature=options.temperature,
        share=options.share,
        scores=scores or None,
    )
    print(done)


if __name__ == "__main__":
    main()
