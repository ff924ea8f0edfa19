"""`/api/tags`, `/api/show`, `/api/ps`, `/api/version`, `/api/embed`: what a server has."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import anyio.to_thread
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from corral.model_runtime import Runtime
from corral.model_runtime.runtime import Embedder
from corral.model_runtime.tokenizer import LlamaTokenizer
from corral.server.catalogue import ServedAgent, ServedModel
from corral.server.errors import ApiError
from corral.server.wire import catalogue_of, patience_of, read_body

__all__ = ["OLLAMA_VERSION", "embed", "loaded", "show", "tags", "version"]

OLLAMA_VERSION = "0.24.0"
"""The version whose interface this is: the last that shows control tokens in raw outputs."""

_TEMPLATE = "{{ .Prompt }}"
_NEVER = "9999-12-31T23:59:59Z"
_NORMAL, _CONTROL = 1, 3
"""Kinds of tokens, as GGUF numbers them."""

_MERGES_PRE = {"cria": "smollm", "cria-guard": "smollm"}
"""How a family's tokenizer splits text, in GGUF's words; `llama-bpe` unless it is here."""


class ShowRequest(BaseModel):
    """The body of `/api/show`."""

    model: str = ""
    name: str = ""
    """What `model` was called once."""
    verbose: bool | None = False


class EmbedRequest(BaseModel):
    """The body of `/api/embed`."""

    model: str
    input: str | list[str] = Field(default_factory=list[str])
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=1)


async def version(request: Request) -> Response:
    """`GET /api/version`."""
    return JSONResponse({"version": OLLAMA_VERSION})


async def tags(request: Request) -> Response:
    """`GET /api/tags`."""
    return JSONResponse({"models": [_entry(each) for each in _all(request)]})


async def loaded(request: Request) -> Response:
    """`GET /api/ps`: everything, since all that is served stays loaded."""
    models = [
        {
            **_entry(each),
            "expires_at": _NEVER,
            "size_vram": 0,
            "context_length": each.runtime.profile.context_length,
        }
        for each in _all(request)
    ]
    return JSONResponse({"models": models})


async def show(request: Request) -> Response:
    """`POST /api/show`; `verbose` adds the vocabulary of a model that is served raw."""
    body = await read_body(request, ShowRequest)
    served = catalogue_of(request).find(body.model or body.name)
    profile = served.runtime.profile
    raw = isinstance(served, ServedModel)
    info: dict[str, Any] = {
        "general.architecture": "llama",
        "general.basename": served.name,
        "llama.context_length": profile.context_length,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _MERGES_PRE.get(profile.family, "llama-bpe"),
    }
    if raw:
        vocabulary = await anyio.to_thread.run_sync(_vocabulary, served.runtime)
        info |= vocabulary if body.verbose else dict.fromkeys(vocabulary)
    return JSONResponse(
        {
            "modelfile": f"# {served.name}, served by Corral\n",
            "parameters": "",
            "template": _template(raw=raw),
            "details": _details(served),
            "model_info": info,
            "capabilities": _capabilities(served),
            "modified_at": _time(served.created),
        }
    )


async def embed(request: Request) -> Response:
    """`POST /api/embed`, where the model can."""
    body = await read_body(request, EmbedRequest)
    served = catalogue_of(request).find(body.model)
    runtime = served.runtime
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not isinstance(runtime, Embedder):
        raise ApiError(
            400,
            f"{body.model!r} makes no embeddings: its model ({runtime.name}) can't. Use a model "
            "that is made for them.",
            code="no_embeddings",
            param="model",
        )
    async with patience_of(request).line:
        vectors = await runtime.embed(texts) if texts else []
    if body.dimensions is not None:
        vectors = [_shortened(vector, body.dimensions) for vector in vectors]
    return JSONResponse({"model": body.model, "embeddings": vectors})


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """A vector's first numbers, at unit length again."""
    cut = vector[:dimensions]
    length = math.sqrt(sum(x * x for x in cut)) or 1.0
    return [x / length for x in cut]


def _all(request: Request) -> list[ServedAgent | ServedModel]:
    catalogue = catalogue_of(request)
    return [*catalogue.agents.values(), *catalogue.models.values()]


def _entry(served: ServedAgent | ServedModel) -> dict[str, Any]:
    identity = f"{served.name}\n{served.runtime.name}".encode()
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": _time(served.created),
        "size": 0,
        "digest": hashlib.sha256(identity).hexdigest(),
        "details": _details(served),
    }


def _details(served: ServedAgent | ServedModel) -> dict[str, Any]:
    family = served.runtime.profile.family
    return {
        "parent_model": served.runtime.name,
        "format": "corral",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def _capabilities(served: ServedAgent | ServedModel) -> list[str]:
    return ["completion", *(["embedding"] if isinstance(served.runtime, Embedder) else [])]


def _template(*, raw: bool) -> str:
    if not raw:
        return _TEMPLATE
    # What tells clients that the model reads Llama 3's prompt format.
    return "<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _vocabulary(runtime: Runtime) -> dict[str, Any]:
    """A tokenizer as GGUF files spell it; empty where the runtime has none of its own."""
    tokenizer = getattr(runtime, "tokenizer", None)
    if not isinstance(tokenizer, LlamaTokenizer):
        return {}
    parts: Mapping[str, Any] = json.loads(tokenizer.definition())
    tokens: dict[int, str] = {i: token for token, i in parts["model"]["vocab"].items()}
    special: set[int] = set()
    for added in cast("list[dict[str, Any]]", parts["added_tokens"]):
        tokens[added["id"]] = added["content"]
        if added["special"]:
            special.add(added["id"])
    merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in parts["model"]["merges"]
    ]
    return {
        "tokenizer.ggml.tokens": [tokens.get(i, "") for i in range(max(tokens) + 1)],
        "tokenizer.ggml.token_type": [
            _CONTROL if i in special else _NORMAL for i in range(max(tokens) + 1)
        ],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokenizer.special_id("<|begin_of_text|>"),
        "tokenizer.ggml.eos_token_id": tokenizer.special_id("<|eot_id|>"),
        "tokenizer.ggml.add_bos_token": True,
    }
