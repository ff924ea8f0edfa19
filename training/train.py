"""Train an adapter: `python -m training.train cria --base FOLDER --minutes 45`.

Stops when its minutes are used up, whatever the machine does in them: the learning rate follows the
share of the time that has passed. On a processor it is the time that the run got there. Checkpoints
are safetensors and JSON, written beside the last one and then put in its place; the same command
goes on from there, and with another seed it goes on with other data. Ctrl-C ends the step under way
and writes one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corral.model_runtime.cria.base import RENAMED
from training.export import PACKAGE, own_tensors
from training.lora import LoraLlama, Shape, loss_on_labels
from training.trees import FolderEncoder, Packed, guard_trees, pack_tree, take_labels

__all__ = ["Progress", "Trainer", "load_base", "main", "packed_trees", "usual_dtype"]

RUNS = Path(__file__).parent / "runs"


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Minutes are of training alone, and on a processor of its own time there, a worker: when other
    programs take the cores, the run gets longer and not worse.
    """

    step: int = 0
    trees: int = 0
    tokens: int = 0
    labels: int = 0
    minutes: float = 0.0
    began: float = 0.0
    """The minute from which the learning rate falls: more than 0 where it was raised once more."""
    warmed: int = 0
    """The step from which the rate warms up: more than 0 where the optimizer began afresh."""
    loss: float = math.nan
    """Nats a label, averaged over about the last thirty steps."""


def usual_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it in hardware, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16
    fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _has_bf16()
    return torch.bfloat16 if fast else torch.float32


