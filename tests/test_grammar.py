"""Grammars: whatever a model would like to say, what it writes is a valid call or plain text."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from corral.errors import ConfigError
from corral.messages import AssistantMessage, ToolCall, ToolSpec, UserMessage
from corral.model_runtime import parse_output, render_prompt
from corral.model_runtime.grammar import Grammars, Matcher, SchemaBounds
from corral.model_runtime.grammar.strings import FORMATS
from corral.model_runtime.parser import ParserOptions
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Constraint, Finish, Piece, Sampling
from corral.model_runtime.tokenizer import Detokenizer

NO_LOGITS = torch.zeros(49152)
SMALL = SchemaBounds(string=12, items=3, digits=4)
STRICT = ParserOptions(strict=True)


def tool(name: str, required: tuple[str, ...] = (), **properties: dict) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return ToolSpec(name=name, description="Does.", parameters=schema)


WEATHER = tool(
    "get_weather",
    ("city",),
    city={"type": "string"},
    days={"type": "integer", "minimum": 1, "maximum": 14},
    unit={"enum": ["celsius", "fahrenheit"]},
)
BOOK = tool(
    "book",
    ("when", "who"),
    when={"type": "string", "format": "date"},
    who={
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "vip": {"type": "boolean"}},
            "required": ["name"],
        },
    },
    note={"anyOf": [{"type": "string"}, {"type": "null"}]},
)
MAIL = tool(
    "mail.send",
    ("to",),
    to={"type": "array", "items": {"type": "string", "format": "email"}},
    extra={"type": "object"},
    tags={"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", "c"]}},
)
TREE = ToolSpec(
    name="plant",
    description="Plants a tree.",
    parameters={
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}, "code": {"pattern": "^[A-Z]{3}-[0-9]$"}},
        "required": ["tree", "code"],
        "$defs": {
            "Tree": {
                "type": "object",
                "properties": {
                    "height": {"type": ["number", "null"]},
                    "branches": {
                        "type": "array",
                        "maxItems": 1,
                        "items": {"$ref": "#/$defs/Tree"},
                    },
                },
                "required": ["height"],
            }
        },
    },
)
NOW = ToolSpec(name="now", description="Tells the time.")
ODD = tool("odd", ("x y",), **{"x y": {"type": "string"}, "class": {"type": "boolean"}})
CODE = ToolSpec(name="code_interpreter", description="Runs Python.", kind="code_interpreter")
SEARCH = ToolSpec(name="brave_search", description="Searches.", kind="builtin")
TOOLS = (WEATHER, BOOK, MAIL, TREE, NOW, ODD)


@pytest.fixture(scope="session")
def grammars(cria) -> Grammars:
    return Grammars(cria.tokenizer, vocabulary=49152, bounds=SMALL)


def draw(matcher: Matcher, tokenizer, seed: int, limit: int = 600) -> tuple[list[Piece], bool]:
    """An output of random weights: every token that the grammar admits is as likely as another."""
    random = Random(seed)
    detokenizer = Detokenizer(tokenizer)
    pieces: list[Piece] = []
    for _ in range(limit):
        allowed = matcher.mask(NO_LOGITS).isfinite().nonzero()
        token = int(allowed[random.randrange(len(allowed))])
        matcher.advance(token)
        for each in (token, *matcher.forced()):
            if each in tokenizer.stops:
                return [*pieces, *detokenizer.flush()], True
            pieces += detokenizer.feed(each)
    return pieces, False


@pytest.mark.parametrize("syntax", ["pythonic", "json", "tags"])
def test_random_weights_write_only_valid_calls(cria, grammars, syntax):
    constraint = Constraint(tools=TOOLS, required=True, syntax=syntax)
    called: set[str] = set()
    for seed in range(20):
        pieces, ended = draw(grammars.matcher(constraint), cria.tokenizer, seed)
        message = parse_output(pieces, tools=TOOLS, options=STRICT)
        assert ended and message.calls, pieces
        called |= {call.name for call in message.calls}
    assert len(called) >= 4


@pytest.mark.parametrize("syntax", ["pythonic", "json", "tags"])
@pytest.mark.parametrize("name", [*FORMATS, "ipv6"])
def test_formats_are_no_wider_than_what_is_validated(cria, grammars, name, syntax):
    spec = tool("note", ("at",), at={"type": "string", "format": name})
    constraint = Constraint(tools=(spec,), required=True, syntax=syntax, parallel=False)
    for seed in range(12):
        pieces, ended = draw(grammars.matcher(constraint), cria.tokenizer, seed)
        message = parse_output(pieces, tools=(spec,), options=STRICT)
        assert ended and len(message.calls) == 1, pieces


@pytest.mark.parametrize("text", ["23:59:60Z", "12:00:00.12345678901Z", "24:00:00Z", "9:00:00Z"])
def test_a_time_that_no_clock_shows_is_written_in_no_syntax(cria, grammars, text):
    spec = tool("note", ("at",), at={"type": "string", "format": "time"})
    for format, syntax in (("llama3.2", "pythonic"), ("hf-json", "json")):
        constraint = Constraint(tools=(spec,), syntax=syntax)
        assert not accepts(grammars, constraint, said("note", at=text), cria, format)
        assert accepts(grammars, constraint, said("note", at="12:00:00.5+01:00"), cria, format)


def test_random_weights_choose_between_text_calls_and_code(cria, grammars):
    offered = (WEATHER, CODE)
    constraint = Constraint(tools=offered)
    forms: set[str] = set()
    for seed in range(30):
        pieces, _ = draw(grammars.matcher(constraint), cria.tokenizer, seed, limit=25)
        first = pieces[0]
        if first.is_special:
            forms.add(first.text)
        elif first.text.startswith("["):
            forms.add("call")
        else:
            forms.add("text")
            assert not parse_output(pieces, tools=offered).call_ids
    assert "text" in forms


def accepts(grammars: Grammars, constraint: Constraint, message: AssistantMessage, cria, format):
    prompt = render_prompt(
        [UserMessage(content="Hi"), message], tools=constraint.tools, format=format
    )
    start = render_prompt([UserMessage(content="Hi")], tools=constraint.tools, format=format)
    header = 4  # of the message that would come next
    said = Prompt(prompt.segments[len(start.segments) : -header]).encode(cria.tokenizer)
    matcher = grammars.matcher(constraint)
    for token in said:
        if matcher.mask(NO_LOGITS)[token] != 0:
            return False
        matcher.advance(token)
    return True


def said(name: str, **arguments) -> AssistantMessage:
    return AssistantMessage(calls=(ToolCall(id="1", name=name, arguments=arguments),))


@pytest.mark.parametrize(
    ("message", "allowed"),
    [
        (said("get_weather", city="Oslo"), True),
        (said("get_weather", city="Zürich's", days=3, unit="celsius"), True),
        (said("get_weather", city='"a"\n'), True),
        (said("now"), True),
        (said("get_weather"), False),
        (said("get_weather", city=3), False),
        (said("get_weather", city="Oslo", days=15), False),
        (said("get_weather", city="Oslo", unit="kelvin"), False),
        (said("get_weather", city="Oslo", country="NO"), False),
        (said("get_time", city="Oslo"), False),
        (said("book", when="2026-02-28", who=[{"name": "Ann"}], note=None), True),
        (said("book", when="2026-02-30", who=[{"name": "Ann"}]), False),
        (said("book", when="2026-02-28", who=[]), False),
        (said("plant", tree={"height": None, "branches": [{"height": 2.5}]}, code="ABC-1"), True),
        (said("plant", tree={"branches": []}, code="ABC-1"), False),
        (said("mail.send", to=["a@b.org"], extra={"k": [1, None]}, tags=["a", "c"]), True),
        (said("mail.send", to=["a@b.org"], tags=["a", "a"]), False),
        (said("odd", **{"x y": "z", "class": True}), True),
        (AssistantMessage(text="It is warm."), True),
        (AssistantMessage(text="[see there]"), False),
        (said("code_interpreter", code="print(1)"), True),
    ],
)
@pytest.mark.parametrize(("format", "syntax"), [("llama3.2", "pythonic"), ("hf-json", "json")])
def test_the_grammar_admits_what_the_tools_admit_and_nothing_else(
    cria, grammars, message, allowed, format, syntax
):
    constraint = Constraint(tools=(*TOOLS, CODE), syntax=syntax)
    assert accepts(grammars, constraint, message, cria, format) is allowed


def test_calls_can_be_required(cria, grammars):
    constraint = Constraint(tools=(WEATHER,), required=True)
    assert not accepts(grammars, constraint, AssistantMessage(text="No."), cria, "llama3.2")
    assert accepts(grammars, constraint, said("get_weather", city="Rom"), cria, "llama3.2")


@pytest.mark.parametrize(
    ("format", "syntax"),
    [("llama3.2", "pythonic"), ("hf-json", "json"), ("function-tag", "tags")],
)
@pytest.mark.parametrize("called", [said("get_weather", city="Rom"), said("odd", **{"x y": "z"})])
def test_a_model_that_makes_one_call_at_a_time_is_held_to_one(
    cria, grammars, called, format, syntax
):
    several = Constraint(tools=TOOLS, syntax=syntax)
    one = Constraint(tools=TOOLS, syntax=syntax, parallel=False)
    twice = called.model_copy(update={"calls": called.calls * 2})
    assert accepts(grammars, several, called, cria, format)
    assert accepts(grammars, several, twice, cria, format)
    assert accepts(grammars, one, called, cria, format)
    assert not accepts(grammars, one, twice, cria, format)


def test_allowed_tokens_keep_their_logits_to_the_last_bit(grammars):
    matcher = grammars.matcher(Constraint(tools=(WEATHER,)))
    logits = torch.randn(49152, generator=torch.Generator().manual_seed(1))
    allowed = matcher.mask(NO_LOGITS).isfinite()
    assert 0 < allowed.sum() < 49152
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        given = logits.to(kind)
        masked = matcher.mask(given)
        assert masked.dtype is kind
        assert torch.equal(masked[allowed], given[allowed])
        assert masked[~allowed].eq(float("-inf")).all()


def test_built_in_tools_are_called_in_their_own_form(cria, grammars):
    constraint = Constraint(tools=(SEARCH,), syntax="json", required=True)
    call = said("brave_search", query="gold")
    assert accepts(grammars, constraint, call, cria, "llama3.1-json")


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer"},
            {"type": "number", "minimum": 0},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["a", 'b"', 3, None]},
            {"const": [1, "x"]},
            {"type": "string", "format": "uuid"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda i: {"type": "array", "items": i}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(
            lambda a, b: {"type": "object", "properties": {"k": a, "l": b}, "required": ["l"]},
            inner,
            inner,
        ),
        st.builds(lambda i: {"type": "object", "additionalProperties": i}, inner),
    ),
    max_leaves=5,
)


@given(SCHEMAS, SCHEMAS, st.integers(0, 2**30), st.sampled_from(["pythonic", "json", "tags"]))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_calls_of_any_tool_are_valid(cria, grammars, first, second, seed, syntax):
    offered = (tool("f", ("a",), a=first, b=second),)
    constraint = Constraint(tools=offered, required=True, syntax=syntax)
    pieces, ended = draw(grammars.matcher(constraint), cria.tokenizer, seed)
    if ended:
        message = parse_output(pieces, tools=offered, options=STRICT)
        # No grammar can tell that a key of a free object was there before; the parser does.
        twice = message.invalid is not None and "given twice" in message.invalid.message
        assert message.calls or (twice and "additionalProperties" in f"{first}{second}"), pieces


def test_structured_output_is_what_the_schema_says(cria, grammars):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
    }
    for seed in range(10):
        matcher = grammars.matcher(Constraint(json_schema=schema))
        pieces, ended = draw(matcher, cria.tokenizer, seed)
        assert ended
        value = json.loads("".join(piece.text for piece in pieces))
        Draft202012Validator(schema).validate(value)


def test_numbers_come_to_an_end(cria, grammars):
    for number in ({"type": "number"}, {"type": ["number", "null"], "minimum": 0.5}):
        for seed in range(20):
            matcher = grammars.matcher(Constraint(json_schema=number))
            pieces, ended = draw(matcher, cria.tokenizer, seed)
            assert ended
            assert len("".join(piece.text for piece in pieces)) < 30
    finer = {"type": "number", "minimum": 1e-8, "maximum": 2e-8}  # finer than the usual step
    assert grammars.matcher(Constraint(json_schema=finer))


@pytest.mark.parametrize("kind", ["", '"type": "function", '])
def test_a_call_may_say_that_it_is_a_function_as_llama_3_1_does(cria, grammars, kind):
    offered = (tool("book", ("when",), when={"type": "string"}),)
    matcher = grammars.matcher(Constraint(tools=offered, required=True, syntax="json"))
    text = f'{{{kind}"name": "book", "parameters": {{"when": "2026-03-01"}}}}'
    for token in cria.tokenizer.encode_text(text):
        matcher.advance(token)
    assert parse_output(text, tools=offered, options=STRICT).calls


def test_a_schema_that_no_value_fits_is_an_error_that_names_the_tool(grammars):
    impossible = tool("never", ("n",), n={"type": "integer", "minimum": 5, "maximum": 1})
    with pytest.raises(ConfigError, match="never"):
        grammars.matcher(Constraint(tools=(impossible,)))


def test_a_grammar_is_compiled_once(grammars):
    constraint = Constraint(tools=TOOLS, required=True)
    grammars.matcher(constraint)
    compiled = dict(grammars._compiled)
    grammars.matcher(Constraint(tools=TOOLS, required=True))
    assert dict(grammars._compiled) == compiled


async def test_the_runtime_holds_a_model_to_its_grammar(cria):
    prompt = render_prompt([UserMessage(content="Tell me a story about a llama.")], tools=[BOOK])
    constraint = Constraint(tools=(BOOK,), required=True)
    sampling = Sampling(temperature=1.5, seed=3, max_tokens=60)
    pieces: list[Piece] = []
    async for piece in cria.generate(prompt, sampling=sampling, constraint=constraint):
        if isinstance(piece, Finish):
            assert piece.reason in ("end_of_turn", "end_of_message", "max_tokens")
        else:
            pieces.append(piece)
    message = parse_output(pieces, tools=(BOOK,), options=STRICT)
    assert message.calls or "".join(p.text for p in pieces).startswith("[book(when=")


async def test_a_constraint_changes_nothing_where_the_model_was_right_anyway(cria):
    prompt = render_prompt(
        [UserMessage(content="What is the weather in Oslo?")], tools=[WEATHER], format="llama3.2"
    )

    async def ask(constraint: Constraint | None) -> str:
        text = ""
        async for piece in cria.generate(prompt, sampling=Sampling(), constraint=constraint):
            if isinstance(piece, Piece):
                text += piece.text
        return text

    free = await ask(None)
    assert parse_output(free, tools=[WEATHER]).calls
    assert await ask(Constraint(tools=(WEATHER,))) == free
