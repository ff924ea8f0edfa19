"""What kinds of completions servers there are, as data, and which of them answers at a URL.

Sources: the API documentation and source of each (vLLM 0.33, SGLang 0.5.23, llama.cpp's server,
llama-cpp-python 0.3.36, transformers 5.23). Only the last two have been run here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from pydantic import JsonValue

__all__ = ["KINDS", "Api", "SchemaField", "ServerKind", "kind_of"]

Api: TypeAlias = Literal["completions", "generate", "chat"]
SchemaField: TypeAlias = Literal[
    "structured_outputs", "guided_json", "json_schema", "response_format"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """What a kind of server can do.

    Attributes:
        name: What it is called in a model string (`?server=NAME`).
        api: Which API is spoken with it.
        takes_ids: Whether a prompt may be token ids.
        adds_bos: Whether it puts `<|begin_of_text|>` in front of a prompt that is text.
        fields: Sent with every request: among them what keeps the model's distribution as it is.
        schema: How it is given a JSON Schema to hold an answer to; None if it can't.
        logprobs: How many of the first token's probabilities it gives.
        shows_specials: Whether control tokens in an answer are shown, as text.
        tells_usage: Whether it counts tokens in a stream when asked to.
        strict_fields: Whether it refuses fields that it doesn't know.
        increments: Whether each event has the next piece of text, and not all of it so far.
        names_itself: Whether its list of models names all that it has.
    """

    name: str
    api: Api = "completions"
    takes_ids: bool = False
    adds_bos: bool = True
    fields: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    schema: SchemaField | None = None
    logprobs: int = 0
    shows_specials: bool = False
    tells_usage: bool = True
    strict_fields: bool = False
    increments: bool = True
    names_itself: bool = True


KINDS: Mapping[str, ServerKind] = {
    kind.name: kind
    for kind in (
        ServerKind(
            name="vllm",
            takes_ids=True,
            adds_bos=False,
            fields={
                "top_k": -1,
                "add_special_tokens": False,
                "skip_special_tokens": False,
                "spaces_between_special_tokens": False,
            },
            schema="structured_outputs",
            logprobs=20,
            shows_specials=True,
        ),
        ServerKind(
            name="sglang",
            api="generate",
            takes_ids=True,
            fields={"top_k": -1, "skip_special_tokens": False},
            schema="json_schema",
            logprobs=20,
            shows_specials=True,
            increments=False,
        ),
        ServerKind(
            name="llama.cpp",
            takes_ids=True,
            fields={"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": True},
            schema="json_schema",
            logprobs=20,
        ),
        ServerKind(
            name="llama-cpp-python",
            fields={"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
            logprobs=20,
            tells_usage=False,
        ),
        ServerKind(name="transformers", tells_usage=False, strict_fields=True, names_itself=False),
        ServerKind(name="completions", logprobs=5, names_itself=False),
        ServerKind(name="chat", api="chat", schema="response_format", names_itself=False),
    )
}
"""By name. `completions` and `chat` are for servers of no known kind."""

_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "me": "llama-cpp-python",
    "corral": "chat",
}
"""What servers write into `owned_by` of the models they list."""


def kind_of(owner: str, *, version: str = "", increments: bool = False) -> ServerKind | None:
    """The kind of a server by what its list of models says of itself; None if it isn't known.

    `version` is vLLM's, whose field for schemas has changed its name, and `increments` whether an
    SGLang server sends each piece of text once.
    """
    name = _OWNERS.get(owner)
    if name is None:
        return None
    kind = KINDS[name]
    if name == "vllm" and (found := re.match(r"v?0\.(\d+)", version)) and int(found[1]) < 11:
        return replace(kind, schema="guided_json")
    if name == "sglang":
        return replace(kind, increments=increments)
    return kind
