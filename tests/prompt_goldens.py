"""Conversations whose prompts are known byte for byte, from Meta's documents and elsewhere."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence

from corral.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserMessage,
)
from corral.model_runtime import render_prompt
from corral.model_runtime.formats.guard import CATEGORIES, render_guard


def function(name: str, description: str, required: list[str], **properties: dict) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": required},
    )


WEATHER = function(
    "get_weather",
    "Get weather info for places",
    ["city"],
    city={"type": "string", "description": "The name of the city to get the weather for"},
    metric={
        "type": "string",
        "description": "The metric for weather. Options are: celsius, fahrenheit",
        "default": "celsius",
    },
)
USER_INFO = function(
    "get_user_info",
    "Retrieve details for a specific user by their unique identifier. Note that the provided "
    "function is in Python 3 syntax.",
    ["user_id"],
    user_id={
        "type": "integer",
        "description": "The unique identifier of the user. It is used to fetch the specific user "
        "details from the database.",
    },
    special={
        "type": "string",
        "description": "Any special information or parameters that need to be considered while "
        "fetching user details.",
        "default": "none",
    },
)


def songs(number_type: str, genre_type: str) -> dict[str, dict]:
    return {
        "n": {"type": number_type, "description": "The number of songs to return"},
        "genre": {"type": genre_type, "description": "The genre of the songs to return"},
    }


SONGS = "Returns the trending songs on a Music site"
SONGS_JSON = function("trending_songs", SONGS, ["n"], **songs("object", "object"))
SONGS_TAGS = function(
    "trending_songs", SONGS, ["n"], **dict(reversed(songs("integer", "string").items()))
)
PLAIN_WEATHER = function("get_weather", "Get weather", ["city"], city={"type": "string"})
BRAVE = ToolSpec(name="brave_search", description="Searches the web.", kind="builtin")
WOLFRAM = ToolSpec(name="wolfram_alpha", description="Computes.", kind="builtin")
CODE = ToolSpec(name="code_interpreter", description="Runs Python.", kind="code_interpreter")
IMAGE = ImagePart(media_type="image/png", data=b"aGk=")

PI = {
    "queryresult": {
        "success": True,
        "inputstring": "100th decimal of pi",
        "pods": [
            {
                "title": "Input interpretation",
                "subpods": [{"title": "", "plaintext": "100th digit | π"}],
            },
            {
                "title": "Nearby digits",
                "subpods": [
                    {
                        "title": "",
                        "plaintext": "...86208998628034825342117067982148086513282306647093...",
                    }
                ],
            },
            {"title": "Result", "primary": True, "subpods": [{"title": "", "plaintext": "7"}]},
        ],
    }
}


def user(text: str) -> UserMessage:
    return UserMessage(content=text)


def system(text: str) -> SystemMessage:
    return SystemMessage(text=text)


def seen(text: str) -> UserMessage:
    return UserMessage(content=(IMAGE, TextPart(text=text)))


def called(name: str, **arguments: str) -> AssistantMessage:
    return AssistantMessage(calls=(ToolCall(id="1", name=name, arguments=arguments),))


def result(name: str, content: str) -> ToolResult:
    return ToolResult(call_id="1", name=name, content=content)


def render(
    format: str,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    date: tuple[int, int, int] | None = None,
) -> str:
    day = datetime.date(*date) if date else None
    return str(render_prompt(messages, tools=tools, format=format, date=day))


HELPFUL = system("You are a helpful assistant.")
GOLD = user("Search the web for the latest price of 1oz gold?")
LATEST = user("Use tools to get latest trending songs")
SKY = "The color of the sky is blue but sometimes it can also be"
ID_7890 = user(
    "Can you retrieve the details for the user with the ID 7890, who has black as their special "
    "request?"
)
DECIMAL = "100th decimal of pi"


def llama31_document() -> list[str]:
    """The prompts of Meta's page on Llama 3.1, in its order; the page on 3.3 has them too."""
    day = (2024, 9, 21)
    json_format = "llama3.1-json"
    return [
        render("completion", [user("Color of sky is blue but sometimes can also be")]),
        render(
            json_format,
            [
                system("You are a helpful assistant"),
                user("Answer who are you in the form of jeopardy?"),
            ],
        ),
        render(json_format, [HELPFUL, GOLD], [BRAVE, WOLFRAM], day),
        render(
            json_format,
            [
                user(
                    "Write code to check if number is prime, use that to see if the number 7 is "
                    "prime"
                )
            ],
            [CODE],
        ),
        render(
            json_format,
            [
                user("What is the 100th decimal of pi?"),
                called("wolfram_alpha", query=DECIMAL),
                result("wolfram_alpha", "\n" + json.dumps(PI, indent=4, ensure_ascii=False) + "\n"),
            ],
            [BRAVE, WOLFRAM],
        ),
        render(json_format, [HELPFUL, LATEST], [SONGS_JSON], day),
        render("function-tag", [HELPFUL, LATEST], [SONGS_TAGS], day),
    ]


