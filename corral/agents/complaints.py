"""What is wrong in a YAML file, said with its line, its key and the remedy."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from corral.agents.yaml_reader import Key, Located
from corral.errors import ConfigError

__all__ = ["checked"]

_M = TypeVar("_M", bound=BaseModel)


def checked(model: type[_M], value: Any, document: Located, path: Path, at: Key = ()) -> _M:
    """`value`, which stands at `at` in a document, as a `model`.

    Raises:
        ConfigError: It isn't one; the message says the first thing that is wrong, and where.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(_complaint(model, error, document, path, at)) from error


def _complaint(
    model: type[BaseModel], error: ValidationError, document: Located, path: Path, at: Key
) -> str:
    # A key that is misspelt is told before the one that is missing for it.
    details = min(
        error.errors(include_url=False),
        key=lambda e: (document.line((*at, *e["loc"])), e["type"] == "missing"),
    )
    place = (*at, *details["loc"])
    line = document.line(place)
    if details["type"] == "extra_forbidden":
        key = _shown(place)
        known = _known_keys(model, details["loc"][:-1])
        near = get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"{path}:{line}: unknown key {key!r}. {hint}"
    if details["type"] == "missing":
        return f"{path}:{line}: the key {_shown(place)!r} is missing. Add it."
    # Where several types may stand, the last parts of a place name the type that was tried.
    while len(place) > len(at) and place not in document.lines:
        place = place[:-1]
    said = f"{details['msg']}, not {details['input']!r}"
    return f"{path}:{line}: {_shown(place)}: {said}. Mend that line."


def _shown(place: Key) -> str:
    return ".".join(str(part) for part in place)


def _known_keys(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys of the model that stands at a place in another."""
    for step in place:
        field = model.model_fields.get(str(step))
        inner = field.annotation if field is not None else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
