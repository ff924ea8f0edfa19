"""The page on parsing: its examples do what it shows, and it has every code."""

from __future__ import annotations

import re

from documents import DOCS, run_page

from corral.model_runtime.parser import ERROR_STAGES, INFORMATIONAL, WARNINGS, describe

PAGE = "parsing.md"


def test_the_examples_do_what_the_page_shows() -> None:
    assert run_page(PAGE) == 3


def test_every_code_is_explained() -> None:
    text = (DOCS / PAGE).read_text()
    listed = re.findall(r"^\| `([a-z_]+)` \|", text, re.M)
    assert set(listed) == {*ERROR_STAGES, *WARNINGS, *INFORMATIONAL}
    twice = {code for code in listed if listed.count(code) > 1}
    assert twice == {"invalid_escape"}, "an error where it has no meaning, a warning where it has"
    for code in listed:
        assert describe(code) and describe(code) in text
