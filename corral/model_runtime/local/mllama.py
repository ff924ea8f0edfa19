"""Llama 3.2 Vision and Llama Guard 3 11B Vision, on transformers' modules.

An image is no part of the text: a second model turns it into states, and some layers of the text
model look at them (cross-attention) and at nothing else. Which image a token looks at is told by
the text before it alone: the last `<|image|>`, and those that stand right before that one. Tokens
in front of the first image look at none, and the layers do nothing for them.

So a pass is cut at each `<|image|>`. Every token of a stretch looks at the same images, all of
them, and no mask is needed; and what is computed of a token never depends on an image that comes
later, as a cache of prefixes must be able to take for granted. Source: Meta's llama-models,
`models/llama3/multimodal/model.py` and `models/llama3/chat_format.py`. transformers 5.23 by itself
lets tokens in front of the first image look at all of them (its issue 39379), which Meta's code and
the models' training don't.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import ConfigError, ModelError
from corral.messages import ImagePart
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.images import IMAGE_LIMITS, ImageLimits, read_image

if TYPE_CHECKING:
    import torch

__all__ = ["MllamaCache", "MllamaEngine", "PreparedImage"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedImage:
    """One image, cut into tiles as the model's own processor cuts it."""

    digest: bytes
    """SHA-256 of the image's file."""
    pixels: torch.Tensor
    """Of shape (1, 1, most tiles, 3, height, width), float32; the tiles that there are come first.
    """
    aspect_ratio_ids: torch.Tensor
    """Of shape (1, 1): which arrangement of tiles it is."""
    aspect_ratio_mask: torch.Tensor
    """Of shape (1, 1, most tiles): 1 for each tile that there is."""
    tiles: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """An image whose token lies in a cache: its keys and values in each cross-attention layer."""

    position: int
    digest: bytes
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]


