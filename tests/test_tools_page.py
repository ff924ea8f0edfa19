"""The blocks of docs/tools.md about functions and approval do what the page says, on cria."""

from __future__ import annotations

import re
from pathlib import Path

import anyio.to_thread
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tools.md"
OURS = PAGE.read_text().partition("<!-- The end of what")[0]


async def test_the_page_runs_from_top_to_bottom(
    cria, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    blocks = re.findall(r"^```python\n(.*?)^```$", OURS, re.M | re.S)
    assert len(blocks) >= 6
    # The model that is loaded already, instead of one more for each agent on the page.
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks).replace('model="cria"', "model=cria"))
    names = {"cria": cria, "__name__": "page", "__file__": str(program)}
    code = compile(program.read_text(), str(program), "exec", dont_inherit=True)
    await anyio.to_thread.run_sync(exec, code, names)
    printed = capsys.readouterr().out
    assert "shipped" in printed
    asked = "delete_file {'name': 'notes.txt'} - the tool is marked as one to ask about"
    assert asked in printed
    assert "deleted draft.txt" in printed
    assert re.findall(r"^```text\n(.*?)^```$", OURS, re.M | re.S)[-1] in printed
