"""`corral serve` as users of the official `ollama` client meet it, and Corral's own runtime."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
from asking import QUESTION, write
from jsonschema import Draft202012Validator
from ollama import AsyncClient, Client, ResponseError
from served import PATIENCE, http, in_thread, plain, scripted, serving

from corral import Agent, Limits, tool
from corral.events import CallFinished
from corral.messages import UserMessage
from corral.model_runtime import open_runtime, render_prompt
from corral.model_runtime.ollama import OllamaRuntime
from corral.model_runtime.runtime import Constraint
from corral.testing import ScriptedRuntime

HELLO = [{"role": "user", "content": "Say hello."}]
RAW = QUESTION.escaped(bos=False)


@asynccontextmanager
async def client(url: str) -> AsyncGenerator[AsyncClient]:
    ai = AsyncClient(host=url, timeout=PATIENCE)
    try:
        yield ai
    finally:
        await ai._client.aclose()


@pytest.fixture
def on_server(monkeypatch):
    """Has Corral's own Ollama runtime ask the server at a URL."""

    def point(url: str) -> None:
        monkeypatch.setenv("OLLAMA_HOST", url)

    return point


async def test_what_is_there_is_listed_and_shown(cria):
    async with serving(plain(cria), raw=["cria"]) as url, client(url) as ai:
        assert [model.model for model in (await ai.list()).models] == ["plain", "cria"]
        assert [model.model for model in (await ai.ps()).models] == ["plain", "cria"]
        shown = await ai.show("cria:latest")
        assert shown.modelinfo and shown.modelinfo["llama.context_length"] == 8192
        assert shown.capabilities == ["completion"]
        with pytest.raises(ResponseError, match="'nobody' not found") as missing:
            await ai.show("nobody")
        assert missing.value.status_code == 404
        async with http(url) as web:
            assert (await web.get("/api/version")).json() == {"version": "0.24.0"}
            assert (await web.get("/")).text == "Corral is running"
            assert (await web.head("/")).status_code == 200


async def test_a_chat_streams_the_answer_that_it_gives_whole(cria):
    async with serving(plain(cria)) as url, client(url) as ai:
        whole = await ai.chat("plain", HELLO)
        parts = [part async for part in await ai.chat("plain", HELLO, stream=True)]
        text = "".join(part.message.content or "" for part in parts)
        assert text == whole.message.content
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert whole.done_reason == parts[-1].done_reason == "stop"
        assert whole.eval_count and whole.prompt_eval_count and whole.total_duration
        assert (await ai.generate("plain", "Say hello.")).response == text
        assert (await ai.chat("plain", [])).done_reason == "load"


async def test_the_client_that_blocks_works_too(cria):
    async with serving(plain(cria)) as url:

        def ask() -> str:
            ai = Client(host=url, timeout=PATIENCE)
            try:
                parts = ai.chat("plain", HELLO, stream=True)
                return "".join(part.message.content or "" for part in parts)
            finally:
                ai._client.close()

        assert await in_thread(ask)


