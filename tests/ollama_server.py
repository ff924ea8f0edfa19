"""A loopback server that speaks Ollama's API, with real models behind it.

Like Ollama, it adds `<|begin_of_text|>` itself, takes control tokens for real wherever they are in
the prompt, shows none in its output, sends one JSON object a line, and cuts a prompt that is too
long without a word. Models run in the test's own event loop; requests come in threads.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio.from_thread
import anyio.lowlevel

from corral.messages import AssistantMessage, SystemMessage, ToolResult, ToolSpec, UserMessage
from corral.model_runtime import Finish, Sampling, render_prompt
from corral.model_runtime.parser import parse_output
from corral.model_runtime.prompt import Prompt, Special, Text
from corral.model_runtime.transformers_runtime import TransformersRuntime

_SPECIAL = re.compile(r"(<\|[a-z_]+\|>)")
_CANDIDATES = ("safe", "unsafe", "The", "I", "[", "Rome")


class Served:
    """What was asked, and how the server is to behave."""

    def __init__(self, models: Mapping[str, TransformersRuntime]) -> None:
        self.models = models
        self.token = anyio.lowlevel.current_token()
        self.requests: list[dict] = []
        self.paths: list[str] = []
        self.closed = threading.Event()
        self.url = ""
        self.version = "0.33.0"
        self.context: int | None = None
        """What the server really holds, whatever it is asked for."""
        self.architecture = "llama"
        self.template = "{{ .Prompt }}<|start_header_id|>"
        self.vocabulary = True
        self.shown: dict = {}
        self.failure: tuple[int, str] | None = None
        self.pulled: list[str] = []

    def prompt(self, text: str) -> Prompt:
        """A prompt as the server reads it, control tokens taken for real.

        A header's two newlines are parted from the text behind them, as Llama 3's own tokenizer
        does it.
        """
        segments: list[Special | Text] = [Special("<|begin_of_text|>")]
        for part in _SPECIAL.split(text):
            if _SPECIAL.fullmatch(part):
                segments.append(Special(part))
            elif part.startswith("\n\n") and segments[-1] == Special("<|end_header_id|>"):
                segments += [Text("\n\n"), Text(part[2:])] if part[2:] else [Text("\n\n")]
            elif part:
                segments.append(Text(part))
        return Prompt(tuple(segments))

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call an async function in the event loop of the test."""
        return anyio.from_thread.run(function, *args, token=self.token)

    def generate(self, request: dict) -> Iterator[dict]:
        model = self.models[request["model"]]
        prompt = self.prompt(request["prompt"])
        count = self.run(model.count, prompt)
        context = self.context or request["options"]["num_ctx"]
        if count > context:  # what Ollama does: half of it is left, and nobody is told
            prompt = _halved(prompt)
            count = self.run(model.count, prompt)
        first = True
        for line in self._write(model, prompt, request["options"]):
            if request.get("logprobs") and first and line["response"]:
                line["logprobs"] = [self._logprobs(model, prompt, line["response"])]
            first = False
            if line["done"]:
                line["prompt_eval_count"] = count
            yield {"model": request["model"], **line}

    def _write(self, model: TransformersRuntime, prompt: Prompt, options: dict) -> Iterator[dict]:
        sampling = Sampling(
            temperature=options["temperature"],
            top_p=options["top_p"],
            max_tokens=options["num_predict"],
            seed=options.get("seed"),
        )
        pieces = model.generate(prompt, sampling=sampling)

        async def more() -> Any:
            return await anext(pieces, None)

        try:
            while (piece := self.run(more)) is not None:
                if isinstance(piece, Finish):
                    yield {
                        "response": "",
                        "done": True,
                        "done_reason": "length" if piece.reason == "max_tokens" else "stop",
                        "eval_count": piece.usage.output_tokens,
                    }
                elif not piece.is_special:
                    yield {"response": piece.text, "done": False}
        finally:
            self.run(pieces.aclose)

    def _logprobs(self, model: TransformersRuntime, prompt: Prompt, token: str) -> dict:
        odds = self.run(model.score, prompt, [token, *_CANDIDATES])
        tops = [
            {"token": text, "logprob": math.log(p)}
            for text, p in sorted(odds.items(), key=lambda item: -item[1])
            if p > 0
        ]
        return {**tops[0], "top_logprobs": tops}

    def chat(self, request: dict) -> Iterator[dict]:
        """Render the conversation here, and read calls here, as Ollama does for other families."""
        tools = [ToolSpec(**tool["function"]) for tool in request.get("tools", [])]
        prompt = self.render([self.message(each) for each in request["messages"]], tools)
        text = ""
        model = next(iter(self.models.values()))
        for line in self._write(model, prompt, request["options"]):
            text += line.pop("response")
            if line["done"]:
                said = parse_output(text, tools=tools)
                calls = [
                    {"function": {"name": call.name, "arguments": call.arguments}}
                    for call in said.calls
                ]
                message = {"role": "assistant", "content": said.text}
                yield {"message": message | ({"tool_calls": calls} if calls else {}), "done": False}
                line["message"] = {"role": "assistant", "content": ""}
                line["prompt_eval_count"] = self.run(model.count, prompt)
                yield line

    @staticmethod
    def render(messages: list, tools: list[ToolSpec]) -> Prompt:
        """The prompt of a chat."""
        return render_prompt(messages, tools=tools)

    @staticmethod
    def message(wire: dict) -> Any:
        """A message of a chat API."""
        match wire["role"]:
            case "system":
                return SystemMessage(text=wire["content"])
            case "user":
                return UserMessage(content=wire["content"])
            case "tool":
                return ToolResult(
                    call_id=wire["tool_call_id"], name=wire["tool_name"], content=wire["content"]
                )
            case _:
                calls = [
                    {"id": call["id"], **call["function"]} for call in wire.get("tool_calls", [])
                ]
                return AssistantMessage(text=wire["content"], calls=tuple(calls))

    def show(self, request: dict) -> dict:
        info: dict = {"general.architecture": self.architecture, "llama.context_length": 8192}
        if request.get("verbose") and self.vocabulary:
            info |= _vocabulary(self.models[request["model"]])
        return {"template": self.template, "model_info": info, **self.shown}

    def embed(self, request: dict) -> dict:
        """Vectors of unit length out of how surely the model goes on with some words."""
        model = next(iter(self.models.values()))
        vectors = []
        for text in request["input"]:
            odds = self.run(model.score, Prompt((Text(text),)), list(_CANDIDATES))
            raw = [math.sqrt(p) for p in odds.values()]
            length = math.sqrt(sum(x * x for x in raw))
            vectors.append([x / length for x in raw])
        return {"model": request["model"], "embeddings": vectors}

    def pull(self, request: dict) -> Iterator[dict]:
        if request["model"] not in self.models:
            yield {"error": "pull model manifest: file does not exist"}
            return
        self.pulled.append(request["model"])
        yield {"status": "pulling manifest"}
        for done in (0, 40, 100):
            yield {"status": "pulling abc", "digest": "sha256:abc", "total": 100, "completed": done}
        yield {"status": "success"}


