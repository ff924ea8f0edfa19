"""The server's small parts, each by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.model_runtime.prompt import Special, Text
from corral.server.raw_prompt import CONTROL_TOKENS, read_prompt
from corral.server.stops import StopStrings

PIECES = st.lists(st.text(alphabet="ab<|>", max_size=4), max_size=12)
STOPS = st.lists(st.text(alphabet="ab<|>", max_size=3), max_size=3)


@given(PIECES, STOPS)
def test_an_output_ends_before_its_first_stop_string_however_it_is_cut(pieces, stops):
    watch = StopStrings(stops)
    out = "".join(watch.feed(piece) for piece in pieces) + watch.flush()
    whole = "".join(pieces)
    found = [whole.find(stop) for stop in stops if stop and stop in whole]
    # Cut into pieces, the stop that is complete first counts; whole, the one that begins first.
    assert whole.startswith(out)
    assert bool(found) == watch.stopped
    if not found:
        assert out == whole
    assert not any(stop in out for stop in stops if stop)


@given(st.lists(st.sampled_from([*CONTROL_TOKENS, "<|eot|>", "<\\|eot_id|>", "\n\n", "hi", "<|"])))
def test_a_raw_prompt_is_read_without_losing_a_character(parts):
    text = "".join(parts)
    prompt = read_prompt(text)
    assert prompt.segments[0] == Special("<|begin_of_text|>")
    assert str(prompt) == "<|begin_of_text|>" + text.removeprefix("<|begin_of_text|>")
    for segment in prompt.segments:
        if isinstance(segment, Text):
            assert segment.text
            assert not any(token in segment.text for token in CONTROL_TOKENS)
