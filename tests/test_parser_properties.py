"""What holds for whatever a model writes: no exception, no stranger's call, no time to burn."""

import itertools
import random
import sys
from collections.abc import Callable

import pytest
from benchmark_scripts import load_benchmark
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from corral.messages import AssistantMessage, MessageAdapter, StopReason, ToolCall, ToolSpec
from corral.model_runtime.formats.pythonic import encode_calls
from corral.model_runtime.parser import ERROR_STAGES, ParserOptions, parse_output
from corral.model_runtime.runtime import Piece

JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.text("'\"\\\n\r\t{}[](),;=`<>|/ab\x00\x7f\u2028😀", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = ["ping", "get_it", "a.b", "save-note", "_x"]
OPEN = [ToolSpec(name=name, description="") for name in NAMES]
CALLS = st.lists(
    st.builds(
        lambda name, arguments: ToolCall(id="id", name=name, arguments=arguments),
        st.sampled_from(NAMES),
        st.dictionaries(st.sampled_from(["a", "b_2", "from", "True"]) | st.text(max_size=4), JSON),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(CALLS)
def test_calls_that_were_written_down_are_read_back_the_same(calls: list[ToolCall]) -> None:
    message = parse_output(encode_calls(calls), tools=OPEN, new_id=lambda: "id")
    assert repr(message.calls) == repr(tuple(calls))
    assert not set(message.warnings) - {"duplicate_call"}
    again = parse_output(
        [Piece("<|python_tag|>", is_special=True), Piece(encode_calls(calls))],
        tools=OPEN,
        new_id=lambda: "id",
    )
    assert again == message


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "float", "dict", "any", "nonsense", 3])
            | st.just(["integer", "null"]),
            "enum": st.lists(JSON, max_size=3),
            "default": JSON,
            "required": st.lists(st.sampled_from("ab")),
            "$ref": st.sampled_from(["#", "#/properties/a", "http://example.com/x", "?"]),
            "pattern": st.sampled_from(["^a", "("]),
            "minimum": st.integers(0, 3),
            "format": st.sampled_from(["date", "x"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {"properties": st.dictionaries(st.sampled_from("ab"), inner)},
        optional={
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "additionalProperties": inner | st.booleans(),
            "required": st.lists(st.sampled_from("ab")),
        },
    ),
    max_leaves=6,
)
TOOLS = st.lists(
    st.builds(
        lambda name, schema, kind: ToolSpec(
            name=name, description="", parameters=schema, kind=kind
        ),
        st.sampled_from(NAMES) | st.text(max_size=5),
        SCHEMAS,
        st.sampled_from(["function", "function", "code_interpreter"]),
    ),
    max_size=3,
)
STOPS: st.SearchStrategy[StopReason] = st.sampled_from(
    ["end_of_turn", "end_of_message", "max_tokens", "cancelled", "unknown"]
)
TEXTS = st.one_of(
    st.text(),
    st.text("{}[]()'\"\\,;:=<>`|/pingname01.-e \n"),
    st.text(st.characters(categories=["Cs", "Ll"])),
    st.builds(
        lambda name, value: f'{{"name": "{name}", "parameters": {value}}}',
        st.sampled_from(NAMES),
        st.text("{}[]'\"ab:,01 \\"),
    ),
    st.builds(
        lambda name, value: f"[{name}(a={value})]",
        st.sampled_from(NAMES),
        st.text("{}[]()'\"ab:,01 \\=.-"),
    ),
)
OPTIONS = st.builds(
    ParserOptions,
    strict=st.booleans(),
    coerce=st.booleans(),
    validate=st.booleans(),
    parallel=st.booleans(),
    builtins=st.sampled_from([(), ("brave_search",)]),
)


def check(message: AssistantMessage, offered: set[str], output: str) -> None:
    assert {call.name for call in message.calls} <= offered
    assert not (message.calls and message.invalid)
    assert MessageAdapter.validate_json(message.model_dump_json()) == message
    if message.invalid is not None:
        assert message.invalid.code in ERROR_STAGES
        assert message.invalid.message
    elif not message.calls:
        assert message.text == output


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.booleans(), TOOLS, STOPS, OPTIONS)
def test_nothing_makes_the_parser_raise(
    text: str, tagged: bool, tools: list[ToolSpec], stop: StopReason, options: ParserOptions
) -> None:
    pieces = [Piece("<|python_tag|>", is_special=True)] * tagged + [Piece(text)]
    offered = {tool.name for tool in tools} | set(options.builtins)
    message = parse_output(pieces, tools=tools, stop_reason=stop, options=options)
    whole = "".join(piece.text for piece in pieces)
    storable = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    check(message, offered, storable)


