"""The connection to a completions server: keys, retries, events, and what failures mean."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import JsonValue

from corral.errors import ConfigError, ModelError, RuntimeUnavailable
from corral.model_runtime.wire import (
    BUSY,
    Lost,
    Patience,
    client_options,
    is_loopback,
    json_object,
    lost_on_the_way,
    patient,
    patient_call,
    retry_after,
    server_sent,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["Connection", "NoSuchEndpoint", "PromptTooLong"]

_DEFAULT_KEY = "OPENAI_API_KEY"
_TOO_LONG = (
    "maximum context length",
    "context window",
    "context_length_exceeded",
    "longer than the model's context",
    "exceeds the available context",
    "exceed context window",
    "is too long",
)


class NoSuchEndpoint(Exception):
    """The server has no such API."""


class PromptTooLong(Exception):
    """The server finds the prompt too long."""


class Connection:
    """One server, by its base URL, which ends in `/v1` as a rule."""

    def __init__(
        self, base_url: str, *, model: str, key_env: str | None, patience: Patience
    ) -> None:
        """Talk to the server at `base_url`.

        `key_env` is the environment variable that holds the key. Without it `OPENAI_API_KEY` is
        used, but never sent unencrypted to another machine.
        """
        self.base_url = base_url.rstrip("/")
        self.who = f"The server at {self.base_url}"
        self._model = model
        self._patience = patience
        self._key = _key(key_env, self.base_url)

    async def get(self, path: str) -> Mapping[str, JsonValue] | None:
        """What the server answers at a path; None if it has no such path, or won't say."""
        import httpx

        async def once() -> Mapping[str, JsonValue] | None:
            async with self._client() as client:
                try:
                    response = await client.get(self._url(path))
                except httpx.TransportError as error:
                    raise self._lost(error) from error
                if response.status_code in (401, 403) or response.status_code in BUSY:
                    raise self._failure(response)
                if not response.is_success:
                    return None
                return json_object(response.content, who=self.who)

        return await patient_call(once, patience=self._patience, who=self.who)

    async def events(
        self, path: str, body: Mapping[str, JsonValue]
    ) -> AsyncGenerator[Mapping[str, JsonValue]]:
        """The events of a streamed answer, up to `[DONE]` or the end.

        Raises:
            NoSuchEndpoint: The server has no such API.
            PromptTooLong: The server finds the prompt too long.
            RuntimeUnavailable: It can't be reached, refuses the key, or hasn't the model.
            ModelError: It failed, or the answer can't be read.
        """

        async def once() -> AsyncGenerator[Mapping[str, JsonValue]]:
            import httpx

            async with self._client() as client:
                try:
                    async with client.stream("POST", self._url(path), json=body) as response:
                        if not response.is_success:
                            await response.aread()
                            raise self._failure(response)
                        async with aclosing(self._events(response)) as events:
                            async for event in events:
                                yield event
                except httpx.TransportError as error:
                    raise self._lost(error) from error

        async with aclosing(patient(once, patience=self._patience, who=self.who)) as events:
            async for event in events:
                yield event

    async def _events(self, response: httpx.Response) -> AsyncGenerator[Mapping[str, JsonValue]]:
        kind = response.headers.get("content-type", "")
        if "text/event-stream" not in kind:
            raise ModelError(
                f"{self.who} answered with {kind or 'no type'!r} where events were due. Check what "
                "answers there."
            )
        async with aclosing(server_sent(response)) as lines:
            async for data in lines:
                if data.strip() == b"[DONE]":
                    return
                event = json_object(data, who=self.who)
                if (error := event.get("error")) or event.get("object") == "error":
                    said = error.get("message") if isinstance(error, dict) else None
                    said = said or event.get("message") or error
                    raise ModelError(f"{self.who} failed: {said}. Its log says why.")
                yield event

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[httpx.AsyncClient]:
        """A client for one exchange, so that no connection is tied to an event loop."""
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        options = client_options(self.base_url, self._patience)
        async with httpx.AsyncClient(headers=headers, **options) as client:
            yield client

    def _url(self, path: str) -> str:
        """A path from the base URL; `../` leaves its `/v1`."""
        if path.startswith("../"):
            return f"{self.base_url.removesuffix('/v1')}/{path.removeprefix('../')}"
        return f"{self.base_url}/{path}"

    def _lost(self, error: httpx.TransportError) -> Exception:
        return lost_on_the_way(
            error,
            who=self.who,
            url=self.base_url,
            remedy="See whether it runs, and whether the address is right.",
        )

    def _failure(self, response: httpx.Response) -> Exception:
        status = response.status_code
        said = _said(response)
        low = said.lower()
        if status in (401, 403):
            return RuntimeUnavailable(
                f"{self.who} refuses access ({status}): {said}. Put the key into the environment, "
                f"in {_DEFAULT_KEY} or in the variable that key_env names in the model string."
            )
        if any(sign in low for sign in _TOO_LONG):
            return PromptTooLong(said)
        if status in (404, 405, 501) and "model" not in low:
            return NoSuchEndpoint(said)
        if status == 404:
            return RuntimeUnavailable(
                f"{self.who} has no model {self._model!r}: {said}. Check the name."
            )
        error = ModelError(f"{self.who} failed with status {status}: {said}. Its log says why.")
        if status in BUSY or status >= 500:
            return Lost(error, pause=retry_after(response.headers))
        return error


def _said(response: httpx.Response) -> str:
    """What an error says, in the shapes that servers use."""
    text = response.content.decode(errors="replace")[:500].strip()
    try:
        body = json_object(response.content, who="")
    except ModelError:
        return text or response.reason_phrase
    error = body.get("error", body.get("detail", body.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or text)


def _key(key_env: str | None, url: str) -> str:
    if key_env is not None:
        key = os.environ.get(key_env, "")
        if not key:
            raise ConfigError(
                f"The key of {url} is to be in the environment variable {key_env!r}, which is not "
                "set. Set it."
            )
        return key
    if url.startswith("https:") or is_loopback(url):
        return os.environ.get(_DEFAULT_KEY, "")
    return ""
