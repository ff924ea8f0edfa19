"""YAML as plain values, each with the line it stands on, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from corral.errors import ConfigError

__all__ = ["Located", "read_yaml"]

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """A document: its value, and the line (from 1) of every key and item in it, by its path."""

    value: Any
    lines: dict[Key, int]

    def line(self, path: Key) -> int:
        """The line of a key, or of the nearest thing around it that has one."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(path: Path) -> Located:
    """Read a YAML 1.2 file made of mappings, lists and scalars.

    Raises:
        ConfigError: The file can't be read, is no YAML, repeats a key, or uses tags or aliases.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {str(path)!r}. Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {str(path)!r} can't be read: {error}.") from error
    reader: Any = YAML(typ="safe", pure=True)
    try:
        node = reader.compose(text)
    except MarkedYAMLError as error:
        details: Any = error  # its fields have no types
        mark = details.problem_mark or details.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(
            f"{path}:{line}: this is not valid YAML: {details.problem or details.context}. "
            "Mend that line."
        ) from error
    except YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {error}") from error
    lines: dict[Key, int] = {}
    try:
        return Located(_value(node, (), lines, path), lines)
    except RecursionError as error:
        raise ConfigError(f"{path}: this is nested too deeply.") from error


def _value(node: Any, at: Key, lines: dict[Key, int], path: Path) -> Any:
    if node is None:
        return None
    line = int(node.start_mark.line) + 1
    lines.setdefault(at, line)
    if node.anchor is not None:
        raise ConfigError(f"{path}:{line}: anchors and aliases are not used here. Write it out.")
    match node.id:
        case "mapping":
            return _mapping(node, at, lines, path)
        case "sequence":
            items = cast("list[Any]", node.value)
            return [_value(item, (*at, i), lines, path) for i, item in enumerate(items)]
        case _:
            return _scalar(node, path)


def _mapping(node: Any, at: Key, lines: dict[Key, int], path: Path) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in cast("list[tuple[Any, Any]]", node.value):
        where = int(key_node.start_mark.line) + 1
        key = _scalar(key_node, path) if key_node.id == "scalar" else None
        if not isinstance(key, str):
            raise ConfigError(f"{path}:{where}: a key must be a word. Put it in quotes.")
        if key in mapping:
            raise ConfigError(f"{path}:{where}: {key!r} stands here twice. Remove one.")
        lines[(*at, key)] = where
        mapping[key] = _value(value_node, (*at, key), lines, path)
    return mapping


def _scalar(node: Any, path: Path) -> Any:
    """A scalar by YAML 1.2's core schema: null, booleans, numbers, and all else text."""
    kind = str(node.tag).rpartition(":")[2]
    text = str(node.value)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return (
                int(text.replace("_", ""), 0) if text.lstrip("+-").startswith("0x") else int(text)
            )
        case "float":
            return float(text)
        case "str" | "timestamp":
            return text
        case _:
            line = int(node.start_mark.line) + 1
            raise ConfigError(f"{path}:{line}: the tag {str(node.tag)!r} is not used here.")
