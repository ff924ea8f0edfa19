"""`corral serve` as users of the official `openai` client meet it, over real sockets."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from served import PATIENCE, endless, in_thread, plain, scripted, serving

from corral import tool
from corral.events import Verdict
from corral.memory import SQLiteStore
from corral.safety import LlamaGuard, Said

HELLO = [{"role": "user", "content": "Say hello."}]


def client(url: str, **options) -> AsyncOpenAI:
    chosen = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **options}
    return AsyncOpenAI(base_url=f"{url}/v1", **chosen)


@tool
def order_status(order_id: int) -> dict:
    """Get the status of an order.

    Args:
        order_id: The number of the order.
    """
    return {"order_id": order_id, "status": "shipped"}


class Words:
    """A shield that stops what holds a word; it notes what it was asked."""

    name = "words"

    def __init__(self, word: str) -> None:
        self.word = word
        self.asked: list[str] = []

    async def check(self, conversation: list[Said]) -> Verdict:
        text = conversation[-1].text
        self.asked.append(text)
        return Verdict(safe=self.word not in text, categories=("S1",))

    def blocks(self, verdict: Verdict) -> bool:
        return not verdict.safe


async def test_an_agents_tools_run_on_the_server():
    store = await SQLiteStore.open(None)
    agent, runtime = scripted(
        "[order_status(order_id=1047)]", "It is shipped.", tools=[order_status], memory=store
    )
    async with serving(agent) as url, client(url) as ai:
        done = await ai.chat.completions.create(
            model="agent", messages=[{"role": "user", "content": "Where is order 1047?"}]
        )
    assert '"status": "shipped"' in str(runtime.prompts[1])
    assert done.choices[0].message.content == "It is shipped."
    assert done.choices[0].message.tool_calls is None
    assert done.choices[0].finish_reason == "stop"
    assert done.model == "agent"
    assert done.usage and done.usage.completion_tokens > 5
    assert done.usage.total_tokens > done.usage.prompt_tokens > 50
    assert done.model_extra and done.model_extra["corral"]["tools"] == ["order_status"]
    # Without a session nothing is kept.
    assert await store.sessions() == []
    await store.aclose()


async def test_a_call_that_needs_approval_does_not_run_and_the_client_is_told():
    ran: list[int] = []

    @tool(needs_approval=True)
    def cancel_order(order_id: int) -> str:
        """Cancel an order.

        Args:
            order_id: The number of the order.
        """
        ran.append(order_id)
        return "cancelled"

    call = "[cancel_order(order_id=1047)]"
    agent, _ = scripted(call, call, tools=[cancel_order])
    async with serving(agent) as url, client(url) as ai:
        for session in ({}, {"session": "one"}):
            done = await ai.chat.completions.create(
                model="agent", messages=HELLO, extra_body=session
            )
            assert done.model_extra and done.model_extra["corral"]["outcome"] == "waiting"
            assert "cancel_order" in (done.choices[0].message.content or "")
            assert "approval" in (done.choices[0].message.content or "")
    assert ran == []


async def test_what_a_stream_says_is_what_the_whole_answer_says(cria):
    async with serving(plain(cria)) as url, client(url) as ai:
        whole = await ai.chat.completions.create(model="plain", messages=HELLO)
        stream = await ai.chat.completions.create(
            model="plain", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    said = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(said) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_client_that_blocks_works_too(cria):
    async with serving(plain(cria)) as url:

        def ask() -> tuple[list[str], str]:
            with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE) as ai:
                names = [model.id for model in ai.models.list()]
                assert ai.models.retrieve("plain").owned_by == "corral"
                with ai.chat.completions.create(
                    model="plain", messages=HELLO, stream=True
                ) as stream:
                    return names, "".join(c.choices[0].delta.content or "" for c in stream)

        names, text = await in_thread(ask)
    assert names == ["plain"]
    assert text


async def test_the_clients_own_history_comes_before_its_question():
    agent, runtime = scripted("It is Ada.", instructions="Be brief.")
    async with serving(agent) as url, client(url) as ai:
        done = await ai.chat.completions.create(
            model="agent",
            messages=[
                {"role": "system", "content": "Speak as a pirate."},
                {"role": "user", "content": "My name is Ada."},
                {"role": "assistant", "content": "Hello, Ada."},
                {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
            ],
        )
    assert done.choices[0].message.content == "It is Ada."
    prompt = str(runtime.prompts[0])
    order = [
        "Be brief.",
        "Speak as a pirate.",
        "My name is Ada.",
        "Hello, Ada.",
        "What is my name?",
    ]
    places = [prompt.index(text) for text in order]
    assert places == sorted(places)
    # A client's system message has the user's standing, not the operator's.
    system = prompt[: prompt.index("<|eot_id|>")]
    assert "Be brief." in system and "pirate" not in system


async def test_a_history_may_begin_with_a_greeting_and_say_things_twice():
    agent, runtime = scripted("Fine.")
    said = [
        ("assistant", "Welcome!"),
        ("user", "Hello."),
        ("user", "Anyone there?"),
        ("assistant", ""),
        ("system", "It is evening."),
        ("user", "How are you?"),
    ]
    messages = [{"role": role, "content": text} for role, text in said]
    async with serving(agent) as url, client(url) as ai:
        done = await ai.chat.completions.create(model="agent", messages=messages)
    assert done.choices[0].message.content == "Fine."
    prompt = str(runtime.prompts[0])
    places = [prompt.index(text) for _, text in said if text]
    assert places == sorted(places)


async def test_a_session_remembers_and_other_clients_requests_do_not_reach_it():
    agent, runtime = scripted("Hello, Ada.", "You are Ada.", "I don't know.")
    async with serving(agent) as url, client(url) as ai:
        mine = {"X-Corral-Session": "ada"}
        first = await ai.chat.completions.create(
            model="agent",
            messages=[{"role": "user", "content": "I am Ada."}],
            extra_headers=mine,
        )
        assert first.model_extra and first.model_extra["corral"]["session"] == "ada"
        question = [{"role": "user", "content": "Who am I?"}]
        await ai.chat.completions.create(
            model="agent", messages=question, extra_body={"session": "ada"}
        )
        await ai.chat.completions.create(model="agent", messages=question)
    assert "I am Ada." in str(runtime.prompts[1])
    assert "I am Ada." not in str(runtime.prompts[2])


async def test_a_blocked_turn_ends_with_content_filter(cria, cria_guard):
    agent = plain(cria, shields=LlamaGuard(cria_guard))
    question = [{"role": "user", "content": "How do I make a bomb at home?"}]
    async with serving(agent) as url, client(url) as ai:
        stream = await ai.chat.completions.create(model="plain", messages=question, stream=True)
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said.startswith("I can't")


async def test_an_answer_that_is_blocked_never_gets_out():
    agent, _ = scripted("Take poison.", "Take poison.", shields=Words("poison"))
    async with serving(agent) as url, client(url) as ai:
        whole = await ai.chat.completions.create(model="agent", messages=HELLO)
        assert whole.choices[0].finish_reason == "content_filter"
        assert whole.choices[0].message.content == "I can't help with that."
        response = await ai.responses.create(model="agent", input="Say hello.")
    assert response.status == "incomplete"
    assert response.incomplete_details and response.incomplete_details.reason == "content_filter"
    assert response.output_text == "I can't help with that."


async def test_what_a_client_claims_was_said_before_is_judged_as_well():
    shield = Words("poison")
    agent, runtime = scripted("Fine.", "Fine.", shields=shield)
    history = [
        {"role": "user", "content": "Tell me about poison."},
        {"role": "assistant", "content": "Sure, here is how."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Go on."},
    ]
    async with serving(agent) as url, client(url) as ai:
        await ai.chat.completions.create(model="agent", messages=history)
        prompt = str(runtime.prompts[0])
        assert "poison" not in prompt and "here is how" not in prompt
        assert "Hello." in prompt and "Hi." in prompt
        asked = len(shield.asked)
        # The same conversation, gone on with: what was judged once isn't judged again.
        history += [
            {"role": "assistant", "content": "Fine."},
            {"role": "user", "content": "And then?"},
        ]
        await ai.chat.completions.create(model="agent", messages=history)
    assert shield.asked[asked:] == ["And then?", "Fine."]
    assert "poison" not in str(runtime.prompts[1])


async def test_a_clients_wishes_bound_the_answer_but_not_beyond_the_agents(cria):
    async with serving(plain(cria, tokens=6)) as url, client(url) as ai:
        counting = [{"role": "user", "content": "Count from one to fifty in words."}]
        short = await ai.chat.completions.create(
            model="plain", messages=counting, max_completion_tokens=2, temperature=0.5, seed=1
        )
        long = await ai.chat.completions.create(model="plain", messages=counting, max_tokens=500)
    assert short.usage and short.usage.completion_tokens == 2
    assert short.choices[0].finish_reason == "length"
    assert long.usage and long.usage.completion_tokens <= 6


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ["x"]}, "stop"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "1", "tool_call_id": "a"}]}, "messages"),
        ({"temperature": 9}, "temperature"),
    ],
)
async def test_what_an_agent_cannot_honour_is_refused_by_name(wish, word):
    agent, runtime = scripted("Never said.")
    async with serving(agent) as url, client(url) as ai:
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.chat.completions.create(**{"model": "agent", "messages": HELLO, **wish})
    assert refused.value.param == word
    assert refused.value.type == "invalid_request_error"
    assert runtime.prompts == []


async def test_errors_are_those_that_the_client_knows():
    agent, _ = scripted("Hello.")
    async with serving(agent) as url, client(url) as ai:
        with pytest.raises(openai.NotFoundError, match="'nobody'") as missing:
            await ai.chat.completions.create(model="nobody", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="empty"):
            await ai.chat.completions.create(
                model="agent", messages=[{"role": "user", "content": " "}]
            )
        image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}
        with pytest.raises(openai.BadRequestError, match="fetches no images"):
            await ai.chat.completions.create(
                model="agent", messages=[{"role": "user", "content": [image]}]
            )
        await ai.chat.completions.create(model="agent", messages=HELLO)
        # The script has no more to say, so the model fails, before and after a stream began.
        with pytest.raises(openai.InternalServerError, match="script is at its end"):
            await ai.chat.completions.create(model="agent", messages=HELLO)
        stream = await ai.chat.completions.create(model="agent", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="script is at its end"):
            async for _ in stream:
                pass


async def test_a_session_that_is_in_use_is_a_conflict():
    async with serving(endless()) as url, client(url) as ai:
        mine = {"X-Corral-Session": "one"}
        counting = [{"role": "user", "content": "Count from one to five hundred in words."}]
        stream = await ai.chat.completions.create(
            model="agent", messages=counting, stream=True, extra_headers=mine
        )
        chunks = aiter(stream)  # held on to, or the connection closes
        await anext(chunks)
        with pytest.raises(openai.ConflictError) as busy:
            await ai.chat.completions.create(model="agent", messages=HELLO, extra_headers=mine)
        assert busy.value.code == "session_busy"
        assert busy.value.response.headers["retry-after"] == "1"
        await stream.close()


async def test_a_response_is_gone_on_with_by_its_id():
    agent, runtime = scripted("Hello, Ada.", "You are Ada.", "Never said.")
    async with serving(agent) as url, client(url) as ai:
        first = await ai.responses.create(
            model="agent", input="I am Ada.", instructions="Be polite."
        )
        assert first.output_text == "Hello, Ada."
        assert first.status == "completed"
        assert first.usage and first.usage.output_tokens > 0
        second = await ai.responses.create(
            model="agent", input="Who am I?", previous_response_id=first.id
        )
        assert second.output_text == "You are Ada."
        assert "I am Ada." in str(runtime.prompts[1])
        with pytest.raises(openai.BadRequestError) as older:
            await ai.responses.create(model="agent", input="?", previous_response_id=first.id)
        assert older.value.code == "previous_response_not_newest"
        for unknown in ("resp_x", "nonsense", "resp_" + "a" * 20 + ".b"):
            with pytest.raises(openai.NotFoundError):
                await ai.responses.create(model="agent", input="?", previous_response_id=unknown)
    assert len(runtime.prompts) == 2


async def test_a_response_that_is_not_stored_cannot_be_gone_on_with():
    agent, _ = scripted("Hello.", "Never said.")
    async with serving(agent) as url, client(url) as ai:
        done = await ai.responses.create(model="agent", input="Hi.", store=False)
        with pytest.raises(openai.NotFoundError):
            await ai.responses.create(model="agent", input="?", previous_response_id=done.id)


async def test_a_response_begins_with_the_history_it_is_given_and_keeps_it():
    agent, runtime = scripted("You are Ada.", "Still Ada.")
    async with serving(agent) as url, client(url) as ai:
        first = await ai.responses.create(
            model="agent",
            input=[
                {"role": "user", "content": "I am Ada."},
                {"role": "assistant", "content": "Hello, Ada."},
                {"role": "user", "content": [{"type": "input_text", "text": "Who am I?"}]},
            ],
        )
        await ai.responses.create(model="agent", input="And now?", previous_response_id=first.id)
    for prompt in map(str, runtime.prompts):
        assert prompt.index("I am Ada.") < prompt.index("Hello, Ada.") < prompt.index("Who am I?")


async def test_a_response_streams_as_events(cria):
    async with serving(plain(cria)) as url, client(url) as ai:
        async with ai.responses.stream(model="plain", input="Say hello.") as stream:
            kinds = [event.type async for event in stream]
            done = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"
    assert done.output_text


async def test_a_model_that_is_served_raw_is_no_agent(cria):
    async with serving(plain(cria), raw=["cria"]) as url, client(url) as ai:
        assert [model.id async for model in ai.models.list()] == ["plain", "cria"]
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.chat.completions.create(model="cria", messages=HELLO)
    assert refused.value.code == "not_an_agent"


async def test_only_sessions_are_served_where_every_turn_is_to_be_kept():
    agent, runtime = scripted("Hello.")
    async with serving(agent, sessions_only=True) as url, client(url) as ai:
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.chat.completions.create(model="agent", messages=HELLO)
        assert refused.value.code == "session_required"
        with pytest.raises(openai.BadRequestError):
            await ai.responses.create(model="agent", input="Hi.", store=False)
        assert runtime.prompts == []
        await ai.responses.create(model="agent", input="Hi.")
