"""Model strings of encoders, and what they open.

transformers:SOURCE    a folder or a Hugging Face id, in this process
ollama:NAME[@URL]      a model of an Ollama server, by default that of OLLAMA_HOST
"""

from __future__ import annotations

from corral.errors import ConfigError
from corral.model_runtime.runtime import Embedder
from corral.model_runtime.targets import parse_target

__all__ = ["open_embedder"]


async def open_embedder(model: str) -> Embedder:
    """Open an encoder by its string, fetching and loading what that takes.

    Any model of the Llama kind embeds as well, `transformers:` by the mean of its states; one that
    was trained to embed does it better.

    Args:
        model: Such as `transformers:sentence-transformers/all-MiniLM-L6-v2` or
            `ollama:nomic-embed-text`. The latter takes `?keep_alive=` and, where the server may
            send texts on to another machine, `?cloud=allow`.

    Raises:
        ConfigError: The string names no encoder.
        RuntimeUnavailable: The model can't be had here; the message says what to do.
    """
    scheme, _, rest = model.partition(":")
    if scheme == "transformers" and rest:
        from corral.model_runtime.local.encoder import LocalEmbedder

        target = parse_target(rest, options=("device",), addressed=False)
        return await LocalEmbedder.load(target.name, device=target.options.get("device"))
    if scheme == "ollama" and rest:
        from corral.model_runtime.ollama import OllamaRuntime

        target = parse_target(rest, options=("keep_alive", "cloud"))
        if target.options.get("cloud", "allow") != "allow":
            raise ConfigError("In the model string, cloud can only be 'allow'. Leave it out.")
        return OllamaRuntime(
            target.name,
            host=target.url,
            keep_alive=target.options.get("keep_alive", "10m"),
            allow_cloud="cloud" in target.options,
            name=model,
        )
    raise ConfigError(
        f"There is no encoder {model!r}. Write 'transformers:FOLDER-OR-ID' or 'ollama:NAME', for "
        "example 'ollama:nomic-embed-text'."
    )