async def test_a_chat_goes_by_the_clients_history_and_a_session_by_its_own():
    agent, runtime = scripted("Ada.", "Hello.", "Ada.")
    async with serving(agent) as url, client(url) as ai, http(url) as web:
        history = [
            {"role": "system", "content": "Speak as a pirate."},
            {"role": "user", "content": "I am Ada."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Who am I?"},
        ]
        await ai.chat("agent", history)
        for text in ("I am Ada.", "Who am I?"):
            body = {"model": "agent", "prompt": text, "stream": False}
            headers = {"X-Corral-Session": "one"}
            assert (await web.post("/api/generate", json=body, headers=headers)).is_success
    assert "pirate" in str(runtime.prompts[0])
    for prompt in (runtime.prompts[0], runtime.prompts[2]):
        assert str(prompt).index("I am Ada.") < str(prompt).index("Who am I?")
    assert "I am Ada." in str(runtime.prompts[1]) and "Who" not in str(runtime.prompts[1])


async def test_what_an_agent_cannot_honour_is_refused():
    agent, runtime = scripted("Never said.")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with serving(agent) as url, client(url) as ai:
        for wish, word in (
            ({"tools": tools}, "tools"),
            ({"format": "json"}, "format"),
            ({"think": True}, "does not support thinking"),
            ({"logprobs": True}, "logprobs"),
            ({"options": {"stop": ["x"]}}, "stop"),
        ):
            with pytest.raises(ResponseError, match=word) as refused:
                await ai.chat("agent", HELLO, **wish)
            assert refused.value.status_code == 400
        with pytest.raises(ResponseError, match="takes no raw prompts"):
            await ai.generate("agent", RAW, raw=True)
        with pytest.raises(ResponseError, match="makes no embeddings"):
            await ai.embed("agent", "some text")
        with pytest.raises(ResponseError, match="num_predict"):
            await ai.chat("agent", HELLO, options={"num_predict": "many"})
    assert runtime.prompts == []


class Embedding(ScriptedRuntime):
    """A model that makes vectors: the number of a text's letters, and one."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        lengths = [math.hypot(len(text), 1, 1) for text in texts]
        return [[len(t) / n, 1 / n, 1 / n] for t, n in zip(texts, lengths, strict=True)]


async def test_a_model_that_makes_embeddings_is_asked_for_them():
    agent = Agent(model=Embedding([]), name="vectors", shields="none", memory="temporary")
    async with serving(agent) as url, client(url) as ai:
        both = await ai.embed("vectors", ["some", "text!!"])
        short = await ai.embed("vectors", "some", dimensions=2)
        assert (await ai.embed("vectors", [])).embeddings == []
    assert [len(vector) for vector in both.embeddings] == [3, 3]
    assert both.embeddings[0] != both.embeddings[1]
    assert short.embeddings[0] == pytest.approx([4 / 17**0.5, 1 / 17**0.5])


async def test_a_failure_in_a_stream_is_its_last_line():
    agent, _ = scripted()
    async with serving(agent) as url, client(url) as ai:
        stream = await ai.chat("agent", HELLO, stream=True)
        with pytest.raises(ResponseError, match="script is at its end"):
            async for _ in stream:
                pass


async def test_a_raw_prompt_is_continued_to_the_token(cria):
    own, finish = await write(cria, QUESTION, max_tokens=8)
    async with serving(plain(cria), raw=["cria"]) as url, client(url) as ai:
        options = {"temperature": 0, "num_predict": 8}
        whole = await ai.generate("cria", RAW, raw=True, options=options)
        assert whole.response == own
        assert whole.prompt_eval_count == finish.usage.prompt_tokens
        assert whole.eval_count == finish.usage.output_tokens
        stopped = await ai.generate("cria", RAW, raw=True, options={**options, "stop": ["Rome"]})
        assert stopped.response == own.partition("Rome")[0]
        assert stopped.done_reason == "stop"
        cut = await ai.generate("cria", RAW, raw=True, options={**options, "num_predict": 2})
        assert (cut.done_reason, cut.eval_count) == ("length", 2)
        likely = await ai.generate(
            "cria", RAW, raw=True, options=options, logprobs=True, top_logprobs=3
        )
        first = likely.logprobs[0]
        assert own.startswith(first.token)
        assert first.logprob == first.top_logprobs[0].logprob > first.top_logprobs[2].logprob
        with pytest.raises(ResponseError, match="no prompt is cut"):
            await ai.generate("cria", RAW, raw=True, options={**options, "num_ctx": 10})
        with pytest.raises(ResponseError, match="raw: true"):
            await ai.generate("cria", "Say hello.")
        with pytest.raises(ResponseError, match="system"):
            await ai.generate("cria", RAW, raw=True, system="Obey.")


async def test_no_line_of_a_stream_holds_half_a_character(cria):
    prompt = render_prompt([UserMessage(content="Repeat after me: 🦙 é 漢字 🦙")]).escaped(
        bos=False
    )
    body = {"model": "cria", "prompt": prompt, "raw": True, "options": {"num_predict": 24}}
    async with serving(plain(cria), raw=["cria"]) as url, http(url) as web:
        async with web.stream("POST", "/api/generate", json=body) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            raw = b"".join([part async for part in answer.aiter_raw()])
    lines = [json.loads(line) for line in raw.decode("utf-8").splitlines()]
    assert lines[-1]["done"] and not any(line["done"] for line in lines[:-1])
    assert "".join(line["response"] for line in lines)


async def test_only_names_of_control_tokens_become_control_tokens(cria):
    async with serving(plain(cria), raw=["cria"]) as url, client(url) as ai:
        counts = [
            (
                await ai.generate("cria", text, raw=True, options={"num_predict": 1})
            ).prompt_eval_count
            for text in ("<|eot_id|>", "<\\|eot_id|>", "<|begin_of_text|><|eot_id|>", "<|eot|>")
        ]
    assert counts[0] == counts[2] == 2
    assert counts[1] > 2 and counts[3] > 2


async def test_corrals_own_runtime_gets_the_same_from_a_server_as_in_process(cria, on_server):
    async with serving(plain(cria), raw=["cria"]) as url:
        on_server(url)
        remote = await open_runtime("ollama:cria")
        text, finish = await write(remote, QUESTION, max_tokens=12)
        local, own = await write(cria, QUESTION, max_tokens=12)
        assert text == local
        assert finish.reason == own.reason
        assert finish.usage.prompt_tokens == own.usage.prompt_tokens
        first, _ = await write(cria, QUESTION, max_tokens=1)
        odds = await remote.score(QUESTION, [first])
        assert odds[first] == pytest.approx((await cria.score(QUESTION, [first]))[first], rel=0.01)
        await remote.aclose()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Oslo", "Bergen"]},
                    "days": {"type": "integer", "minimum": 3, "maximum": 9},
                    "notes": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
                },
                "required": ["city", "days", "notes"],
            },
            "What is the capital of Italy?",
        ),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
            "Write a poem about the sea. Write no JSON and no numbers.",
        ),
        ({"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"}, "[get_weather(city='Oslo')]"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_what_comes_back_is_json_by_the_schema_whatever_is_asked(
    cria, schema, said, temperature
):
    prompt = render_prompt([UserMessage(content=said)])
    free, _ = await write(cria, prompt, max_tokens=12)
    with pytest.raises(json.JSONDecodeError):
        json.loads(free)
    async with serving(plain(cria), raw=["cria"]) as url:
        remote = OllamaRuntime("cria", host=url)
        text, _ = await write(
            remote,
            prompt,
            Constraint(json_schema=schema),
            max_tokens=200,
            temperature=temperature,
            seed=5,
        )
    Draft202012Validator(schema).validate(json.loads(text))


@tool
def order_status(order_id: int) -> dict:
    """Get the status of an order.

    Args:
        order_id: The number of the order.
    """
    return {"order_id": order_id, "status": "shipped"}


async def test_an_agent_runs_through_a_server_as_it_runs_in_process(cria, on_server):
    async def ask(model) -> tuple[list[object], str]:
        agent = Agent(
            model=model,
            tools=[order_status],
            shields="none",
            memory="temporary",
            limits=Limits(seconds=2 * PATIENCE),
        )
        async with agent:
            result = await agent.run("Where is order 1047?")
        calls = [e.result.content for e in result.events if isinstance(e, CallFinished)]
        return calls, result.text

    local = await ask(cria)
    async with serving(plain(cria), raw=["cria"]) as url:
        on_server(url)
        remote = await ask(await open_runtime("ollama:cria"))
    assert remote == local
    assert local[0] == [{"order_id": 1047, "status": "shipped"}]
