"""The official clients for Node against `corral serve`: npm ci --prefix tests/node"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from served import PATIENCE, in_thread, plain, serving

NODE = Path(__file__).parent / "node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="needs Node and its clients: npm ci --prefix tests/node",
)


async def run(script: str, *args: str) -> dict[str, Any]:
    command = ["node", str(NODE / script), *args]
    done = await in_thread(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_nodes_openai_client_gets_what_it_expects(cria):
    async with serving(plain(cria)) as url:
        got = await run("openai_client.mjs", url, "plain")
    assert got["models"] == ["plain"]
    assert got["whole"]["finish_reason"] == got["finish"] == "stop"
    assert got["streamed"] == got["whole"]["message"]["content"] != ""
    assert got["usage"]["completion_tokens"] > 0
    assert got["response"]["status"] == "completed" and got["response"]["text"]
    assert got["kinds"][0] == "response.created" and got["kinds"][-1] in (
        "response.completed",
        "response.incomplete",
    )
    assert got["refused"] == {"status": 404, "code": "model_not_found", "kind": "NotFoundError"}


async def test_nodes_ollama_client_gets_what_it_expects(cria):
    async with serving(plain(cria), raw=["cria"]) as url:
        got = await run("ollama_client.mjs", url, "plain", "cria")
    assert got["listed"] == got["running"] == ["plain", "cria"]
    assert got["context"] == 8192
    assert got["streamed"] == got["whole"] == got["generated"] != ""
    assert got["done"]["reason"] == "stop" and got["done"]["tokens"] > 0
    assert got["raw"]
    assert got["refused"]["status"] == 404 and "nobody" in got["refused"]["error"]