def _has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def load_base(folder: Path) -> tuple[Shape, dict[str, Tensor], list[int]]:
    """The sizes, the weights and the renamed control tokens' ids of a folder that `training.base`
    made.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = FolderEncoder(folder)
    control = [encoder.special_id(token) for token in RENAMED.values()]
    return Shape.from_config(config), load_file(folder / "model.safetensors"), control


def packed_trees(name: str, encoder: FolderEncoder, *, seed: int) -> Iterator[Packed]:
    """The endless training data of an adapter, packed."""
    from training import conversations

    if name == "cria-guard":
        yield from guard_trees(conversations.guard_examples(seed), encoder)
        return
    for tree in conversations.cria_trees(seed):
        packed = pack_tree(tree, encoder)
        if packed is not None:
            yield packed


class Trainer:
    """One run: a model, its optimizer, its data and how far it has come.

    Args:
        model: The base with fresh adapters.
        trees: Packed trees, endless.
        minutes: How long to train in all, earlier parts of a resumed run counted in.
        rate: AdamW's learning rate at its highest.
        labels: About how many labels go into a step.
        workers: How many trees are computed side by side, each on one thread.
    """

    warm_up = 15
    floor = 0.05
    clip = 1.0

    def __init__(
        self,
        model: LoraLlama,
        trees: Iterator[Packed],
        *,
        minutes: float,
        rate: float = 1e-3,
        labels: int = 870,
        workers: int = 1,
    ) -> None:
        self.model = model
        self.trees = trees
        self.budget = minutes
        self.rate = rate
        self.labels = labels
        self.parameters = model.adapter()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.progress = Progress()
        self.stopping = False
        """Set from outside, it ends `run` after the step under way, with a checkpoint."""
        self._cores = workers
        self._workers = ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(1,)
        )

    def _clock(self) -> float:
        """Seconds, of which only differences mean anything."""
        if self.model.delta.device.type != "cpu":
            return time.monotonic()
        return time.process_time() / self._cores

    def rate_now(self) -> float:
        """Warm-up by steps, then a cosine over the time, down to a twentieth."""
        began = self.progress.began
        share = min(1.0, (self.progress.minutes - began) / max(1e-9, self.budget - began))
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share))
        steps = self.progress.step - self.progress.warmed + 1
        return self.rate * cosine * min(1.0, steps / self.warm_up)

    def step(self) -> float:
        """One step of the optimizer; the loss in nats a label."""
        began = self._clock()
        trees = take_labels(self.trees, self.labels)
        if not trees:
            raise RuntimeError("The training data has come to an end.")
        count = sum(len(tree.labels) for tree in trees)
        total = self._gradients(trees) / count
        for parameter in self.parameters.values():
            assert parameter.grad is not None
            parameter.grad.div_(count)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_now()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        p = self.progress
        p.step += 1
        p.trees += len(trees)
        p.tokens += sum(len(tree.ids) for tree in trees)
        p.labels += count
        p.minutes += (self._clock() - began) / 60
        p.loss = total if math.isnan(p.loss) else p.loss + (total - p.loss) / min(30, p.step)
        return total

    def _gradients(self, trees: list[Packed]) -> float:
        """Sum the trees' gradients into the parameters; the summed loss.

        Each worker takes the next tree when it is done with one. On a processor that is faster than
        sharing out every small operation, above all when other programs want the cores too.
        """
        longest_first = sorted(trees, key=lambda tree: -len(tree.ids))
        results = self._workers.map(self._gradient, longest_first)
        total = 0.0
        for loss, gradients in results:
            total += loss
            for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        return total

    def _gradient(self, tree: Packed) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_on_labels(self.model(tree), tree)
        return loss.item(), torch.autograd.grad(loss, list(self.parameters.values()))

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a crash on the way leaves the one before it."""
        temporary = folder.with_name(folder.name + ".part")
        temporary.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in self.parameters.items()},
            temporary / "adapter.safetensors",
        )
        moments: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                moments[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        save_file(moments, temporary / "optimizer.safetensors")
        state = {
            "progress": asdict(self.progress),
            "rank": self.model.rank,
            "scale": self.model.scale,
        }
        (temporary / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        older = folder.with_name(folder.name + ".old")
        if folder.exists():
            os.replace(folder, older)
        os.replace(temporary, folder)
        for path in older.glob("*"):
            path.unlink()
        if older.exists():
            older.rmdir()

    def load(self, folder: Path, *, replay: bool = True) -> None:
        """Go on from a checkpoint; `replay` runs the data forward to where it was."""
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self.progress = Progress(**state["progress"])
        self.model.load_adapter(load_file(folder / "adapter.safetensors"))
        moments = load_file(folder / "optimizer.safetensors")
        for name, parameter in self.parameters.items():
            head = f"{name}:"
            self.optimizer.state[parameter] = {
                key.removeprefix(head): value
                if key.endswith(":step")
                else value.to(parameter.device)
                for key, value in moments.items()
                if key.startswith(head)
            }
        for _ in range(self.progress.trees if replay else 0):
            next(self.trees)

    def begin_with(
        self, folder: Path, entry: dict[str, Any], weights: Mapping[str, Tensor]
    ) -> None:
        """Go on from an adapter of the package and its manifest entry, with a fresh optimizer.

        `weights` are the base's.
        """
        self.model.load_adapter(own_tensors(folder, weights, self.model.scale))
        counts = {name: entry[name] for name in ("tokens", "labels", "minutes")}
        self.progress = Progress(
            **counts, step=entry["steps"], began=entry["minutes"], warmed=entry["steps"]
        )

    def run(self, folder: Path, *, checkpoint_minutes: float = 3.0, log_every: int = 5) -> None:
        """Train until the minutes are used up, saying now and then how it goes."""
        saved = self.progress.minutes
        while self.progress.minutes < self.budget and not self.stopping:
            before = (self.progress.tokens, self.progress.labels, self.progress.minutes)
            loss = self.step()
            p = self.progress
            if p.step % log_every == 0 or p.step < 5:
                seconds = (p.minutes - before[2]) * 60
                print(
                    f"step {p.step} minute {p.minutes:.1f} loss {loss:.3f} mean {p.loss:.3f} "
                    f"rate {self.optimizer.param_groups[0]['lr']:.1e} "
                    f"tokens/s {(p.tokens - before[0]) / seconds:.0f} "
                    f"labels/s {(p.labels - before[1]) / seconds:.0f} labels {p.labels}",
                    flush=True,
                )
            if p.minutes - saved >= checkpoint_minutes:
                saved = p.minutes
                self.save(folder)
                print(f"checkpoint at {p.minutes:.1f} minutes", flush=True)
        self.save(folder)
        print(f"{'stopped' if self.stopping else 'done'}: {self.progress}", flush=True)


def _commit() -> str | None:
    """The commit that this file belongs to, with a `+` where files were changed since."""
    here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **here).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "."], **here).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["cria", "cria-guard"])
    parser.add_argument("--base", type=Path, required=True, help="the converted base's folder")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--rank", type=int, help="16 for cria, 3 for cria-guard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--anew", action="store_true", help="raise the rate once more when going on from a run"
    )
    parser.add_argument(
        "--packaged", action="store_true", help="begin with the adapter that the package holds"
    )
    parser.add_argument("--labels", type=int, help="labels a step: 870 for cria, 64 for cria-guard")
    parser.add_argument("--run", type=Path, help="the run's folder; default training/runs/NAME")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)

    guard = options.name == "cria-guard"
    workers = 1 if torch.cuda.is_available() else options.workers
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = usual_dtype(device)
    shape, weights, control = load_base(options.base)
    model = LoraLlama(
        shape,
        weights,
        control_ids=control,
        rank=options.rank or (3 if guard else 16),
        dtype=dtype,
        seed=options.seed,
    ).to(device)
    print(f"{options.name} on {device.type} in {dtype}, {workers} workers", flush=True)
    encoder = FolderEncoder(options.base)
    trainer = Trainer(
        model,
        packed_trees(options.name, encoder, seed=options.seed),
        minutes=options.minutes,
        rate=options.rate,
        labels=options.labels or (64 if guard else 870),
        workers=workers,
    )
    folder = (options.run or RUNS / options.name) / "checkpoint"
    written = folder.parent / "settings.json"
    began_with = None
    if (folder / "state.json").exists():
        before = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
        trainer.load(folder, replay=before.get("seed") == options.seed)
        began_with = before.get("began_with")
        if options.anew:
            trainer.progress.began = trainer.progress.minutes
        print(f"going on from {trainer.progress}", flush=True)
    elif options.packaged:
        manifest = json.loads((PACKAGE / "manifest.json").read_text(encoding="utf-8"))
        entry = manifest["adapters"][options.name]
        trainer.begin_with(PACKAGE / options.name, entry, weights)
        began_with = entry["sha256"]
        print(f"going on from the package's: {trainer.progress}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    settings["commit"] = _commit()
    settings["began_with"] = began_with
    written.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def stop(signum: int, frame: object) -> None:
        trainer.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    trainer.run(folder)


if __name__ == "__main__":
    main()
