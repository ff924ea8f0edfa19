"""What models a server has, and fetching another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.errors import CorralError, ModelError, RuntimeUnavailable
from corral.model_runtime.wire import Lost, Patience, patient, patient_call

if TYPE_CHECKING:
    from ollama import ProgressResponse

__all__ = ["OllamaModel", "list_models", "pull_model"]

_ONCE = Patience(attempts=1)
_A_DAY = Patience(overall=24 * 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaModel:
    """A model that a server has: its name, its size on disk in bytes, and whether it is loaded."""

    name: str
    size: int
    loaded: bool


async def list_models(*, host: str | None = None, patience: Patience = _ONCE) -> list[OllamaModel]:
    """The models of a server, by name.

    Raises:
        RuntimeUnavailable: No server answers.
        ModelError: It answers with something else.
    """
    from corral.model_runtime.ollama.client import open_client, server_url
    from corral.model_runtime.ollama.failures import explain

    url = server_url(host)

    async def once() -> list[OllamaModel]:
        async with open_client(url, patience) as client:
            try:
                listed, running = (await client.list()).models, (await client.ps()).models
            except Exception as error:
                raise _explained(explain(error, model="", url=url, num_ctx=0)) from error
        loaded = {model.model for model in running}
        return sorted(
            (
                OllamaModel(
                    name=model.model or "", size=int(model.size or 0), loaded=model.model in loaded
                )
                for model in listed
            ),
            key=lambda model: model.name,
        )

    return await patient_call(once, patience=patience, who=f"The Ollama server at {url}")


async def pull_model(
    model: str,
    *,
    host: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    patience: Patience = _A_DAY,
) -> None:
    """Let a server fetch a model from Ollama's library. What it has of it already is kept.

    Args:
        model: Its name there, such as `llama3.2:3b`.
        host: Where the server is.
        progress: See `corral.model_runtime.opening.Progress`.
        patience: How long to wait, and how often to try.

    Raises:
        RuntimeUnavailable: No server answers, or there is no such model.
        ModelError: The download failed.
    """
    from corral.model_runtime.ollama.client import open_client, server_url
    from corral.model_runtime.ollama.failures import explain

    url = server_url(host)

    async def once() -> AsyncGenerator[ProgressResponse]:
        async with open_client(url, patience) as client:
            try:
                async for part in await client.pull(model, stream=True):
                    yield part
            except Exception as error:
                if "file does not exist" in str(error):
                    raise RuntimeUnavailable(
                        f"Ollama's library has no model {model!r}. See https://ollama.com/library."
                    ) from error
                raise _explained(explain(error, model=model, url=url, num_ctx=0)) from error

    last = ""
    parts = patient(once, patience=patience, who=f"The Ollama server at {url}")
    async with aclosing(parts) as told:
        async for part in told:
            last = part.status or ""
            if progress is not None:
                # The name of a layer says nothing to a person; one bar a layer does.
                what = f"{model}: {'downloading' if part.digest else last}"
                progress(what, part.completed or 0, part.total)
    if last != "success":
        raise ModelError(
            f"The download of {model!r} broke off ({last or 'nothing was said'}). Ask again: what "
            "has come is kept."
        )


def _explained(error: Exception) -> Exception:
    return error if isinstance(error, (CorralError, Lost)) else ModelError(str(error))
