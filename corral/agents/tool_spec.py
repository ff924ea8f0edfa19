"""Tools in an agent's YAML file.

An entry of `tools:` is a word (`code_interpreter`, `now`, `FILE.py:FUNCTION`); a word with settings
(`read_file: {folders: [notes]}`); or a tool described whole: a command (it has the key `command`)
or an HTTP request (it has the key `url`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from corral.agents.complaints import checked
from corral.agents.yaml_reader import Key, Located
from corral.errors import ConfigError
from corral.tools.adjusted import with_options
from corral.tools.builtin import (
    BraveSearch,
    HttpGet,
    ListFiles,
    ReadFile,
    SearchFiles,
    WolframAlpha,
    WriteFile,
    now,
)
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.command import CommandTool
from corral.tools.function import tool
from corral.tools.http import HttpTool
from corral.tools.mcp import MCPServer
from corral.tools.options import ToolOptions
from corral.tools.sandbox import Permissions
from corral.tools.source import ToolSource
from corral.tools.tool import Tool

__all__ = ["AnyTool", "read_permissions", "read_tools"]

_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")

AnyTool: TypeAlias = Tool | ToolSource | Callable[..., Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Options(_Strict):
    """What every tool may be told: whether to ask before it runs, and how long it may take."""

    needs_approval: bool = False
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def options(self) -> ToolOptions:
        """The same as a tool takes it."""
        return ToolOptions(needs_approval=self.needs_approval, timeout=self.timeout)


class _Command(_Options):
    """A command; see `CommandTool`."""

    name: str
    description: str = Field(min_length=1)
    parameters: dict[str, Any] | None = None
    command: list[str | list[str]] = Field(min_length=1)
    stdin: str | None = None
    files: dict[str, str] = Field(default_factory=dict[str, str])
    output: Literal["text", "json"] = "text"
    permissions: dict[str, Any] = Field(default_factory=dict[str, Any])


class _Http(_Options):
    """An HTTP request; see `HttpTool`."""

    name: str
    description: str = Field(min_length=1)
    parameters: dict[str, Any] | None = None
    url: str
    method: str | None = None
    hosts: list[str] | None = None
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    body: Any = None
    answer: str | None = None
    max_bytes: int = Field(default=256 << 10, ge=1)


class _Folders(_Options):
    """A file tool: `FOLDER`, `[FOLDER, ...]` or `folders:`, beside the YAML file."""

    folders: list[str] = Field(min_length=1)


class _Hosts(_Options):
    """`http_get`: `HOST`, `[HOST, ...]` or `hosts:`."""

    hosts: list[str] = Field(min_length=1)


class _Brave(_Options):
    """`brave_search`."""

    results: int = Field(default=3, ge=1, le=20)


class _Interpreter(_Options):
    """`code_interpreter`: what the programs may do, and the user's data that they may read."""

    data: str | None = None
    stateful: bool = True
    permissions: dict[str, Any] = Field(default_factory=dict[str, Any])


class _Mcp(_Strict):
    """`mcp`: a server, started here or reached at a URL; see `MCPServer`."""

    name: str | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    url: str | None = None
    env: list[str] = Field(default_factory=list[str])
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    only: list[str] | None = None
    leave_out: list[str] = Field(default_factory=list[str], alias="except")
    prefix: str = ""
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    needs_approval: bool | list[str] = False


_FILE_TOOLS = {
    "read_file": ReadFile,
    "list_files": ListFiles,
    "search_files": SearchFiles,
    "write_file": WriteFile,
}
_NAMES = (
    "brave_search",
    "code_interpreter",
    "http_get",
    "mcp",
    "now",
    "wolfram_alpha",
    *_FILE_TOOLS,
)
_WANTS = {
    **{name: f"a folder: `- {name}: FOLDER`" for name in _FILE_TOOLS},
    "http_get": "hosts: `- http_get: [HOST]`",
    "mcp": "a server: `- mcp: {command: [PROGRAM]}` or `- mcp: {url: URL}`",
}
# What a tool's own complaint says of the key that it is about.
_ABOUT = {
    "can't be a tool's name": "name",
    "arameters of the tool": "parameters",
    "the url of the tool": "url",
    "The path of the tool": "url",
    "not a public address": "url",
    "can't send": "method",
    "Permission network": "hosts",
    "eader": "headers",
    "the body of the tool": "body",
    "the stdin of the tool": "stdin",
    "no path into JSON": "answer",
    "he command": "command",
}
_FORMS = f"Write one of {', '.join(sorted(_NAMES))}, or FILE.py:FUNCTION."


