"""SGLang's own `/generate`, which takes token ids, and images where its model sees them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from corral.errors import ModelError
from corral.model_runtime.openai.dialect import (
    STOPS,
    Asked,
    Heard,
    number,
    sampling_fields,
    stop_reason,
)
from corral.model_runtime.openai.servers import ServerKind

__all__ = ["Generate"]


class Generate:
    """One generation over `/generate`. Fulfils `Dialect`."""

    def __init__(self, asked: Asked, kind: ServerKind) -> None:
        """Ask an SGLang server."""
        self._asked = asked
        self._kind = kind
        self._told = ""

    def path(self) -> str:
        """The endpoint, which lies beside `/v1`."""
        return "../generate"

    def body(self) -> dict[str, JsonValue]:
        """The request."""
        asked = self._asked
        sampling = sampling_fields(asked.sampling, self._kind)
        sampling.pop("seed", None)
        if asked.sampling.seed is not None:
            sampling["sampling_seed"] = asked.sampling.seed
        sampling |= {"max_new_tokens": asked.sampling.max_tokens, "stop": list[JsonValue](STOPS)}
        if asked.schema is not None:
            sampling["json_schema"] = json.dumps(dict(asked.schema))
        body: dict[str, JsonValue] = {"stream": True, "sampling_params": sampling}
        if asked.ids is not None:
            sampling["stop_token_ids"] = list[JsonValue](asked.stops)
            body["input_ids"] = cast("JsonValue", asked.ids)
        else:
            body["text"] = asked.prompt.escaped(bos=not self._kind.adds_bos)
        if asked.prompt.images:
            body["image_data"] = [
                f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
                for image in asked.prompt.images
            ]
        if asked.top_logprobs:
            body |= {
                "return_logprob": True,
                "top_logprobs_num": asked.top_logprobs,
                "return_text_in_logprobs": True,
            }
        return body

    def hear(self, event: Mapping[str, JsonValue]) -> Heard:
        """Read one event. Its text is all of the answer so far, unless the server says otherwise.

        Raises:
            ModelError: The answer so far is not what it was before.
        """
        text, about = event.get("text"), event.get("meta_info")
        text = text if isinstance(text, str) else ""
        about = about if isinstance(about, dict) else {}
        if not self._kind.increments:
            if not text.startswith(self._told):
                raise ModelError(
                    "The SGLang server changed what it had said. If it was started with "
                    "--stream-output, its server_info must be readable."
                )
            self._told, text = text, text[len(self._told) :]
        finish = about.get("finish_reason")
        stop = None
        if isinstance(finish, dict):
            stop = stop_reason(finish.get("type"), finish.get("matched"), self._asked.stops)
        return Heard(
            text=text,
            stop=stop,
            prompt_tokens=number(about, "prompt_tokens"),
            output_tokens=number(about, "completion_tokens"),
            odds=_odds(about.get("output_top_logprobs")),
        )


def _odds(positions: JsonValue) -> dict[str, float]:
    """`[[logprob, id, text], ...]` of the first position."""
    first = positions[0] if isinstance(positions, list) and positions else None
    found: dict[str, float] = {}
    for top in first if isinstance(first, list) else []:
        if isinstance(top, list) and len(top) == 3:
            value, _, text = top
            if isinstance(text, str) and isinstance(value, (int, float)):
                found[text] = float(value)
    return found
