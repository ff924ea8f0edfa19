"""Many clients at once."""

from __future__ import annotations

import gc

import anyio
from served import PATIENCE, http, plain, serving

CLIENTS = 20


async def test_many_clients_stream_at_once_without_an_error(cria):
    agent = plain(cria, tokens=4)
    body = {
        "model": "plain",
        "messages": [{"role": "user", "content": "Say hello."}],
        "stream": True,
    }
    ends: list[str] = []

    async def ask(url: str) -> None:
        async with http(url) as web:
            answer = await web.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert '"error"' not in answer.text
            ends.append(answer.text.rpartition("data: ")[2])

    async with serving(agent) as url:
        with anyio.fail_after(3 * PATIENCE):
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(ask, url)
        async with http(url) as web:
            assert (await web.get("/api/ps")).status_code == 200
    assert ends == ["[DONE]\n\n"] * CLIENTS
    assert not leftovers()


def leftovers() -> list[str]:
    """What a finished request leaves behind in memory, which is nothing."""
    from corral.server.replies import LiveReply
    from corral.server.turns import Answer

    gc.collect()
    found = gc.get_objects()
    return [type(each).__name__ for each in found if type(each) in (LiveReply, Answer)]