class MllamaCache:
    """The cache of one sequence. Fulfils `KVCache`.

    It holds the images whose `<|image|>` tokens it holds, in their order: cropping below such a
    token forgets the image with it. Forks share the images and, until they grow, the positions.
    A pass may bring more images than the cache has seen, each with its token.
    """

    __slots__ = ("_cross", "_layers", "_own", "length", "seen", "states")

    def __init__(self, layers: int, cross: Sequence[int]) -> None:
        """An empty cache of so many layers, of which those numbered `cross` look at images."""
        from transformers.cache_utils import Cache, DynamicLayer

        self._layers: list[Any] = [DynamicLayer() for _ in range(layers)]
        self._cross = tuple(cross)
        self._own = tuple(i for i in range(layers) if i not in set(cross))
        self.states: Any = Cache(layers=self._layers)
        self.seen: tuple[_Seen, ...] = ()
        self.length = 0

    @property
    def nbytes(self) -> int:
        """The memory of all tensors that it keeps alive, shared with a fork or not."""
        layers = (layer for layer in self._layers if layer.is_initialized)
        kept = [t for layer in layers for t in (layer.keys, layer.values)]
        kept += [t for image in self.seen for t in (*image.keys, *image.values)]
        storages = (t.untyped_storage() for t in kept)
        # A layer looks at a single image where it lies, at several in a copy.
        return sum({each.data_ptr(): each.nbytes() for each in storages}.values())

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions, and the images behind them."""
        if length >= self.length:
            return
        self._keep(self, length)

    def fork(self, length: int) -> MllamaCache:
        """Another cache of the first `length` positions. A cache that grows copies them."""
        other = MllamaCache(len(self._layers), self._cross)
        other._keep(self, min(length, self.length))
        return other

    def _keep(self, source: MllamaCache, length: int) -> None:
        for i in self._own:
            layer, origin = self._layers[i], source._layers[i]
            if not length:
                layer.keys = layer.values = None
                layer.is_initialized = False
                continue
            keys, values = origin.keys[..., :length, :], origin.values[..., :length, :]
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        self.length = length
        self.look_at(tuple(image for image in source.seen if image.position < length))

    def look_at(self, seen: tuple[_Seen, ...]) -> None:
        """Take over the images, and have the next tokens look at the last and its neighbours."""
        self.seen = seen
        shown: list[_Seen] = []
        for image in reversed(seen):
            if shown and image.position != shown[0].position - 1:
                break
            shown.insert(0, image)
        for n, i in enumerate(self._cross):
            layer = self._layers[i]
            layer.is_initialized = bool(shown)
            layer.keys = _joined([image.keys[n] for image in shown])
            layer.values = _joined([image.values[n] for image in shown])


class MllamaEngine:
    """A vision model in memory. Fulfils `Engine`; made by `local.mllama_loading`."""

    sees = True

    def __init__(
        self,
        model: Any,
        *,
        folder: Path,
        nbytes: int,
        summary: str,
        limits: ImageLimits = IMAGE_LIMITS,
    ) -> None:
        """Take over a loaded model.

        Args:
            model: A `MllamaForConditionalGeneration`, on its device.
            folder: Where the settings of its image processor are.
            nbytes: What the weights take.
            summary: See `Engine.summary`.
            limits: How large images may be.
        """
        text = model.config.text_config
        self.vocabulary: int = text.vocab_size
        self.context_length: int = text.max_position_embeddings
        self.nbytes = nbytes
        self.summary = summary
        self.image_token: int = model.config.image_token_index
        """The id of `<|image|>`, a row of the embedding that the head has not."""
        self._model = model
        self._text = model.model.language_model
        self._cross = sorted(text.cross_attention_layers)
        self._folder = folder
        self._limits = limits
        self._processor: Any = None
        for i in self._cross:
            # Else transformers takes a look at an image without a mask for one back in time.
            self._text.layers[i].cross_attn.is_causal = False

    def new_cache(self) -> MllamaCache:
        """An empty cache."""
        return MllamaCache(len(self._text.layers), self._cross)

    def prepare(self, images: Sequence[ImagePart]) -> tuple[PreparedImage, ...]:
        """See `Engine.prepare`. The images are cut into tiles; the model looks at them later.

        Raises:
            ModelError: An image is too large, damaged, or of a kind that isn't read.
            RuntimeUnavailable: Pillow isn't installed.
        """
        prepared: list[PreparedImage] = []
        for number, image in enumerate(images, 1):
            try:
                what = f"Image {number} of {len(images)}"
                prepared.append(self._prepared(image.data, what))
            except ConfigError as error:
                raise ModelError(str(error)) from error
        return tuple(prepared)

    def forward(self, steps: Sequence[Step]) -> list[torch.Tensor]:
        """One pass for each step; see `Engine.forward`.

        Raises:
            ModelError: A step has more `<|image|>` tokens than images, or its images aren't the
                ones that its cache has seen.
        """
        import torch

        with torch.inference_mode():
            return [self._step(step, torch) for step in steps]

    def _step(self, step: Step, torch_module: Any) -> torch.Tensor:
        cache: MllamaCache = step.cache
        images: Sequence[PreparedImage] = step.images or ()
        known = [image.digest for image in cache.seen[: len(images)]]
        if [image.digest for image in images[: len(known)]] != known:
            raise ModelError(
                "The images of the prompt are not those of its cache. Start with a new cache."
            )
        rows: list[torch.Tensor] = []
        for ids in self._stretches(step.ids):
            if ids[0] == self.image_token:
                if len(cache.seen) >= len(images):
                    raise ModelError(
                        f"The prompt has more <|image|> tokens than images, of which there are "
                        f"{len(images)}. Give each token its image."
                    )
                cache.look_at((*cache.seen, self._look(images[len(cache.seen)], cache.length)))
            rows.append(self._pass(ids, cache, torch_module))
        wanted = torch_module.cat(rows)[len(step.ids) - step.wanted :]
        return self._model.lm_head(wanted).float()

    def _stretches(self, ids: Sequence[int]) -> Iterator[Sequence[int]]:
        """The ids, cut in front of each image."""
        begin = 0
        for at, token in enumerate(ids):
            if token == self.image_token and at > begin:
                yield ids[begin:at]
                begin = at
        yield ids[begin:]

    def _pass(self, ids: Sequence[int], cache: MllamaCache, torch_module: Any) -> torch.Tensor:
        """Append tokens that look at the same images; the last layer's rows."""
        device = self._model.device
        positions = torch_module.arange(cache.length, cache.length + len(ids), device=device)
        output = self._text(
            input_ids=torch_module.tensor([list(ids)], device=device),
            position_ids=positions[None],
            past_key_values=cache.states,
            use_cache=True,
        )
        cache.length += len(ids)
        return output.last_hidden_state[0]

    def _look(self, image: PreparedImage, position: int) -> _Seen:
        """What the layers of cross-attention are to see of an image."""
        model, device = self._model.model, self._model.device
        found = model.vision_model(
            pixel_values=image.pixels.to(device),
            aspect_ratio_ids=image.aspect_ratio_ids.to(device),
            aspect_ratio_mask=image.aspect_ratio_mask.to(device),
        ).last_hidden_state
        # The tiles that only fill up are left out, where transformers masks them.
        states = model.multi_modal_projector(found[0, 0, : image.tiles]).flatten(0, 1)
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for i in self._cross:
            look = self._text.layers[i].cross_attn
            shape = (1, len(states), look.num_key_value_heads, look.head_dim)
            keys.append(look.k_norm(look.k_proj(states).view(shape).transpose(1, 2)))
            values.append(look.v_proj(states).view(shape).transpose(1, 2))
        return _Seen(position=position, digest=image.digest, keys=tuple(keys), values=tuple(values))

    def _prepared(self, data: bytes, what: str) -> PreparedImage:
        image = read_image(data, self._limits, what=what)
        if self._processor is None:
            self._processor = _processor(self._folder)
        made = self._processor(image, return_tensors="pt")
        return PreparedImage(
            digest=hashlib.sha256(data).digest(),
            pixels=made["pixel_values"],
            aspect_ratio_ids=made["aspect_ratio_ids"],
            aspect_ratio_mask=made["aspect_ratio_mask"],
            tiles=made["num_tiles"][0][0],
        )


def _processor(folder: Path) -> Any:
    import transformers

    # The one on Pillow, so that pixels are the same with torchvision and without.
    names: Any = transformers
    kind = getattr(names, "MllamaImageProcessorPil", None) or names.MllamaImageProcessor
    return kind.from_pretrained(str(folder), local_files_only=True)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    import torch

    if len(tensors) < 2:
        return tensors[0] if tensors else None
    return torch.cat(list(tensors), dim=-2)
