"""A loopback server in the shapes of vLLM, SGLang, llama.cpp or a hosted chat, cria behind it.

The shapes are those of the servers' documentation and source; the text in them is what the model
writes. It is no proof that those servers behave so, only that Corral speaks to them as documented.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from ollama_server import Served, listen

from corral.messages import ToolSpec
from corral.model_runtime import Finish, Sampling
from corral.model_runtime.parser import parse_output
from corral.model_runtime.prompt import Prompt, Special, Text
from corral.model_runtime.transformers_runtime import TransformersRuntime

_OWNERS = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp", "hosted": "someone"}


class Completions(Served):
    """What was asked, and how the server is to behave. `kind` is a key of `_OWNERS`."""

    def __init__(self, models: Mapping[str, TransformersRuntime], *, kind: str) -> None:
        super().__init__(models)
        self.kind = kind
        self.keys: list[str | None] = []
        self.vllm_version = "0.33.0"
        self.headers: dict[str, str] = {}
        self.refused: list[dict] = []
        self.reports = 1.0
        """The share of a prompt's tokens that the server says it has read."""

    def from_ids(self, ids: list[int]) -> Prompt:
        model = next(iter(self.models.values()))
        segments: list[Special | Text] = []
        run: list[int] = []

        def end_run() -> None:
            if run:
                data = b"".join(map(model.tokenizer.token_bytes, run))
                segments.append(Text(data.decode()))
                run.clear()

        for each in ids:
            name = model.tokenizer.special_name(each)
            if name is None:
                run.append(each)
                continue
            end_run()
            segments.append(Special(name))
        end_run()
        text = "".join(s.token if isinstance(s, Special) else s.text for s in segments[1:])
        return self.prompt(text)

    def read(self, given: str | list[int]) -> Prompt:
        if isinstance(given, list):
            return self.from_ids(given)
        return self.prompt(given.removeprefix("<|begin_of_text|>"))

    def pieces(self, prompt: Prompt, wire: dict, limit: int) -> Iterator[Any]:
        model = next(iter(self.models.values()))
        sampling = Sampling(temperature=wire["temperature"], max_tokens=limit)
        pieces = model.generate(prompt, sampling=sampling)

        async def more() -> Any:
            return await anext(pieces, None)

        try:
            while (piece := self.run(more)) is not None:
                yield piece
        finally:
            self.run(pieces.aclose)

    def count(self, prompt: Prompt) -> int:
        model = next(iter(self.models.values()))
        return int(self.run(model.count, prompt) * self.reports)

    def completions(self, request: dict) -> Iterator[dict | str]:
        prompt = self.read(request["prompt"])
        first = True
        for piece in self.pieces(prompt, request, request["max_tokens"]):
            if isinstance(piece, Finish):
                stop = "length" if piece.reason == "max_tokens" else "stop"
                matched = 4 if piece.reason == "end_of_message" else None
                yield _choice(text="", finish_reason=stop, stop_reason=matched)
                usage = {
                    "prompt_tokens": self.count(prompt),
                    "completion_tokens": piece.usage.output_tokens,
                }
                yield {"choices": [], "usage": usage}
                continue
            choice = _choice(text=piece.text, finish_reason=None)
            if request.get("logprobs") and first:
                found = self._logprobs(next(iter(self.models.values())), prompt, piece.text)
                tops = {top["token"]: top["logprob"] for top in found["top_logprobs"]}
                choice["choices"][0]["logprobs"] = {"top_logprobs": [tops]}
            first = False
            yield choice
        yield "[DONE]"

    def generate_sglang(self, request: dict) -> Iterator[dict | str]:
        prompt = self.read(request.get("input_ids") or request["text"])
        settings = request["sampling_params"]
        text, count = "", self.count(prompt)
        for piece in self.pieces(prompt, settings, settings["max_new_tokens"]):
            about: dict = {"prompt_tokens": count, "finish_reason": None}
            if isinstance(piece, Finish):
                length = piece.reason == "max_tokens"
                about["finish_reason"] = {"type": "length"} if length else {"type": "stop"}
                about["completion_tokens"] = piece.usage.output_tokens
            else:
                text += piece.text
            if request.get("return_logprob"):
                found = self._logprobs(next(iter(self.models.values())), prompt, text)
                about["output_top_logprobs"] = [
                    [[top["logprob"], 0, top["token"]] for top in found["top_logprobs"]]
                ]
            yield {"text": text, "meta_info": about}
        yield "[DONE]"

    def chat_hosted(self, request: dict) -> Iterator[dict | str]:
        """Render the conversation and read its calls, as hosts do."""
        tools = [ToolSpec(**tool["function"]) for tool in request.get("tools", [])]
        messages = []
        for each in request["messages"]:
            calls = [
                {
                    "id": call["id"],
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.loads(call["function"]["arguments"]),
                    },
                }
                for call in each.get("tool_calls", [])
            ]
            messages.append(self.message({"tool_name": "f", **each, "tool_calls": calls}))
        prompt = self.render(messages, tools)
        text = ""
        for piece in self.pieces(prompt, request, request["max_tokens"]):
            if not isinstance(piece, Finish):
                text += piece.text
        said = parse_output(text, tools=tools)
        yield _choice(delta={"role": "assistant", "content": said.text}, finish_reason=None)
        for i, call in enumerate(said.calls):
            arguments = json.dumps(call.arguments)
            for part in (
                {"id": call.id, "function": {"name": call.name, "arguments": ""}},
                {"function": {"arguments": arguments[:5]}},
                {"function": {"arguments": arguments[5:]}},
            ):
                delta = {"tool_calls": [{"index": i, **part}]}
                yield _choice(delta=delta, finish_reason=None)
        yield _choice(delta={}, finish_reason="tool_calls" if said.calls else "stop")
        yield {"choices": [], "usage": {"prompt_tokens": self.count(prompt)}}
        yield "[DONE]"


