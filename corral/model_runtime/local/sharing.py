"""Models in memory, shared by everybody in this process who opens the same one in the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import ConfigError, CorralError, RuntimeUnavailable
from corral.model_runtime.local.adapters import adapter_digest
from corral.model_runtime.local.engine import Engine
from corral.model_runtime.local.kernels import Precision
from corral.model_runtime.local.lane import apart
from corral.model_runtime.local.pages import LargePages
from corral.model_runtime.local.scheduler import Scheduler
from corral.model_runtime.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    from corral.model_runtime.grammar import Grammars

__all__ = ["LocalModel", "LocalOptions", "acquire"]

_INSTALL = "Install what is missing: pip install 'llama-corral[local]'"
_DEFAULT_CACHE = 1 << 30
_CHUNKS = {"cpu": 128}
_DEVICE_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """How a model is held in memory."""

    precision: Precision | None = None
    """What the weights are held in; by default the fastest on the device."""
    device: str | None = None
    """`cpu`, `cuda` or `mps`; by default the best there is."""
    keep_alive: float | None = None
    """Seconds without work after which the weights are let go; they come back by themselves."""
    cache_bytes: int | None = None
    """How much the caches of earlier prompts may take; by default 1 GiB."""
    adapter: Path | None = None
    """The folder of a LoRA adapter as `peft` writes it. Models of one folder with different
    adapters, or with none, share its weights."""


@dataclass(slots=True, eq=False, kw_only=True)
class LocalModel:
    """A model in memory: its scheduler, and what can be known without asking it."""

    key: object
    name: str
    scheduler: Scheduler
    tokenizer: LlamaTokenizer
    vocabulary: int
    context_length: int
    sees: bool
    summary: str
    nbytes: int
    users: int = 0
    _grammars: Grammars | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def grammars(self) -> Grammars:
        """The grammars of its tokenizer. The first call takes up to two seconds."""
        from corral.model_runtime.grammar import Grammars

        with self._lock:
            if self._grammars is None:
                self._grammars = Grammars(self.tokenizer, vocabulary=self.vocabulary)
            return self._grammars

    def release(self) -> None:
        """Let go of one `acquire`; the last one lets the model go."""
        with _lock:
            self.users -= 1
            if self.users == 0:
                _models.pop(self.key, None)
                self.scheduler.close()


_models: dict[object, LocalModel] = {}
_lock = threading.RLock()
"""Held for a moment, also by event loops; never while a model loads. Whoever holds it may come by
again: a runtime that nobody closed is released wherever the garbage collector runs."""
_loading = threading.Lock()
"""Held while a model loads, so that two who ask for one at once load it once."""


def acquire(
    folder: Path,
    *,
    name: str,
    options: LocalOptions,
    tell: Callable[[int, int], None] | None = None,
) -> LocalModel:
    """The model of a folder, loaded now or by somebody before. Blocking: seconds to a minute.

    Args:
        folder: In Hugging Face's layout: config.json, *.safetensors, tokenizer.json.
        name: What errors call the model.
        options: How to hold it. One that is in memory is shared where device, precision and adapter
            agree.
        tell: Told how many of how many steps of loading are done.

    Raises:
        ConfigError: The folder is no model's, or that of the adapter no adapter's.
        RuntimeUnavailable: No model that this runtime runs, damaged, too large for the memory, or
            an extra is missing.
    """
    adapter = None
    if options.adapter is not None:
        adapter = (str(options.adapter.resolve()), adapter_digest(options.adapter))
    key = (str(folder.resolve()), adapter, options.precision, options.device)
    with _loading:
        model = _shared(key, options)
        if model is None:
            model = _load(folder, name, options, key, tell)
            with _lock:
                model.users = 1
                _models[key] = model
        return model


def _shared(key: object, options: LocalOptions) -> LocalModel | None:
    """The model that is in memory already, with one more user."""
    with _lock:
        model = _models.get(key)
        if model is not None:
            model.users += 1
            _widen(model, options)
        return model


def _widen(model: LocalModel, options: LocalOptions) -> None:
    """Where users differ, the one who asked for more gets it."""
    scheduler = model.scheduler
    if options.keep_alive is None or scheduler.keep_alive is None:
        scheduler.keep_alive = None
    else:
        scheduler.keep_alive = max(options.keep_alive, scheduler.keep_alive)
    if options.cache_bytes is not None:
        scheduler.cache_bytes = max(options.cache_bytes, scheduler.cache_bytes)


def _load(
    folder: Path,
    name: str,
    options: LocalOptions,
    key: object,
    tell: Callable[[int, int], None] | None,
) -> LocalModel:
    config = _config(folder, name)
    pages = LargePages()

    def load(tell: Callable[[int, int], None] | None = None) -> Engine:
        with pages.noting():
            return _engine(folder, config, name, options, tell)

    engine = apart(lambda: load(tell))
    tokenizer = _tokenizer(folder, name)
    kind = engine.summary.partition(",")[0].partition(":")[0]
    scheduler = Scheduler(
        load,
        name=name,
        engine=engine,
        cache_bytes=options.cache_bytes or _DEFAULT_CACHE,
        keep_alive=options.keep_alive,
        chunk=_CHUNKS.get(kind, _DEVICE_CHUNK),
        settle=pages.move_some,
    )
    return LocalModel(
        key=key,
        name=name,
        scheduler=scheduler,
        tokenizer=tokenizer,
        vocabulary=engine.vocabulary,
        context_length=engine.context_length,
        sees=engine.sees,
        summary=engine.summary,
        nbytes=engine.nbytes,
    )


def _engine(
    folder: Path,
    config: Any,
    name: str,
    options: LocalOptions,
    tell: Callable[[int, int], None] | None,
) -> Engine:
    try:
        held: dict[str, Any] = {
            "name": name,
            "device": options.device,
            "precision": options.precision,
            "tell": tell,
        }
        if config.model_type == "mllama":
            from corral.model_runtime.local.mllama_loading import load_mllama

            if options.adapter is not None:
                raise ConfigError(
                    f"The model {name!r} sees images, and Corral adds adapters to text models. "
                    "Merge it into the model with peft's merge_and_unload."
                )
            return load_mllama(folder, **held)
        from corral.model_runtime.local.loading import load_llama

        return load_llama(folder, config, adapter=options.adapter, **held)
    except CorralError:
        raise
    except Exception as error:
        raise RuntimeUnavailable(
            f"The model {name!r} can't be loaded from {str(folder)!r}: {error}. Its files may be "
            "damaged: fetch them again."
        ) from error


def _config(folder: Path, name: str) -> Any:
    _check_folder(folder, name)
    if find_spec("torch") is None:
        raise RuntimeUnavailable(
            f"Running the model {name!r} in this process needs the package 'torch'. {_INSTALL}"
        )
    try:
        import transformers
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Running the model {name!r} in this process needs the package {error.name!r}. "
            f"{_INSTALL}"
        ) from error
    configs: Any = transformers.AutoConfig
    try:
        return configs.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise RuntimeUnavailable(
            f"The configuration {str(folder / 'config.json')!r} of the model {name!r} can't be "
            f"read: {error}. Fetch the model again."
        ) from error


def _tokenizer(folder: Path, name: str) -> LlamaTokenizer:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise RuntimeUnavailable(
            f"The tokenizer {str(path)!r} of the model {name!r} is damaged: {error}. Fetch the "
            "model again."
        ) from error
    return LlamaTokenizer(tokenizer, source=name)


def _check_folder(folder: Path, name: str) -> None:
    for needed, what in (("config.json", "model"), ("tokenizer.json", "fast tokenizer")):
        if not (folder / needed).is_file():
            raise ConfigError(
                f"The folder {str(folder)!r} (model {name!r}) holds no {needed}, so it is no "
                f"{what} that transformers can load. "
                "Name a folder in Hugging Face's layout: config.json, tokenizer.json, "
                "*.safetensors."
            )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"The folder {str(folder)!r} (model {name!r}) holds no *.safetensors file. Other "
            "kinds of weights can run code while "
            "they load, and are not read: convert them to safetensors."
        )
