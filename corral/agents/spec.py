"""Agents in YAML: read strictly, with the file, the line and the key in every complaint."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from corral.agents.agent import Agent, GuardSettings
from corral.agents.limits import Limits
from corral.agents.yaml_reader import Located, read_yaml
from corral.errors import ConfigError
from corral.memory import Store
from corral.model_runtime.runtime import Sampling
from corral.safety import Action
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.tool import Tool

__all__ = ["AgentSpec", "load_agent"]


_LIMITS = Limits()
_SAMPLING = Sampling()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ShieldsSpec(_Strict):
    """`shields:`, a guard's model string alone or with settings; `none` is no guard."""

    model: str = "auto"
    policy: dict[str, Action] = Field(default_factory=dict)
    threshold: float = Field(default=0.5, gt=0, le=1)


class LimitsSpec(_Strict):
    """`limits:`, the bounds of a turn."""

    steps: int = Field(default=_LIMITS.steps, ge=1)
    seconds: float = Field(default=_LIMITS.seconds, gt=0)
    tokens: int = Field(default=_LIMITS.tokens, ge=1)


class SamplingSpec(_Strict):
    """`sampling:`, how tokens are drawn."""

    temperature: float = Field(default=0.0, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=_SAMPLING.max_tokens, ge=1)
    seed: int | None = None


class AgentSpec(_Strict):
    """An agent's YAML file. `corral: 1` is the version of the format."""

    corral: Literal[1] = 1
    name: str = Field(default="agent", min_length=1)
    model: str
    instructions: str = ""
    tools: list[str] = Field(default_factory=list)
    """`code_interpreter`, or `FILE.py:FUNCTION` with the file beside the YAML file."""
    shields: ShieldsSpec = Field(default_factory=ShieldsSpec)
    memory: str | None = None
    """A database's path beside the YAML file, `temporary`, or nothing for the user's own."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)

    @field_validator("shields", mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


def load_agent(
    path: Path,
    *,
    model: str | None = None,
    shields: str | None = None,
    memory: str | Path | Store | None = None,
) -> Agent:
    """Read an agent's YAML file. See `Agent.from_file`."""
    document = read_yaml(path)
    is_mapping = isinstance(document.value, dict)
    if not is_mapping:
        raise ConfigError(f"{path}: this is no agent. Write keys such as model: and tools:.")
    try:
        spec = AgentSpec.model_validate(document.value)
    except ValidationError as error:
        raise ConfigError(_complaint(path, document, error)) from error
    return _build(path, document, spec, model=model, shields=shields, memory=memory)


def _build(
    path: Path,
    document: Located,
    spec: AgentSpec,
    *,
    model: str | None,
    shields: str | None,
    memory: str | Path | Store | None,
) -> Agent:
    tools: list[Tool | Callable[..., Any]] = []
    for i, name in enumerate(spec.tools):
        try:
            tools.append(_tool(path.parent, name))
        except ConfigError as error:
            raise ConfigError(f"{path}:{document.line(('tools', i))}: {error}") from error
    if memory is None and spec.memory is not None:
        own = spec.memory
        memory = own if own == "temporary" else path.parent / Path(own).expanduser()
    guard = shields or spec.shields.model
    try:
        return Agent(
            name=spec.name,
            model=model or spec.model,
            instructions=spec.instructions.strip(),
            tools=tools,
            shields=guard if guard in ("auto", "none") else _guard(guard, spec.shields),
            limits=Limits(**spec.limits.model_dump()),
            sampling=Sampling(**spec.sampling.model_dump()),
            memory=memory,
        )
    except ConfigError as error:
        key = "model" if model is None and "model" in str(error) else "shields"
        raise ConfigError(f"{path}:{document.line((key,))}: {error}") from error


def _guard(model: str, spec: ShieldsSpec) -> GuardSettings:
    return GuardSettings(model=model, policy=spec.policy, threshold=spec.threshold)


def _tool(folder: Path, name: str) -> Tool | Callable[..., Any]:
    if name == "code_interpreter":
        return CodeInterpreter()
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        near = get_close_matches(name, ["code_interpreter"], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"there is no tool {name!r}.{hint} Write code_interpreter, or FILE.py:FUNCTION."
        )
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


def _complaint(path: Path, document: Located, error: ValidationError) -> str:
    """The first thing that is wrong, with its line, its key and the remedy."""
    details = min(error.errors(include_url=False), key=lambda e: document.line(e["loc"]))
    place = details["loc"]
    line = document.line(place)
    key = ".".join(str(part) for part in place)
    if details["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"{path}:{line}: unknown key {key!r}. {hint}"
    if details["type"] == "missing":
        return f"{path}:{line}: the key {key!r} is missing. Add it."
    return f"{path}:{line}: {key}: {details['msg']}, not {details['input']!r}. Mend that line."


def _known_keys(place: tuple[str | int, ...]) -> list[str]:
    inner = {"shields": ShieldsSpec, "limits": LimitsSpec, "sampling": SamplingSpec}
    model: type[BaseModel] = inner.get(str(place[0]), AgentSpec) if place else AgentSpec
    return list(model.model_fields)
