"""`@tool`: what the model is shown of a function, and what the function gets."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import uuid
from collections.abc import Iterator
from typing import Annotated, Literal, Optional

import annotated_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from corral import ConfigError, RunContext, ToolError, tool
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


class Speed(TypedDict):
    knots: float


@dataclasses.dataclass
class Route:
    via: list[str]
    speed: int = 5


@tool
def sail(
    when: datetime.date,
    at: datetime.datetime,
    boat: uuid.UUID,
    route: Route,
    speed: Speed,
    heading: Annotated[int, "Degrees from north.", annotated_types.Ge(0), annotated_types.Lt(360)],
    crew: tuple[str, ...] = (),
    tags: frozenset[Unit] = frozenset(),
    note: Optional[str] = None,  # noqa: UP045  (users write it so)
    json: bool = False,
    model_config: int = 1,
    _hidden: Literal[1, "two"] = 1,
) -> dict[str, object]:
    """Sail.

    Args:
        heading: Not used, since the annotation says it.
        json: A name that pydantic has for itself.
    """
    assert isinstance(when, datetime.date) and isinstance(at, datetime.datetime)
    assert isinstance(boat, uuid.UUID) and isinstance(route, Route) and isinstance(crew, tuple)
    assert all(isinstance(tag, Unit) for tag in tags)
    return {
        "when": when,
        "at": at,
        "boat": boat,
        "route": route,
        "speed": speed,
        "tags": sorted(tag.value for tag in tags),
        "rest": [heading, note, json, model_config, _hidden],
    }


SAILING = {
    "when": "2026-05-17",
    "at": "2026-05-17T08:00:00Z",
    "boat": "12345678-1234-5678-1234-567812345678",
    "route": {"via": ["Oslo"]},
    "speed": {"knots": 4.5},
    "heading": 90,
    "tags": ["celsius"],
    "json": True,
}


async def test_every_kind_of_parameter_has_a_schema_and_gets_its_own_type():
    properties = sail.spec.parameters["properties"]
    assert isinstance(properties, dict)
    assert list(properties)[-3:] == ["json", "model_config", "_hidden"]
    assert properties["heading"] == {
        "description": "Degrees from north.",
        "exclusiveMaximum": 360,
        "minimum": 0,
        "type": "integer",
    }
    assert properties["when"] == {"format": "date", "type": "string"}
    content = (await sail.call(dict(SAILING), HERE)).content
    assert content == {
        "when": "2026-05-17",
        "at": "2026-05-17T08:00:00Z",
        "boat": "12345678-1234-5678-1234-567812345678",
        "route": {"via": ["Oslo"], "speed": 5},
        "speed": {"knots": 4.5},
        "tags": ["celsius"],
        "rest": [90, None, True, 1, 1],
    }


@pytest.mark.parametrize(
    "wrong",
    [{"when": "soon"}, {"heading": 360}, {"boat": "x"}, {"speed": {}}, {"route": {"via": 1}}],
)
async def test_what_the_types_do_not_admit_is_a_tool_error_that_names_it(wrong: dict):
    with pytest.raises(ToolError, match=next(iter(wrong))):
        await sail.call({**SAILING, **wrong}, HERE)
    with pytest.raises(ToolError, match=next(iter(wrong))):
        sail.check({**SAILING, **wrong})


class Garden:
    def __init__(self, name: str) -> None:
        self.name = name

    @tool(retries=1)
    def water(self, litres: int) -> str:
        """Water the garden.

        Args:
            litres: How much.
        """
        return f"{self.name} got {litres}"

    async def weed(self, where: str) -> str:
        """Weed."""
        return f"{self.name} weeded {where}"

    async def __call__(self, question: str) -> str:
        """Ask the garden."""
        return f"{self.name}: {question}"


async def test_a_method_is_a_tool_of_its_object():
    garden = Garden("Kew")
    assert list(garden.water.spec.parameters["properties"]) == ["litres"]  # type: ignore[arg-type]
    assert (await garden.water.call({"litres": 3}, HERE)).content == "Kew got 3"
    assert garden.water(4) == "Kew got 4"
    assert garden.water.options.retries == 1
    assert (await Garden("Eden").water.call({"litres": 1}, HERE)).content == "Eden got 1"
    with pytest.raises(ConfigError, match="without its object"):
        await Garden.water.ready()
    bound = tool(garden.weed)
    assert (bound.spec.name, bound.spec.description) == ("weed", "Weed.")
    assert (await bound.call({"where": "roses"}, HERE)).content == "Kew weeded roses"


async def test_an_object_that_can_be_called_and_a_partial_are_tools():
    asked = tool(name="ask")(Garden("Kew"))
    assert asked.spec.description == "Ask the garden."
    assert (await asked.call({"question": "why?"}, HERE)).content == "Kew: why?"

    def scale(by: int, value: int, *, label: str = "x") -> str:
        """Scale."""
        return f"{label}={by * value}"

    part = tool(functools.partial(scale, 3, label="y"))
    assert part.spec.name == "scale"
    assert list(part.spec.parameters["properties"]) == ["value"]  # type: ignore[arg-type]
    assert (await part.call({"value": 5}, HERE)).content == "y=15"


async def test_positional_only_parameters_and_the_context_find_their_places():
    @tool
    def f(context: RunContext[str], a: int, /, b: int) -> str:
        """Do."""
        return f"{context.deps} {context.session} {a} {b}"

    here = ToolContext(session="s", turn_id="t", call_id="c", deps="mine")
    assert (await f.call({"a": 1, "b": 2}, here)).content == "mine s 1 2"
    assert f.options.deps == "str"
    assert list(f.spec.parameters["properties"]) == ["a", "b"]  # type: ignore[arg-type]


async def test_a_result_may_be_any_typed_thing_and_nan_is_null():
    @tool
    def found() -> list[Place | Span | float]:
        """Find."""
        return [Place(city="Oslo"), Span(days=1), float("nan")]

    assert (await found.call({}, HERE)).content == [
        {"city": "Oslo", "title": ""},
        {"days": 1},
        None,
    ]


def late_context(a: int, context: RunContext) -> None:
    """Do."""


def yields() -> Iterator[int]:
    """Do."""
    yield 1


def field_default(a: int = Field(3)) -> None:
    """Do."""


def unknown_type(a: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
    """Do."""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (late_context, "first parameter"),
        (yields, "Return it"),
        (field_default, "Annotated"),
        (unknown_type, "Nowhere"),
        (len, "no types|no type"),
    ],
)
def test_what_cannot_be_a_tool_says_what_to_do(function, said):
    with pytest.raises(ConfigError, match=said):
        tool(function)


GOOGLE = """Do a thing.

