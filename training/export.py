"""Put a run's adapter into the package: `python -m training.export cria training/runs/cria --scores
scores.json`.

Writes `corral/model_runtime/cria/NAME.safetensors` in float16 and the adapter's entry in
`manifest.json`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from corral.model_runtime.cria.build import sha256_of

__all__ = ["export", "main"]

PACKAGE = Path(__file__).parents[1] / "corral" / "model_runtime" / "cria"


def export(
    name: str, run: Path, *, scores: dict[str, Any] | None = None, package: Path = PACKAGE
) -> Path:
    """Write the adapter of a run's last checkpoint and its manifest entry; the adapter's path.

    Without `scores` those in the manifest are dropped, since they are another adapter's.
    """
    checkpoint = run / "checkpoint"
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    tensors = load_file(checkpoint / "adapter.safetensors")
    path = package / f"{name}.safetensors"
    save_file(
        {key: tensor.to(torch.float16).contiguous() for key, tensor in tensors.items()},
        path,
        metadata={"name": name, "scale": str(state["scale"]), "rank": str(state["rank"])},
    )
    path.chmod(0o644)
    progress = state["progress"]
    manifest_path = package / "manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    manifest["adapters"][name] = {
        "sha256": sha256_of(path),
        "rank": state["rank"],
        "scale": state["scale"],
        "seed": settings["seed"],
        "steps": progress["step"],
        "minutes": round(progress["minutes"], 1),
        "tokens": progress["tokens"],
        "labels": progress["labels"],
        "loss": None if math.isnan(progress["loss"]) else round(progress["loss"], 4),
        "scores": scores,
    }
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--scores", type=Path, help="what training.evaluate wrote")
    options = parser.parse_args(arguments)
    scores = json.loads(options.scores.read_text(encoding="utf-8")) if options.scores else None
    print(export(options.name, options.run, scores=scores))


if __name__ == "__main__":
    main()