def _choice(**fields: Any) -> dict:
    return {"object": "text_completion", "choices": [{"index": 0, **fields}]}


class _Handler(BaseHTTPRequestHandler):
    served: Completions

    def do_GET(self) -> None:
        served = self.served
        card = {"id": "cria", "object": "model", "owned_by": _OWNERS[served.kind]}
        if served.kind in ("vllm", "sglang"):
            card["max_model_len"] = 4096
        answers = {
            "/v1/models": {"object": "list", "data": [card]},
            "/version": {"version": served.vllm_version},
            "/get_server_info": {"stream_output": False},
        }
        self._answer(answers.get(self.path, {}), 200 if self.path in answers else 404)

    def do_POST(self) -> None:
        served = self.served
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        served.keys.append(self.headers.get("Authorization"))
        if served.failure is not None:
            status, said = served.failure
            served.refused.append(request)
            return self._answer({"error": {"message": said}}, status)
        speaks = {
            "/v1/completions": served.completions,
            "/generate": served.generate_sglang,
            "/v1/chat/completions": served.chat_hosted,
        }
        wrong = {"vllm": "/generate", "sglang": "/v1/completions", "hosted": "/v1/completions"}
        if self.path not in speaks or wrong.get(served.kind) == self.path:
            return self._answer({"detail": "Not Found"}, 404)
        served.requests.append(request)
        served.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        events = speaks[self.path](request)
        try:
            for event in events:
                data = event if isinstance(event, str) else json.dumps(event)
                self.wfile.write(f"data: {data}\n\n".encode())
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            served.closed.set()
        finally:
            events.close()

    def _answer(self, body: dict, status: int) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {**self.served.headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve_completions(
    models: Mapping[str, TransformersRuntime], *, kind: str
) -> Iterator[Completions]:
    """Serve on a free port of the loopback interface. Call it in a running event loop."""
    served = Completions(models, kind=kind)
    with listen(type("Handler", (_Handler,), {"served": served})) as url:
        served.url = f"{url}/v1"
        yield served