def read_tools(entries: list[Any], document: Located, path: Path) -> list[AnyTool]:
    """The tools that `tools:` lists.

    Args:
        entries: The list, as it was read.
        document: The document that it stands in, under the key `tools`.
        path: The file; paths in it are relative to its folder.

    Raises:
        ConfigError: One can't be used; the message says the file, the line and the remedy.
    """
    tools: list[AnyTool] = []
    for i, entry in enumerate(entries):
        at: Key = ("tools", i)
        try:
            tools.append(_Reader(document, path).read(entry, at))
        except ConfigError as error:
            said = str(error)
            if not said.startswith(f"{path}:"):
                said = f"{path}:{document.line(at)}: {said}"
            raise ConfigError(said) from error
    return tools


def read_permissions(
    given: Mapping[str, Any], document: Located, path: Path, at: Key
) -> Permissions:
    """Permissions in YAML; `read` and `write` are relative to the file's folder.

    Raises:
        ConfigError: They can't be granted, or a key isn't one.
    """
    values: dict[str, Any] = dict(given)
    for key in ("read", "write"):
        listed: Any = values.get(key)
        if isinstance(listed, list) and all(isinstance(each, str) for each in cast(Any, listed)):
            values[key] = [str(_beside(path, each)) for each in cast("list[str]", listed)]
    try:
        return checked(Permissions, values, document, path, at)
    except ConfigError as error:
        if str(error).startswith(f"{path}:"):
            raise
        raise ConfigError(f"{path}:{document.line(at)}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Located
    path: Path

    def read(self, entry: Any, at: Key) -> AnyTool:
        if isinstance(entry, str):
            return self._named(entry, None, at)
        if not isinstance(entry, dict):
            raise ConfigError(f"{entry!r} is no tool. {_FORMS}")
        entry = cast("dict[str, Any]", entry)
        if "command" in entry:
            return self._command(entry, at)
        if "url" in entry:
            return self._http(entry, at)
        if len(entry) != 1:
            raise ConfigError(
                "a tool of several keys needs command: or url:. Add one, or indent the settings "
                "of a built-in tool below its name."
            )
        name, settings = next(iter(entry.items()))
        return self._named(name, {} if settings is None else settings, (*at, name))

    def _named(self, name: str, settings: Any, at: Key) -> AnyTool:
        if settings is None and name in _WANTS:
            raise ConfigError(f"the tool {name!r} needs {_WANTS[name]}.")
        if name in _FILE_TOOLS:
            spec = self._checked(_Folders, _listed(settings, "folders"), at)
            folders = [_beside(self.path, each) for each in spec.folders]
            return _FILE_TOOLS[name](*folders, options=spec.options)
        match name:
            case "code_interpreter":
                return self._interpreter(settings or {}, at)
            case "now":
                return _with(now, self._checked(_Options, settings or {}, at))
            case "brave_search":
                brave = self._checked(_Brave, settings or {}, at)
                return BraveSearch(results=brave.results, options=brave.options)
            case "wolfram_alpha":
                return WolframAlpha(options=self._checked(_Options, settings or {}, at).options)
            case "http_get":
                hosts = self._checked(_Hosts, _listed(settings, "hosts"), at)
                return HttpGet(*hosts.hosts, options=hosts.options)
            case "mcp":
                return self._mcp(settings, at)
            case _:
                found = _function(self.path.parent, name)
                if settings is None:
                    return found
                spec = self._checked(_Options, settings, at)
                return _with(found if isinstance(found, Tool) else tool(found), spec)

    def _command(self, entry: dict[str, Any], at: Key) -> CommandTool:
        spec = self._checked(_Command, entry, at)
        permissions = self._permissions(spec.permissions, (*at, "permissions"))
        return self._at_key(
            at,
            lambda: CommandTool(
                spec.name,
                description=spec.description,
                parameters=spec.parameters,
                command=[self._program_part(part, permissions) for part in spec.command],
                stdin=spec.stdin,
                files=spec.files,
                output=spec.output,
                permissions=permissions,
                options=spec.options,
            ),
        )

    def _program_part(self, part: str | list[str], permissions: Permissions) -> str | list[str]:
        """A part of a command; `./FILE` is the file beside the YAML file, if it may be read."""
        if isinstance(part, list):
            return [cast("str", self._program_part(each, permissions)) for each in part]
        if not part.startswith("./") or "{" in part:
            return part
        file = _beside(self.path, part)
        granted = (*permissions.read, *permissions.write)
        if not any(file.is_relative_to(each) for each in granted):
            raise ConfigError(
                f"the command names {part!r}, which it may not read. Add permissions: "
                f"{{read: [{part}]}}."
            )
        return str(file)

    def _http(self, entry: dict[str, Any], at: Key) -> HttpTool:
        spec = self._checked(_Http, entry, at)
        return self._at_key(
            at,
            lambda: HttpTool(
                spec.name,
                description=spec.description,
                parameters=spec.parameters,
                url=spec.url,
                method=spec.method,
                hosts=spec.hosts,
                headers=spec.headers,
                body=spec.body,
                answer=spec.answer,
                max_bytes=spec.max_bytes,
                options=spec.options,
            ),
        )

    def _interpreter(self, settings: Any, at: Key) -> Tool:
        spec = self._checked(_Interpreter, settings, at)
        permissions = self._permissions(spec.permissions, (*at, "permissions"))
        data = None if spec.data is None else _beside(self.path, spec.data)
        return _with(CodeInterpreter(permissions, stateful=spec.stateful, data=data), spec)

    def _mcp(self, settings: Any, at: Key) -> MCPServer:
        spec = self._checked(_Mcp, settings, at)
        return MCPServer(
            command=spec.command,
            url=spec.url,
            env=spec.env,
            headers=spec.headers,
            only=spec.only,
            leave_out=spec.leave_out,
            prefix=spec.prefix,
            timeout=spec.timeout,
            needs_approval=spec.needs_approval,
            folder=self.path.parent.absolute(),
            name=spec.name,
        )

    def _permissions(self, given: dict[str, Any], at: Key) -> Permissions:
        return read_permissions(given, self.document, self.path, at)

    def _checked(self, model: type[_M], value: Any, at: Key) -> _M:
        return checked(model, value, self.document, self.path, at)

    def _at_key(self, at: Key, make: Callable[[], _T]) -> _T:
        """What `make` makes; a complaint of it stands at the key that it is about."""
        try:
            return make()
        except ConfigError as error:
            said = str(error)
            key = next((key for words, key in _ABOUT.items() if words in said), None)
            line = self.document.line(at if key is None else (*at, key))
            raise ConfigError(f"{self.path}:{line}: {said}") from error


def _with(found: Tool, spec: _Options) -> Tool:
    """A tool with the options that the file gives it, if it gives any."""
    changes = {
        key: getattr(spec, key) for key in _Options.model_fields if key in spec.model_fields_set
    }
    return with_options(found, **changes) if changes else found


def _listed(settings: Any, key: str) -> Any:
    """Settings that may be written short, as one word or a list of them."""
    if isinstance(settings, str):
        return {key: [settings]}
    return {key: cast("list[Any]", settings)} if isinstance(settings, list) else settings


def _beside(path: Path, name: str) -> Path:
    """A path in the file, relative to the file's folder."""
    return Path(os.path.normpath(path.parent.absolute() / Path(name).expanduser()))


def _function(folder: Path, name: str) -> Tool | Callable[..., Any]:
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        near = get_close_matches(name, _NAMES, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else _FORMS
        raise ConfigError(f"there is no tool {name!r}. {hint}")
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"the tool {name!r} is outside the agent's folder. Move it beside it.")
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r} for the tool {name!r}.")
    module = _module(path)
    found = getattr(module, function, None)
    if not callable(found) and not isinstance(found, Tool):
        raise ConfigError(f"{file!r} has no function {function!r}. Check the spelling.")
    return found


def _module(path: Path) -> object:
    """Run the user's own Python file, as `import` would."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{str(path)!r} can't be imported. Name a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"{str(path)!r} can't be imported: {type(error).__name__}: {error}. Mend that file."
        ) from error
    return module
