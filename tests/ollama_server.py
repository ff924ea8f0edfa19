"""A loopback server that speaks Ollama's raw `/api/generate`, with a real model behind it.

Like Ollama, it adds `<|begin_of_text|>` itself, takes control tokens for real wherever they are in
the prompt, shows none in its output, and sends one JSON object a line.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class Served:
    """What was asked, and how the server is to misbehave."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.requests: list[dict] = []
        self.broken_off = False
        self.closed = threading.Event()
        self.url = ""

    def encode(self, prompt: str) -> list[int]:
        """Token ids, with control tokens taken for real.

        Llama 3's own tokenizer never joins a header's two newlines with the text behind them, and
        cria's would: so here they are encoded apart.
        """
        ids: list[int] = []
        for part in re.split(r"(?<=<\|end_header_id\|>)(\n\n)", prompt):
            ids += self.tokenizer(part, add_special_tokens=False).input_ids
        return ids

    def answer(self, request: dict) -> Iterator[dict]:
        ids = torch.tensor([self.encode("<|begin_of_text|>" + request["prompt"])])
        stops = {self.tokenizer.convert_tokens_to_ids(t) for t in ("<|eot_id|>", "<|eom_id|>")}
        prompt_tokens, written, reason = ids.shape[1], 0, "length"
        while written < request["options"]["num_predict"]:
            with torch.inference_mode():
                logits = self.model(ids).logits[0, -1].float()
            token = int(logits.argmax())
            written += 1
            if token in stops:
                reason = "stop"
                break
            line: dict = {"model": request["model"], "done": False}
            line["response"] = self.tokenizer.decode([token], skip_special_tokens=True)
            if request.get("logprobs"):
                top = torch.log_softmax(logits, -1).topk(request["top_logprobs"])
                tops = [
                    {"token": self.tokenizer.decode([int(i)]), "logprob": float(p)}
                    for p, i in zip(*top, strict=True)
                ]
                line["logprobs"] = [{**tops[0], "top_logprobs": tops}]
            yield line
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        yield {
            "model": request["model"],
            "response": "",
            "done": True,
            "done_reason": reason,
            "prompt_eval_count": prompt_tokens,
            "eval_count": written,
        }


@contextmanager
def serve(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Served]:
    """Serve on a free port of the loopback interface."""
    served = Served(model, tokenizer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.requests.append(request)
            if request["model"] != "cria":
                self.send_response(404)
                self.end_headers()
                self.wfile.write(json.dumps({"error": "model not found"}).encode())
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.end_headers()
            try:
                for i, line in enumerate(served.answer(request)):
                    if served.broken_off and i == 2:
                        return
                    assert all(math.isfinite(v) for v in line.values() if isinstance(v, float))
                    self.wfile.write(json.dumps(line).encode() + b"\n")
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                served.closed.set()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
