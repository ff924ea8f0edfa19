"""The page on prompt formats: its examples render as shown, its table is complete."""

from __future__ import annotations

import re

from documents import DOCS, run_page

from corral.model_runtime.formats import FORMATS

PAGE = "prompt-formats.md"


def test_the_examples_render_as_the_page_shows():
    assert run_page(PAGE) == 6


def test_the_table_lists_every_format():
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / PAGE).read_text(), re.M)
    assert rows == list(FORMATS)
