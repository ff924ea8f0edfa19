"""Who may use a server, how much, and what becomes of clients that leave, stall or stay."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator

import anyio
import httpx
import pytest
from served import PATIENCE, endless, http, in_thread, plain, scripted, serving, until

from corral import Agent, Limits, Sampling
from corral.errors import ConfigError
from corral.memory import SQLiteStore
from corral.server import ServerSettings
from corral.server.settings import ClientKey, keys_from_environment

CHAT = "/v1/chat/completions"
KEY = ClientKey(name="MY_KEY", secret="0123456789abcdef")
OTHER = ClientKey(name="OTHER_KEY", secret="fedcba9876543210")


def asking(text: str = "Say hello.", **more) -> dict:
    return {"model": "agent", "messages": [{"role": "user", "content": text}], **more}


# -- who may come


async def test_without_its_key_nothing_is_told_and_with_it_all_works():
    agent, runtime = scripted("Hello.", "Hello.")
    async with serving(agent, keys=(KEY, OTHER)) as url, http(url) as web:
        for headers in (
            {},
            {"Authorization": "Bearer wrong-key-of-16-chars"},
            {"Authorization": f"Basic {KEY.secret}"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer \xff".encode("latin-1")},
        ):
            for answer in (
                await web.post(CHAT, json=asking(), headers=headers),
                await web.get("/v1/models", headers=headers),
                await web.get("/api/tags", headers=headers),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        assert runtime.prompts == []
        for key in (KEY, OTHER):
            headers = {"Authorization": f"Bearer {key.secret}"}
            assert (await web.post(CHAT, json=asking(), headers=headers)).status_code == 200
        assert (await web.get("/health")).json() == {"status": "ok"}


async def test_clients_with_keys_of_their_own_do_not_share_sessions():
    agent, runtime = scripted("Hello.", "Nobody.", "Ada.")
    async with serving(agent, keys=(KEY, OTHER)) as url, http(url) as web:
        for key, text in ((KEY, "I am Ada."), (OTHER, "Who am I?"), (KEY, "Who am I?")):
            headers = {"Authorization": f"Bearer {key.secret}", "X-Corral-Session": "one"}
            answer = await web.post(CHAT, json=asking(text), headers=headers)
            assert answer.json()["corral"]["session"] == "one"
    assert "Ada" not in str(runtime.prompts[1])
    assert "I am Ada." in str(runtime.prompts[2])


def test_a_server_that_others_can_reach_needs_a_key(monkeypatch):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="--key-env"):
            ServerSettings(host=host)
        ServerSettings(host=host, keys=(KEY,))
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        ServerSettings(host=host)
    monkeypatch.setenv("SHORT", "secret")
    for name in ("SHORT", "NOT_SET"):
        with pytest.raises(ConfigError, match=name):
            keys_from_environment([name])
    monkeypatch.setenv("GOOD", KEY.secret)
    assert keys_from_environment(["GOOD"])[0].secret == KEY.secret
    assert KEY.secret not in repr(keys_from_environment(["GOOD"]))


async def test_a_page_that_rebinds_its_name_to_this_machine_is_turned_away():
    agent, runtime = scripted("Hello.")
    async with serving(agent, hosts=("llm.home.arpa",)) as url, http(url) as web:
        for host in (
            "evil.example",
            "evil.example:11435",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
        ):
            answer = await web.post(CHAT, json=asking(), headers={"Host": host})
            assert answer.status_code in (400, 403), host
        assert runtime.prompts == []
        for host in ("localhost:80", "127.0.0.1", "[::1]:5", "LLM.home.arpa", "a.localhost"):
            assert (await web.get("/v1/models", headers={"Host": host})).status_code == 200, host


async def test_pages_may_not_even_send_unless_their_origin_is_allowed():
    agent, runtime = scripted("Hello.")
    good = "https://chat.example.org"
    async with serving(agent, origins=(good,)) as url, http(url) as web:
        # What a page can send without asking first: a form's content type.
        for origin in ("https://evil.example", "null", "http://127.0.0.1:3000", good + ".evil.net"):
            headers = {"Origin": origin, "Content-Type": "text/plain"}
            answer = await web.post(CHAT, content=json.dumps(asking()), headers=headers)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        assert runtime.prompts == []
        asked = await web.options(
            CHAT, headers={"Origin": good, "Access-Control-Request-Headers": "authorization"}
        )
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == good
        assert asked.headers["access-control-allow-headers"] == "authorization"
        answer = await web.post(CHAT, json=asking(), headers={"Origin": good})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == good


# -- how much


async def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    agent, runtime = scripted("Hello.")
    async with serving(agent, body_bytes=10_000) as url, http(url) as web:

        async def endless() -> AsyncGenerator[bytes]:
            for _ in range(20):
                yield b" " * 1000

        announced = await web.post(CHAT, content=b" " * 10_001)
        streamed = await web.post(CHAT, content=endless())
        for answer in (announced, streamed):
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
        assert (await web.post(CHAT, json=asking())).status_code == 200
    assert len(runtime.prompts) == 1


async def test_a_body_that_does_not_come_is_not_waited_for():
    agent, _ = scripted("Hello.")
    async with serving(agent, body_seconds=0.3) as url:
        port = int(url.rpartition(":")[2])
        with anyio.fail_after(PATIENCE):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{{"
                await stream.send(head.encode())
                assert (await stream.receive()).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "agent"}', b"[" * 10_000])
async def test_a_body_that_is_no_request_is_a_bad_request(body):
    agent, _ = scripted("Hello.")
    async with serving(agent) as url, http(url) as web:
        for path in (CHAT, "/v1/responses", "/api/show" if body[:1] != b"{" else CHAT):
            answer = await web.post(path, content=body)
            assert answer.status_code == 400, (path, answer.text)
            assert answer.json()["error"]


async def test_unknown_places_and_methods_are_errors_in_the_interfaces_own_form():
    agent, _ = scripted("Hello.")
    async with serving(agent) as url, http(url) as web:
        assert (await web.get("/v1/nothing")).json()["error"]["code"] == "not_found"
        assert isinstance((await web.get("/api/nothing")).json()["error"], str)
        wrong = await web.get("/api/chat")
        assert (wrong.status_code, type(wrong.json()["error"])) == (405, str)


async def test_a_client_that_asks_too_much_at_once_is_told_when_to_come_again():
    async with serving(endless(), client_requests=2, requests=3) as url, http(url) as web:
        counting = asking("Count from one to five hundred in words.", stream=True)
        async with web.stream("POST", CHAT, json=counting) as one:
            # Held on to: an iterator that nobody holds closes its connection.
            first = one.aiter_lines()
            await anext(first)
            async with web.stream("POST", CHAT, json=counting) as two:
                second = two.aiter_lines()
                await anext(second)
                answer = await web.post(CHAT, json=counting)
                assert answer.status_code == 429
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"]["type"] == "rate_limit_error"
        await until(lambda: _status_is(web, 200))


async def _status_is(web: httpx.AsyncClient, status: int) -> bool:
    return (await web.get("/v1/models")).status_code == status


async def test_a_server_that_is_full_says_so():
    async with serving(endless(), requests=1) as url, http(url) as web:
        counting = asking("Count from one to five hundred in words.", stream=True)
        async with web.stream("POST", CHAT, json=counting) as one:
            lines = one.aiter_lines()
            await anext(lines)
            answer = await web.post(CHAT, json=counting)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0


# -- clients that leave, stall, or stay too long


@pytest.fixture
async def store():
    store = await SQLiteStore.open(None)
    yield store
    await store.aclose()


def counting(cria, store) -> Agent:
    """An agent whose answer to a count would take minutes."""
    return plain(cria, name="agent", tokens=4000, memory=store)


COUNT = "Count from one to five hundred in words."


async def outcomes(store: SQLiteStore, session: str) -> list[str]:
    lines = [json.loads(line) async for line in store.export(session)]
    return [line["status"] for line in lines if line["kind"] == "turn"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_its_turn(cria, store, stream):
    async with serving(counting(cria, store)) as url, http(url) as web:
        headers = {"X-Corral-Session": "left"}
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    await web.post(CHAT, json=asking(COUNT, stream=stream), headers=headers)

                tasks.start_soon(ask)
                await until(lambda: _begun(store, "left"))
                scope.cancel()
        await until(lambda: _ended(store, "left"))
    assert await outcomes(store, "left") == ["cancelled"]


async def _begun(store: SQLiteStore, session: str) -> bool:
    return bool(await store.items(session))


async def _ended(store: SQLiteStore, session: str) -> bool:
    return await outcomes(store, session) not in ([], ["running"], [None])


async def test_a_client_that_reads_nothing_is_dropped(store):
    agent, _ = scripted(
        "All work and no play. " * 2000,
        memory=store,
        sampling=Sampling(max_tokens=40_000),
        limits=Limits(tokens=40_000, seconds=PATIENCE),
    )
    async with serving(agent, send_seconds=0.5) as url, http(url) as web:
        port = int(url.rpartition(":")[2])
        body = json.dumps({**asking(stream=True), "session": "stalled"}).encode()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await in_thread(lambda: deaf.connect(("127.0.0.1", port)))
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            await in_thread(lambda: deaf.sendall(head.encode() + body))
            await until(lambda: _ended(store, "stalled"))
            assert await outcomes(store, "stalled") == ["cancelled"]
        assert (await web.get("/health")).is_success


async def test_a_request_ends_when_its_time_is_up(store):
    async with serving(endless(memory=store), request_seconds=0.5) as url, http(url) as web:
        whole = await web.post(CHAT, json={**asking(COUNT), "session": "late"})
        assert whole.status_code == 504
        streamed = await web.post(CHAT, json={**asking(COUNT, stream=True), "session": "later"})
        assert "0.5 seconds" in streamed.text
        lines = await web.post("/api/chat", json={**asking(COUNT), "session": "latest"})
        assert "0.5 seconds" in json.loads(lines.text.splitlines()[-1])["error"]
    for session in ("late", "later", "latest"):  # on a slow machine it hadn't even begun
        assert await outcomes(store, session) in (["cancelled"], [])


async def test_silence_is_broken_by_comments_that_clients_pass_over(cria):
    agent = plain(cria, name="agent", tokens=40)
    async with serving(agent, ping_seconds=0.001) as url, http(url) as web:
        answer = await web.post(CHAT, json=asking(stream=True))
    assert ": still here\n\n" in answer.text
    data = [line for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert data[-1] == "data: [DONE]"


# -- the server's end


async def asked_while_it_stops(agent: Agent, store: SQLiteStore, body: dict, **settings) -> str:
    """What a client gets whose request runs when the server is told to stop."""
    got: list[str] = []

    async def ask(url: str) -> None:
        async with http(url) as web:
            got.append((await web.post(CHAT, json={**body, "session": "last"})).text)

    async with anyio.create_task_group() as tasks:
        async with serving(agent, **settings) as url:
            tasks.start_soon(ask, url)
            await until(lambda: _begun(store, "last"))
    return got[0]


async def test_a_stop_lets_turns_end_first(cria, store):
    agent = plain(cria, name="agent", tokens=16, memory=store)
    text = await asked_while_it_stops(agent, store, asking(), grace_seconds=PATIENCE)
    assert json.loads(text)["choices"][0]["message"]["content"]
    assert await outcomes(store, "last") in (["answered"], ["limit"])


async def test_a_turn_that_outlasts_a_stop_is_ended_and_kept(store):
    body = asking(COUNT, stream=True)
    text = await asked_while_it_stops(endless(memory=store), store, body, grace_seconds=0.3)
    assert "The server is stopping" in text
    assert await outcomes(store, "last") == ["cancelled"]
