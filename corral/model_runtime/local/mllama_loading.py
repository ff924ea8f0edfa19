"""From a folder of a Llama 3.2 Vision model to an engine, in the precision that the device takes.

On a CPU the text model's products go through Corral's kernels, by default in 8 bits. The model that
looks at images stays in 32: it runs once an image, and its massive activations were never measured
in 8 bits. What was converted to 8 bits is kept as a text model's is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import RuntimeUnavailable
from corral.model_runtime.local.checkpoint import Checkpoint
from corral.model_runtime.local.images import IMAGE_LIMITS, ImageLimits
from corral.model_runtime.local.kernels import BYTES, Kernel, Linear, Precision, choose_kernel
from corral.model_runtime.local.loading import check_memory, place
from corral.model_runtime.local.mllama import MllamaEngine
from corral.model_runtime.local.weights import Converted, Told, prepare_all

if TYPE_CHECKING:
    import torch

__all__ = ["load_mllama"]

_TEXT = ("language_model.", "lm_head.")


def load_mllama(
    folder: Path,
    *,
    name: str,
    device: str | None = None,
    precision: Precision | None = None,
    limits: ImageLimits = IMAGE_LIMITS,
    tell: Told | None = None,
) -> MllamaEngine:
    """Load a vision model. Blocking: seconds, and the first time in int8 some minutes for an 11B.

    Args:
        folder: Holds `config.json`, `preprocessor_config.json` and the `*.safetensors`.
        name: What errors call the model.
        device: `cpu`, `cuda` or `mps`; by default the best there is.
        precision: By default the fastest on the device; see `choose_kernel`.
        limits: How large images may be.
        tell: Told of the progress where weights are converted.

    Raises:
        RuntimeUnavailable: The files are damaged, incomplete or don't belong together, or the model
            doesn't fit into memory.
    """
    import torch

    placed = place(device)
    kind = placed.partition(":")[0]
    kernel = choose_kernel(kind, precision)
    checkpoint = Checkpoint(folder)
    nbytes = _needed(checkpoint, kernel.precision, kind, name)
    types: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
    wanted = types.get(kernel.precision, torch.float32)
    converted = kind == "cpu" and kernel.precision != "fp32"
    model = _model(folder, name, dtype="auto" if converted else wanted)
    _check_image_parts(folder, model.config, name)
    if converted:
        _convert(model, kernel, checkpoint, tell)
    return MllamaEngine(
        model.to(placed).eval(),
        folder=folder,
        nbytes=nbytes,
        summary=f"{placed}, {kernel.precision} ({kernel.name})",
        limits=limits,
    )


def _model(folder: Path, name: str, *, dtype: Any) -> Any:
    from transformers import MllamaConfig, MllamaForConditionalGeneration
    from transformers.utils import logging

    kind: Any = MllamaForConditionalGeneration
    settings: Any = MllamaConfig
    found = settings.from_pretrained(str(folder), local_files_only=True)
    if getattr(found, "quantization_config", None):
        raise RuntimeUnavailable(
            f"The model {name!r} is quantised by another program, and its weights are of no use to "
            "this one. Name the model that it was made from."
        )
    logging.disable_progress_bar()  # pyright: ignore[reportUnknownMemberType]
    try:
        model, told = kind.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except Exception as error:
        raise RuntimeUnavailable(
            f"The model {name!r} can't be loaded from {str(folder)!r}: {error}. Its files may be "
            "damaged: fetch them again."
        ) from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise RuntimeUnavailable(
            f"The weights of {name!r} lack {missing[0]!r}. They are not a whole vision model: "
            "fetch them again."
        )
    return model


def _needed(checkpoint: Checkpoint, precision: Precision, device: str, name: str) -> int:
    """The bytes that the weights will take, which are seen to be free."""
    text = other = 0
    for key, size in checkpoint.sizes().items():
        if any(part in key for part in _TEXT) and "embed_tokens" not in key:
            text += size
        else:
            other += size
    rest = 4 if device == "cpu" else BYTES[precision]
    smaller = ""
    if device == "cpu" and precision != "int8":
        smaller = f"With precision=int8 it would need {(text + other * 4) / 2**30:.1f} GiB. "
    needed = text * BYTES[precision] + other * rest
    check_memory(needed, name, device, smaller=smaller)
    return needed


def _check_image_parts(folder: Path, config: Any, name: str) -> None:
    """See that tokenizer, tiling and weights are of one model, or images would be lost unseen."""
    try:
        tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
        image = next((t["id"] for t in tokens if t["content"] == "<|image|>"), None)
        tiling = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        cut = (tiling["size"]["height"], tiling["size"]["width"], tiling["max_image_tiles"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeUnavailable(
            f"The folder {str(folder)!r} (model {name!r}) doesn't say how images are read: "
            f"{error}. A vision model needs tokenizer.json and preprocessor_config.json: fetch "
            "them again."
        ) from error
    vision = config.vision_config
    taken = (vision.image_size, vision.image_size, vision.max_num_tiles)
    if image != config.image_token_index or cut != taken:
        raise RuntimeUnavailable(
            f"The files of {name!r} don't belong together: <|image|> is {image} in tokenizer.json "
            f"and {config.image_token_index} in config.json; tiles (height, width, most) are {cut} "
            f"in preprocessor_config.json and {taken} in config.json. Fetch them again."
        )


class _Products:
    """The products of a vision model's text model, by the paths of their modules."""

    def __init__(self, model: Any) -> None:
        """Find them."""
        import torch

        self.modules: Mapping[str, Any] = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and any(part in f"{path}." for part in _TEXT)
        }

    def matrix(self, name: str) -> torch.Tensor:
        """One product's weight, as the checkpoint has it."""
        return self.modules[name].weight.detach()

    def names(self) -> Iterable[str]:
        """The paths."""
        return self.modules


def _convert(model: Any, kernel: Kernel, checkpoint: Checkpoint, tell: Told | None) -> None:
    """Put a kernel in the place of each product of the text model; all else is computed in fp32."""
    import torch

    class Product(torch.nn.Module):
        """A `torch.nn.Linear` without a bias, computed by one of Corral's kernels."""

        def __init__(self, linear: Linear) -> None:
            super().__init__()
            self._linear = linear

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            made = self._linear(rows.reshape(-1, rows.shape[-1]))
            return made.view(*rows.shape[:-1], made.shape[-1])

    exact = _Products(model)
    source = Converted(checkpoint, exact, tell=tell) if kernel.precision == "int8" else exact
    for path, linear in prepare_all(kernel, source, exact.names()).items():
        model.set_submodule(path, Product(linear))
    model.float()