def llama32_text_document() -> list[str]:
    return [
        render("llama3.2", [system("You are a helpful assistant"), user("Who are you?")]),
        render("llama3.2", [user("What is the weather in SF and Seattle?")], [WEATHER]),
        render("llama3.2-user", [ID_7890], [USER_INFO]),
        render(
            "llama3.2",
            [user("Write code to check if number is prime. Use it to verify if number 7 is prime")],
            [CODE],
            (2024, 9, 24),
        ),
        render(
            "llama3.2-e2e",
            [
                user("What is the weather in SF?"),
                called("get_weather", city="San Francisco", metric="celsius"),
                result("get_weather", "25 C"),
            ],
            [WEATHER],
        ),
        render("completion", [user(SKY)]),
    ]


def llama32_vision_document() -> list[str]:
    return [
        render("vision", [system("You are a helpful assistant"), user("Who are you?")]),
        render("vision", [seen("Describe this image in two sentences")]),
        render("vision", [HELPFUL, GOLD], [BRAVE, WOLFRAM], (2024, 9, 23)),
        render("completion", [user(SKY)]),
        render("completion", [seen("If I had to write a haiku for this one")]),
    ]


def llama33_document() -> list[str]:
    same = llama31_document()
    return [
        *same[:2],
        render("llama3.2", [user("What is the weather in SF and Seattle?")], [WEATHER]),
        render("llama3.3-user", [ID_7890], [USER_INFO]),
        *same[2:],
    ]


def hugging_face() -> list[str | None]:
    """The templates' renderings; None where a template is broken and Corral does otherwise."""
    day = (2024, 9, 25)
    asked, you = user("Weather in SF?"), system("You are X.")
    looked = [
        asked,
        called("get_weather", city="SF"),
        result("get_weather", "25 C"),
    ]
    builtin = [
        user("x"),
        called("brave_search", query="gold"),
        result("brave_search", "{}"),
    ]
    question = [("User", "Q")]
    answer = [("User", "Q"), ("Agent", "A")]
    without = {code: name for code, name in CATEGORIES.items() if code not in ("S6", "S14")}

    def guard(conversation: list, **options: object) -> str:
        return str(render_guard(conversation, lead="", **options))

    return [
        render("hf-json", [user("Hi")], (), day),
        render("hf-json", [you, user("Hi")], (), day),
        render("hf-json", [asked], [PLAIN_WEATHER], day),
        render("hf-json-system", [you, asked], [PLAIN_WEATHER], day),
        render("hf-json", looked, [PLAIN_WEATHER], day),
        None,  # two calls in one message, which the template refuses
        render("hf-json-3.1", builtin, [BRAVE, WOLFRAM]),
        render("hf-vision", [seen("Describe")], (), day),
        render("hf-vision", [system("S"), seen("Describe")], (), day),
        guard([("User", "How do I make a bomb?")]),
        guard(answer),
        None,  # plain strings, of which the template makes an empty conversation
        guard(question, categories=without),
        guard(question, variant="11b-vision", image=IMAGE),
        guard(question, variant="8b"),
        guard(answer, variant="8b"),
    ]
