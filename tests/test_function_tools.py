"""`@tool`: what the model is shown of a function, and what the function gets."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from corral import ConfigError, ToolError, tool
from corral.tools import Tool, ToolContext
from corral.tools.docstring import describe

HERE = ToolContext(session="s", turn_id="t", call_id="c")


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Place(BaseModel):
    city: str
    title: str = ""


@dataclasses.dataclass
class Span:
    days: int


@tool
def forecast(
    place: Place,
    unit: Unit = Unit.C,
    span: Span | None = None,
    detail: Literal["low", "high"] = "low",
    limit: Annotated[int, Field(ge=1, le=9, description="How many lines.")] = 3,
) -> dict[str, object]:
    """Get the forecast
    for a place.

    Args:
        place: Where.
        unit: The unit of
            temperatures.

    Returns:
        The forecast.
    """
    return {"city": place.city, "unit": unit, "days": span.days if span else 0, "limit": limit}


def test_the_schema_tells_types_defaults_choices_and_descriptions():
    spec = forecast.spec
    assert spec.name == "forecast"
    assert spec.description == "Get the forecast\nfor a place."
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == ["place", "unit", "span", "detail", "limit"]
    assert spec.parameters["required"] == ["place"]
    assert spec.parameters["additionalProperties"] is False
    assert properties["detail"] == {"default": "low", "enum": ["low", "high"], "type": "string"}
    assert properties["limit"] == {
        "default": 3,
        "description": "How many lines.",
        "maximum": 9,
        "minimum": 1,
        "type": "integer",
    }
    assert properties["unit"]["description"] == "The unit of temperatures."  # type: ignore[index]
    assert "title" in spec.parameters["$defs"]["Place"]["properties"]  # type: ignore[index]
    assert "'title': 'Place'" not in str(spec.parameters)


async def test_the_function_gets_its_own_types():
    output = await forecast.call(
        {"place": {"city": "Oslo"}, "unit": "fahrenheit", "span": {"days": 2}}, HERE
    )
    assert output.content == {"city": "Oslo", "unit": "fahrenheit", "days": 2, "limit": 3}


async def test_async_functions_are_awaited_and_the_tool_is_still_the_function():
    @tool(name="double", description="Doubles.")
    async def twice(n: int) -> int:
        return 2 * n

    assert isinstance(twice, Tool)
    assert twice.spec.name == "double"
    assert (await twice.call({"n": 4}, HERE)).content == 8
    assert await twice(3) == 6


async def test_a_result_that_is_no_json_is_a_tool_error():
    @tool
    def opaque() -> object:
        """Give an object."""
        return object()

    with pytest.raises(ToolError, match="object"):
        await opaque.call({}, HERE)


async def test_arguments_that_only_pydantic_can_judge_are_a_tool_error():
    with pytest.raises(ToolError, match="limit"):
        await forecast.call({"place": {"city": "Oslo"}, "limit": 99}, HERE)


def no_docstring(a: int) -> int:
    return a


def no_type(a) -> None:
    """Do."""


def nameless(*args: int) -> None:
    """Do."""


def lambda_typed(a: type(lambda: 0)) -> None:  # type: ignore[valid-type]
    """Do."""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "docstring"),
        (no_type, "no type"),
        (nameless, "no name of its own"),
        (lambda_typed, "JSON Schema"),
    ],
)
def test_a_function_that_no_model_could_call_is_refused_when_it_becomes_a_tool(function, said):
    with pytest.raises(ConfigError, match=said):
        tool(function)


def test_docstrings_in_googles_style_are_understood():
    description, parameters = describe(
        """Do a thing.

        More of it.

        Args:
            one (int): The first,
                over two lines: really.
            *rest: The others.

        Raises:
            ValueError: Never.
        """
    )
    assert description == "Do a thing.\n\nMore of it."
    assert parameters == {"one": "The first, over two lines: really.", "rest": "The others."}
    assert describe(None) == ("", {})
