"""Put a run's adapter into the package: `python -m training.export cria training/runs/cria --scores
hand=hand.json grammar=grammar.json`.

Writes `corral/model_runtime/cria/NAME.safetensors` in float16, the adapter's entry in
`manifest.json`, and from its scores the tables of `CARD.md`. With `--try FOLDER --base BASE` it
leaves the package alone and makes a ready model folder, for an evaluation before that.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from corral.model_runtime.cria.base import RENAMED
from corral.model_runtime.cria.build import merge, sha256_of
from training.card import write_tables
from training.trees import FolderEncoder

__all__ = ["export", "main", "ready_folder"]

PACKAGE = Path(__file__).parents[1] / "corral" / "model_runtime" / "cria"


def export(
    name: str,
    run: Path,
    *,
    temperature: float = 1.0,
    scores: dict[str, Any] | None = None,
    package: Path = PACKAGE,
) -> Path:
    """Write the adapter of a run's last checkpoint and its manifest entry; the adapter's path.

    Its logits will be divided by `temperature`. Without `scores` those in the manifest are dropped,
    since they are another adapter's.
    """
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    path = package / f"{name}.safetensors"
    state = _write_adapter(name, run, path, temperature)
    progress = state["progress"]
    manifest_path = package / "manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    manifest["adapters"][name] = {
        "sha256": sha256_of(path),
        "rank": state["rank"],
        "scale": state["scale"],
        "temperature": temperature,
        "commit": settings.get("commit"),
        "began_with": settings.get("began_with"),
        "seed": settings["seed"],
        "steps": progress["step"],
        "minutes": round(progress["minutes"], 1),
        "tokens": progress["tokens"],
        "labels": progress["labels"],
        "loss": None if math.isnan(progress["loss"]) else round(progress["loss"], 4),
        "scores": scores,
    }
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    card = package / "CARD.md"
    if card.exists():
        write_tables(manifest, card)
    return path


def _write_adapter(name: str, run: Path, path: Path, temperature: float) -> dict[str, Any]:
    """Write the last checkpoint's adapter in float16; the checkpoint's state."""
    checkpoint = run / "checkpoint"
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(checkpoint / "adapter.safetensors")
    save_file(
        {key: tensor.to(torch.float16).contiguous() for key, tensor in tensors.items()},
        path,
        metadata={
            "name": name,
            "scale": str(state["scale"]),
            "rank": str(state["rank"]),
            "temperature": str(temperature),
        },
    )
    path.chmod(0o644)
    return state


def ready_folder(name: str, run: Path, base: Path, to: Path, *, temperature: float = 1.0) -> Path:
    """Merge a run's last checkpoint into the converted base, as a model folder of its own."""
    to.mkdir(parents=True, exist_ok=True)
    for file in base.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, to / file.name)
    adapter = to / "adapter.tmp"
    _write_adapter(name, run, adapter, temperature)
    encoder = FolderEncoder(base)
    control = [encoder.special_id(token) for token in RENAMED.values()]
    weights = load_file(base / "model.safetensors")
    merged = merge({k: t.float().numpy() for k, t in weights.items()}, adapter, control)
    adapter.unlink()
    save_file(
        {key: torch.from_numpy(array).to(torch.float16) for key, array in merged.items()},
        to / "model.safetensors",
        metadata={"format": "pt"},
    )
    return to


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--scores", nargs="+", default=[], metavar="SET=FILE", help="what training.evaluate wrote"
    )
    parser.add_argument("--try", type=Path, dest="folder", help="make a model folder instead")
    parser.add_argument("--base", type=Path, help="the converted base, for --try")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="what the logits are divided by"
    )
    options = parser.parse_args(arguments)
    if options.folder is not None:
        if options.base is None:
            parser.error("--try needs --base, the converted base's folder")
        made = ready_folder(
            options.name,
            options.run,
            options.base,
            options.folder,
            temperature=options.temperature,
        )
        print(made)
        return
    scores: dict[str, Any] = {}
    for pair in options.scores:
        name, _, file = pair.partition("=")
        scores[name] = json.loads(Path(file).read_text(encoding="utf-8"))
    print(export(options.name, options.run, temperature=options.temperature, scores=scores or None))


if __name__ == "__main__":
    main()
