"""Texts to vectors, by any encoder that transformers knows: the mean of the last layer's states.

A folder in the layout of sentence-transformers may say that its model was trained otherwise (the
first token's state instead of the mean, a shorter text); it is taken at its word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from corral.errors import ConfigError, ContextOverflow, InputError, ModelError, RuntimeUnavailable
from corral.model_runtime.loading import resolve
from corral.model_runtime.local.lane import apart, in_lane

if TYPE_CHECKING:
    import torch

__all__ = ["LocalEmbedder", "Pooling"]

Pooling: TypeAlias = Literal["mean", "cls"]

_BATCH_TOKENS = 8192
"""Of one pass, padding counted in."""
_BATCH_TEXTS = 64
_ENCODED_TEXTS = 512
"""Of one turn of the tokenizer, after which a cancel is felt."""
_UNLIMITED = 1_000_000

_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "mean": "mean",
    "cls": "cls",
}
_MODULES = ("Transformer", "Pooling", "Normalize")


class LocalEmbedder:
    """An encoder in memory. Fulfils `Embedder`; made by `LocalEmbedder.load`.

    Safe to use from many tasks and threads: passes go one after another.
    """

    def __init__(
        self, *, model: Any, tokenizer: Any, length: int, pooling: Pooling, name: str
    ) -> None:
        """Take over a model and a `tokenizers.Tokenizer`.

        Args:
            model: A transformers model without a head, on its device.
            tokenizer: Its tokenizer, which adds the control tokens that the model wants.
            length: The most tokens of a text, control tokens counted in.
            pooling: What of the states makes the vector: the mean over the text, or the first.
            name: What errors call the model.
        """
        self.length = length
        self.pooling: Pooling = pooling
        self.dimension = int(model.config.hidden_size)
        self._model = model
        self._tokenizer = tokenizer
        self._name = name
        # Those who wait for a pass wait here, not in threads that others need. A limiter belongs
        # to one event loop, an embedder to none.
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("corral_embedder_limiter")

    @classmethod
    async def load(cls, source: str, *, device: str | None = None) -> LocalEmbedder:
        """Load a folder or a Hugging Face id.

        Weights are read from safetensors alone, and no code of the folder is run.

        Args:
            source: See `loading.resolve`.
            device: `cpu`, `cuda` or `mps`; by default the best there is.

        Raises:
            ConfigError: `source` names no model, or one whose vectors are made in another way.
            RuntimeUnavailable: It can't be had, is damaged, doesn't fit into memory, or an extra
                is missing.
        """
        return await anyio.to_thread.run_sync(apart, lambda: _load(source, device))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of unit length for each text, in order.

        A text may have `length` tokens; none is ever cut.

        Raises:
            ContextOverflow: A text is longer. Nothing was computed.
            InputError: A text is empty, or holds half of a character.
            ModelError: The model broke.
        """
        encoded: list[list[int]] = []
        waiting = iter(texts)
        while batch := list(islice(waiting, _ENCODED_TEXTS)):
            encoded += await anyio.to_thread.run_sync(self._encode, batch)
        vectors: list[list[float]] = [[] for _ in encoded]
        for chosen in _batches([len(ids) for ids in encoded]):
            batch = [encoded[i] for i in chosen]
            made = await anyio.to_thread.run_sync(self._pass, batch, limiter=self._one_at_a_time())
            for i, vector in zip(chosen, made, strict=True):
                vectors[i] = vector
        return vectors

    def _one_at_a_time(self) -> anyio.CapacityLimiter:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return limiter

    def _encode(self, texts: list[str]) -> list[list[int]]:
        try:
            ids = [found.ids for found in self._tokenizer.encode_batch(texts)]
        except TypeError as error:
            raise InputError(
                "A text to embed can't be encoded: it holds half of a character (a lone "
                "surrogate), or is no text. Take that out."
            ) from error
        longest = max(len(each) for each in ids)
        if longest > self.length:
            raise ContextOverflow(needed=longest, available=self.length, what="A text")
        if not all(ids):
            raise InputError("A text to embed is empty. Leave it out.")
        return ids

    def _pass(self, batch: list[list[int]]) -> list[list[float]]:
        return in_lane(lambda: self._computed(batch))

    def _computed(self, batch: list[list[int]]) -> list[list[float]]:
        import torch

        width = max(len(ids) for ids in batch)
        # Behind the text any token will do: nothing looks at it.
        rows = torch.tensor([ids + ids[:1] * (width - len(ids)) for ids in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
        device = self._model.device
        try:
            with torch.inference_mode():
                output = self._model(input_ids=rows.to(device), attention_mask=mask.to(device))
                states = cast("torch.Tensor", output.last_hidden_state).float().cpu()
        # Whatever torch, or the model's own code, makes of full memory or of odd weights.
        except Exception as error:
            raise ModelError(
                f"The model {self._name!r} failed: {error}. If memory ran out, embed shorter "
                "texts; else its files may not belong together: fetch them again."
            ) from error
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            seen = mask[..., None].float()
            # Not a product with zeros: padding's states may be anything.
            vectors = states.masked_fill(seen == 0, 0.0).sum(1) / seen.sum(1)
        if not bool(torch.isfinite(vectors).all()):
            raise ModelError(
                f"The model {self._name!r} gave no finite vectors. Its weights may be damaged."
            )
        return cast("Any", torch.nn.functional.normalize(vectors, dim=-1)).tolist()


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts of like length, as many as a pass takes."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        widest = lengths[batch[0]] if batch else lengths[i]
        if batch and (len(batch) == _BATCH_TEXTS or widest * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _load(source: str, device: str | None) -> LocalEmbedder:
    folder = resolve(source)
    for needed in ("config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise ConfigError(
                f"The folder {str(folder)!r} (model {source!r}) holds no {needed}. Name an encoder "
                "in Hugging Face's layout: config.json, tokenizer.json, *.safetensors."
            )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"The folder {str(folder)!r} (model {source!r}) holds no *.safetensors file. Other "
            "kinds of weights can run code while they load, and are not read."
        )
    pooling = _pooling(folder, source)
    try:
        from tokenizers import Tokenizer

        from corral.model_runtime.local.checkpoint import Checkpoint
        from corral.model_runtime.local.loading import check_memory, place

        placed = place(device)
        sizes = Checkpoint(folder).sizes()
        check_memory(4 * sum(sizes.values()), source, placed.partition(":")[0])
        model = _model(folder, source).to(placed).eval()
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Running the model {source!r} in this process needs the package {error.name!r}. "
            "Install what is missing: pip install 'llama-corral[local]'"
        ) from error
    try:
        tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The tokenizers library raises a bare Exception.
    except Exception as error:
        raise RuntimeUnavailable(
            f"The tokenizer of {source!r} is damaged: {error}. Fetch it again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is five characters
    return LocalEmbedder(
        model=model,
        tokenizer=tokenizer,
        length=_length(folder, model),
        pooling=pooling,
        name=source,
    )


def _model(folder: Path, source: str) -> Any:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    kind: Any = AutoModel
    logging.disable_progress_bar()  # pyright: ignore[reportUnknownMemberType]
    try:
        model, told = kind.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except ImportError:
        raise
    except Exception as error:
        raise RuntimeUnavailable(
            f"The model {source!r} can't be loaded from {str(folder)!r}: {error}. Use an encoder "
            "that transformers knows; if it is one, its files may be damaged: fetch them again."
        ) from error
    refused = ""
    if getattr(model.config, "is_encoder_decoder", False):
        refused = "has a decoder behind its encoder, which is not run here"
    elif not isinstance(getattr(model.config, "hidden_size", None), int):
        refused = "takes more than texts, or doesn't say how wide its vectors are"
    if refused:
        raise ConfigError(
            f"The model {source!r} {refused}. Use an encoder such as "
            "sentence-transformers/all-MiniLM-L6-v2."
        )
    # What some models put on top of the first token is no part of the states.
    missing = sorted(key for key in told["missing_keys"] if "pooler" not in key)
    if missing:
        raise RuntimeUnavailable(
            f"The weights of {source!r} lack {missing[0]!r}. They are not a whole model: fetch "
            "them again."
        )
    return model


def _pooling(folder: Path, source: str) -> Pooling:
    """What of the states makes the vector, where the folder says so."""
    modules = [str(kind) for kind in _each(_json(folder / "modules.json"), "type")]
    unknown = [kind for kind in modules if kind.rpartition(".")[2] not in _MODULES]
    told = _json(folder / "1_Pooling" / "config.json")
    settings = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    ways: list[Pooling | None] = [
        _POOLINGS.get(key)
        for key, on in settings.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    if "pooling_mode" in settings:
        ways.append(_POOLINGS.get(str(settings["pooling_mode"])))
    pooling: Pooling | None = ways[0] if ways else "mean"
    if unknown or len(ways) > 1 or pooling is None:
        raise ConfigError(
            f"The vectors of {source!r} are made in a way that is not done here: see modules.json "
            "and 1_Pooling/config.json in its folder. Use a model whose vectors are the mean of "
            "its states, or the first."
        )
    return pooling


def _length(folder: Path, model: Any) -> int:
    """The most tokens that the model takes, by what says the least of those that say it."""
    embeddings = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin count positions from behind the padding's.
    padding = getattr(embeddings, "padding_idx", None)
    before = 0 if padding is None else padding + 1
    limits = [
        _UNLIMITED,
        int(getattr(model.config, "max_position_embeddings", None) or _UNLIMITED) - before,
        *_each(_json(folder / "tokenizer_config.json"), "model_max_length"),
        *_each(_json(folder / "sentence_bert_config.json"), "max_seq_length"),
    ]
    return int(min(n for n in limits if isinstance(n, int | float) and n > 0))


def _json(file: Path) -> Any:
    """What a settings file says, if it is there."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _each(found: Any, key: str) -> Iterator[Any]:
    """The values of a key, in an object or in a list of objects."""
    for item in cast("list[Any]", found) if isinstance(found, list) else [found]:
        if isinstance(item, dict):
            yield cast("dict[str, Any]", item).get(key)
