"""Runs the code blocks of a page of documentation, and compares what they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)


def run_page(name: str) -> int:
    """Run a page's Python blocks in one namespace; a `text` block after one is its output.

    Returns how many outputs were compared.
    """
    namespace: dict[str, object] = {}
    compared = 0
    for code, shown in _BLOCK.findall((DOCS / name).read_text()):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, name, "exec"), namespace)
        if shown:
            assert out.getvalue().rstrip("\n") == shown.rstrip("\n"), code
            compared += 1
    return compared
