"""An HTTP request as a tool, described in data: no Python needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import JsonValue

from corral.errors import ConfigError, ToolError
from corral.messages import ToolSpec
from corral.tools.configured import ConfiguredTool
from corral.tools.http.addresses import is_public, read_address
from corral.tools.http.fetch import Answer, Request, fetch
from corral.tools.http.headers import HeaderTemplates, hidden
from corral.tools.http.hosts import require_host
from corral.tools.http.json_path import JsonPath
from corral.tools.http.url_template import UrlTemplate
from corral.tools.options import ToolOptions
from corral.tools.plain_text import plain, shortened
from corral.tools.sandbox import Permissions
from corral.tools.schema import argument_names, check_name, check_parameters, with_defaults
from corral.tools.template import Template, parse_template
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["HttpTool"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
_SECONDS = 20.0
_TEXTS = ("application/xml", "application/javascript", "application/yaml", "")


class HttpTool(ConfiguredTool):
    """A tool that sends one HTTP request and gives back the answer, or a part of it."""

    def __init__(
        self,
        name: str,
        *,
        description: str,
        url: str,
        method: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        hosts: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: JsonValue = None,
        answer: str | None = None,
        max_bytes: int = 256 << 10,
        options: ToolOptions | None = None,
    ) -> None:
        """Describe the request. Nothing is sent yet.

        Args:
            name: What the model calls the tool.
            description: What it does, for the model.
            url: The address; `{argument}` may stand in its path and query, where values are
                percent-encoded. A pair of the query whose argument isn't given is left out.
            method: `GET` by default, `POST` where there is a body.
            parameters: The JSON Schema of the arguments.
            hosts: What may be reached, redirects included, as in `Permissions.network`; by default
                the URL's own host and port. An address that isn't public (this machine, its
                networks) is reached only if the list holds the address itself.
            headers: Header fields. `${NAME}` in a value is an environment variable, looked up when
                the agent is opened and again when the tool is called; the model never sees it.
            body: JSON to send, in whose strings `{argument}` may stand. A string that is nothing
                but a placeholder becomes the argument's own value; a key whose argument isn't given
                is left out.
            answer: The part of the answer that is wanted, such as `current.days[0].temperature`.
            max_bytes: The longest answer that is taken.
            options: How calls are run; without a timeout of its own, for at most 20 seconds.

        Raises:
            ConfigError: Something of it can't be used.
        """
        checked = check_parameters(parameters, tool=name)
        names = argument_names(checked)
        self._url = UrlTemplate.parse(url, tool=name, names=names)
        _see_that_the_path_is_complete(self._url, checked, name)
        self._method = (method or ("GET" if body is None else "POST")).upper()
        if self._method not in _METHODS or (body is not None and self._method not in _WITH_BODY):
            wanted = _METHODS if body is None else _WITH_BODY
            raise ConfigError(
                f"The tool {name!r} can't send {method!r}. Use one of {', '.join(wanted)}."
            )
        own = f"[{self._url.host}]" if ":" in self._url.host else self._url.host
        address = read_address(self._url.host)
        if hosts is None and address is not None and not is_public(address):
            raise ConfigError(
                f"The tool {name!r} goes to {own}, which is not a public address. If that is "
                f"meant, add hosts: ['{own}:{self._url.port}']."
            )
        if max_bytes < 1:
            raise ConfigError(f"The tool {name!r} reads {max_bytes} bytes. Write a positive count.")
        self._headers = HeaderTemplates(headers or {}, of=f"the tool {name!r}")
        self._body = _body_template(body, name, names)
        self._answer = JsonPath.parse(answer) if answer is not None else None
        self._max_bytes = max_bytes
        super().__init__(
            ToolSpec(name=check_name(name), description=description, parameters=checked),
            permissions=Permissions(
                network=tuple(hosts) if hosts is not None else (f"{own}:{self._url.port}",)
            ),
            options=options,
        )

    async def ready(self) -> None:
        """See that the tool's host is allowed and that the variables of its headers are set.

        Raises:
            ConfigError: One isn't.
        """
        require_host(self._permissions, self._url.origin, tool=self._spec.name)
        self._headers.filled()

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Send the request and give back the answer.

        Raises:
            ToolError: It failed; the message says how, without the headers.
        """
        values = with_defaults(arguments, self._spec.parameters)
        headers, secrets = self._headers.filled()
        body: bytes | None = None
        if self._body is not None:
            body = json.dumps(_filled(self._body, values), ensure_ascii=False).encode()
            headers = {"Content-Type": "application/json", **headers}
        answer = await fetch(
            Request(
                method=self._method,
                url=self._url.fill(values),
                headers=headers,
                body=body,
                max_bytes=self._max_bytes,
            ),
            permissions=self._permissions,
            seconds=self.options.timeout or _SECONDS,
        )
        return ToolOutput(content=self._content(answer, secrets))

    def _content(self, answer: Answer, secrets: Sequence[str]) -> JsonValue:
        text = hidden(answer.text, secrets)
        if not 200 <= answer.status < 300:
            said = shortened(" ".join(plain(text).split()), 300)
            raise ToolError(
                f"The server answered {answer.status} {answer.reason}{': ' if said else '.'}{said}"
            )
        if answer.cut:
            raise ToolError(
                f"The answer is longer than {self._max_bytes} bytes. Ask for less of it."
            )
        is_json = answer.media_type.rpartition("+")[2] == "json" or answer.media_type.endswith(
            "/json"
        )
        if self._answer is None and not is_json:
            if answer.media_type.startswith("text/") or answer.media_type in _TEXTS:
                return plain(text)
            raise ToolError(f"The answer is {answer.media_type!r}, which is not text.")
        try:
            value: JsonValue = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ToolError(f"The answer is not JSON: {shortened(plain(text), 200)}") from error
        return value if self._answer is None else self._answer.find(value)


def _see_that_the_path_is_complete(url: UrlTemplate, schema: Mapping[str, Any], tool: str) -> None:
    for name in sorted(url.path_names):
        if name not in schema.get("required", ()) and "default" not in schema["properties"][name]:
            raise ConfigError(
                f"The path of the tool {tool!r} needs {name!r}, which a call may leave out. Add "
                "it to required:, or give it a default."
            )


def _body_template(body: JsonValue, tool: str, names: frozenset[str]) -> Any:
    """`body` with its strings parsed."""
    if isinstance(body, str):
        return parse_template(body, where=f"the body of the tool {tool!r}", names=names)
    if isinstance(body, dict):
        return {key: _body_template(value, tool, names) for key, value in body.items()}
    if isinstance(body, list):
        return [_body_template(value, tool, names) for value in body]
    return body


_NOTHING = object()


def _filled(body: Any, arguments: Mapping[str, JsonValue]) -> Any:
    """The body with arguments put in; what lacks its argument is left out."""
    if isinstance(body, Template):
        if body.lacks(arguments):
            return _NOTHING
        return arguments[body.alone] if body.alone else body.fill(arguments)
    if isinstance(body, dict):
        pairs = ((k, _filled(v, arguments)) for k, v in cast("dict[str, Any]", body).items())
        return {key: value for key, value in pairs if value is not _NOTHING}
    if isinstance(body, list):
        filled = [_filled(value, arguments) for value in cast("list[Any]", body)]
        return [value for value in filled if value is not _NOTHING]
    return body
