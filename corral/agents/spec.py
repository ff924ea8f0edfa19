"""Agents in YAML: read strictly, with the file, the line and the key in every complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from corral.agents.agent import Agent, GuardSettings
from corral.agents.complaints import checked
from corral.agents.limits import Limits
from corral.agents.tool_spec import read_permissions, read_tools
from corral.agents.tools import AgentTools
from corral.agents.yaml_reader import Located, read_yaml
from corral.errors import ConfigError
from corral.memory import Store
from corral.safety import Action
from corral.tools.sandbox import Permissions

__all__ = ["AgentSpec", "load_agent", "load_tools"]


_LIMITS = Limits()


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
    """`sampling:`, how tokens are drawn; what is left out is as the model's makers have it."""

    temperature: float = Field(default=0.0, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1, ge=1)
    seed: int | None = None


class AgentSpec(_Strict):
    """An agent's YAML file. `corral: 1` is the version of the format."""

    corral: Literal[1] = 1
    name: str = Field(default="agent", min_length=1)
    model: str
    instructions: str = ""
    tools: list[Any] = Field(default_factory=list[Any])
    """What the agent may use; see `corral.agents.tool_spec`."""
    permissions: dict[str, Any] | None = None
    """A ceiling that no tool goes beyond, whatever it is granted itself."""
    shields: ShieldsSpec = Field(default_factory=ShieldsSpec)
    memory: str | None = None
    """A database's path beside the YAML file, `temporary`, or nothing for the user's own."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    format: str | None = None
    """The prompt format; by default that of the model's profile."""
    constrained: bool = True
    """Whether a grammar holds the model to valid calls, where its runtime can."""

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
    document, spec = _read(path)
    return _build(path, document, spec, model=model, shields=shields, memory=memory)


def load_tools(path: Path) -> tuple[str, AgentTools]:
    """The name of the agent that a YAML file describes, and its tools, without the agent.

    Raises:
        ConfigError: As `Agent.from_file`.
    """
    document, spec = _read(path)
    tools = read_tools(spec.tools, document, path)
    return spec.name, AgentTools(tools, ceiling=_ceiling(path, document, spec))


def _read(path: Path) -> tuple[Located, AgentSpec]:
    document = read_yaml(path)
    is_mapping = isinstance(document.value, dict)
    if not is_mapping:
        raise ConfigError(f"{path}: this is no agent. Write keys such as model: and tools:.")
    return document, checked(AgentSpec, document.value, document, path)


def _ceiling(path: Path, document: Located, spec: AgentSpec) -> Permissions | None:
    if spec.permissions is None:
        return None
    return read_permissions(spec.permissions, document, path, ("permissions",))


def _build(
    path: Path,
    document: Located,
    spec: AgentSpec,
    *,
    model: str | None,
    shields: str | None,
    memory: str | Path | Store | None,
) -> Agent:
    tools = read_tools(spec.tools, document, path)
    permissions = _ceiling(path, document, spec)
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
            sampling=spec.sampling.model_dump(exclude_unset=True),
            format=spec.format,
            constrained=spec.constrained,
            memory=memory,
            permissions=permissions,
            source=path,
        )
    except ConfigError as error:
        key = "model" if model is None and "model" in str(error) else "shields"
        key = "format" if "prompt format" in str(error) else key
        raise ConfigError(f"{path}:{document.line((key,))}: {error}") from error


def _guard(model: str, spec: ShieldsSpec) -> GuardSettings:
    return GuardSettings(model=model, policy=spec.policy, threshold=spec.threshold)