def _halved(prompt: Prompt) -> Prompt:
    return Prompt(
        tuple(
            Text(each.text[len(each.text) // 2 :])
            if isinstance(each, Text) and len(each.text) > 40
            else each
            for each in prompt.segments
        )
    )


@cache
def _vocabulary(model: TransformersRuntime) -> dict:
    tokenizer = json.loads(model.tokenizer._tokenizer.to_str())
    ids = dict(tokenizer["model"]["vocab"])
    merges = tokenizer["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in merges],
    }


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        self.served.paths.append(self.path)
        names = [
            {"name": name, "model": name, "size": 2**30, "modified_at": "2026-01-01T00:00:00Z"}
            for name in self.served.models
        ]
        answers = {
            "/api/version": {"version": self.served.version},
            "/api/tags": {"models": names},
            "/api/ps": {"models": names[:1]},
        }
        self._answer(answers[self.path])

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.served.paths.append(self.path)
        if self.served.failure is not None and self.path != "/api/show":
            return self._answer({"error": self.served.failure[1]}, status=self.served.failure[0])
        if self.path == "/api/pull":
            return self._lines(self.served.pull(request))
        if request["model"] not in self.served.models:
            said = f"model '{request['model']}' not found"
            return self._answer({"error": said}, status=404)
        if self.path == "/api/show":
            return self._answer(self.served.show(request))
        self.served.requests.append(request)
        if self.path == "/api/embed":
            return self._answer(self.served.embed(request))
        lines = self.served.chat if self.path == "/api/chat" else self.served.generate
        return self._lines(lines(request))

    def _answer(self, body: dict, *, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _lines(self, lines: Iterator[dict]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        try:
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.served.closed.set()
        finally:
            lines.close()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(models: Mapping[str, TransformersRuntime]) -> Iterator[Served]:
    """Serve on a free port of the loopback interface. Call it in a running event loop."""
    served = Served(models)
    with listen(type("Handler", (_Handler,), {"served": served})) as served.url:
        yield served


@contextmanager
def listen(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve requests in threads, on a free port of the loopback interface; gives the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