@settings(deadline=None)
@given(CALLS, st.data())
def test_a_list_that_was_cut_short_never_runs(calls: list[ToolCall], data: st.DataObject) -> None:
    text = encode_calls(calls)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    message = parse_output(cut, tools=OPEN, stop_reason="max_tokens", new_id=lambda: "id")
    if text.startswith("["):
        assert message.calls == ()
    else:
        assert repr(message.calls) == repr(tuple(calls[: len(message.calls)]))


def test_deep_nests_are_refused_even_where_the_stack_is_nearly_used_up() -> None:
    text = '{"name": "ping", "parameters": {"a": ' + "[" * 60 + "]" * 60 + "}}"
    deeper = text.replace("[", "[[").replace("]", "]]")

    def dig(depth: int, what: str) -> AssistantMessage:
        return parse_output(what, tools=OPEN) if depth == 0 else dig(depth - 1, what)

    assert parse_output(text, tools=OPEN).calls
    room = sys.getrecursionlimit() - len(list(itertools.islice(frames(), None))) - 60
    for what in (text, deeper):
        message = dig(room, what)
        assert message.calls or (message.invalid and message.invalid.code == "too_deep")
    assert parse_output(deeper, tools=OPEN).invalid


def frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


hostile = load_benchmark("parser_hostile")


def steps(action: Callable[[], object]) -> int:
    """How many lines of Python an action runs: a clock that other programs can't disturb."""
    count = 0

    def tick(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += 1
        return tick

    before = sys.gettrace()
    sys.settrace(tick)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", hostile.HOSTILE)
def test_work_grows_no_faster_than_the_text(kind: str) -> None:
    make = hostile.HOSTILE[kind]
    short, long = make(300), make(4800)
    for tagged in (False, True):
        small = steps(lambda: hostile.whole(short, tagged=tagged))  # noqa: B023
        large = steps(lambda: hostile.whole(long, tagged=tagged))  # noqa: B023
        # Past some sizes another way of reading is taken, which is slower, but no less linear.
        assert large <= max(20 * small, 8 * len(long))


@pytest.mark.parametrize("kind", list(hostile.HOSTILE)[::3])
def test_work_grows_no_faster_than_the_text_when_it_comes_a_character_at_a_time(kind: str) -> None:
    make = hostile.HOSTILE[kind]
    short, long = make(150), make(2400)
    small = steps(lambda: hostile.streamed(short, tagged=False))
    large = steps(lambda: hostile.streamed(long, tagged=False))
    assert large <= max(20 * small, 30 * len(long))


@pytest.mark.parametrize(
    "kind",
    [
        "tags without ends",
        "tags",
        "quotes of names",
        "near calls in a list",
        "objects that are no calls",
        "broken halves of calls",
        "single quotes",
        "fences",
        "semicolons",
        "blanks",
    ],
)
def test_nothing_is_copied_or_searched_over_and_over(kind: str) -> None:
    """Steps don't show what one step of C does to a long text; a generous ratio of times does."""
    make = hostile.HOSTILE[kind]
    short, long = make(1 << 14), make(1 << 18)
    small = hostile.seconds(lambda: hostile.whole(short, tagged=False), repeat=3)
    large = hostile.seconds(lambda: hostile.whole(long, tagged=False), repeat=2)
    assert large <= 60 * max(small, 0.0005)


def test_damaged_calls_and_noise_in_any_pieces_are_read_without_harm() -> None:
    fuzz = load_benchmark("parser_fuzz")
    fed = 0
    for number in itertools.count():
        size, _ = fuzz.once(random.Random(number))
        fed += size
        if fed > 250_000:
            break