More of it.

Args:
    one (int): The first,
        over two lines: really.
    *rest: The others.

Raises:
    ValueError: Never.
"""
NUMPY = """Do a thing.

More of it.

Parameters
----------
one : int
    The first,
    over two lines: really.
*rest
    The others.
x, y : float, optional
    Both.

Returns
-------
int
    Something.
"""
SPHINX = """Do a thing.

More of it.

:param int one: The first,
    over two lines: really.
:param rest: The others.
:type rest: str
:returns: Something.
:raises ValueError: Never.
"""


@pytest.mark.parametrize("written", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_docstrings_are_understood_in_three_styles(written: str):
    description, parameters = describe(written)
    assert description == "Do a thing.\n\nMore of it."
    assert parameters["one"] == "The first, over two lines: really."
    assert parameters["rest"] == "The others."
    assert parameters.keys() == ({"one", "rest", "x", "y"} if written is NUMPY else {"one", "rest"})


def test_a_docstring_without_sections_is_all_description():
    assert describe(None) == ("", {})
    assert describe("One line.") == ("One line.", {})
    said = "Notes are kept.\n\nParameters matter\nto everyone: here."
    assert describe(said) == (said, {})


@given(st.text(alphabet=" \n:-*()abArgsPm\u00e9", max_size=120))
def test_any_docstring_at_all_can_be_read(text: str):
    description, parameters = describe(text)
    assert isinstance(description, str) and all(isinstance(v, str) for v in parameters.values())
