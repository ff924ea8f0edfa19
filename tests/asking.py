"""A runtime asked for one answer, whole."""

from __future__ import annotations

import threading
from contextlib import aclosing
from typing import Any

import anyio.to_thread

from corral.messages import SystemMessage, UserMessage
from corral.model_runtime import Finish, Runtime, Sampling, render_prompt
from corral.model_runtime.prompt import Prompt, Special, Text
from corral.model_runtime.runtime import Constraint

QUESTION = render_prompt(
    [
        SystemMessage(text="You are a helpful assistant."),
        UserMessage(content="What is the capital of Italy?"),
    ]
)


async def write(
    runtime: Runtime, prompt: Prompt, constraint: Constraint | None = None, **sampling: Any
) -> tuple[str, Finish]:
    """The text of an answer, and how it ended; `sampling` is as `Sampling` takes it."""
    text = ""
    generation = runtime.generate(prompt, sampling=Sampling(**sampling), constraint=constraint)
    async with aclosing(generation) as output:
        async for piece in output:
            if isinstance(piece, Finish):
                return text, piece
            text += piece.text
    raise AssertionError("the generation had no end")


async def leave_at_the_first_piece(runtime: Runtime, closed: threading.Event) -> None:
    """Begin a long answer and stop reading it; `closed` is set when the server sees that."""
    story = Prompt((Special("<|begin_of_text|>"), Text("Once upon a time there was a llama that")))
    generation = runtime.generate(story, sampling=Sampling(max_tokens=3000))
    async with aclosing(generation) as output:
        assert not isinstance(await anext(output), Finish)
    with anyio.fail_after(60):
        await anyio.to_thread.run_sync(closed.wait, 59)
    assert closed.is_set()
