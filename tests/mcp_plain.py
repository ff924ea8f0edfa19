"""A small MCP server over standard streams, written by hand: it starts at once, and misbehaves.

The official package would neither let a server do what this one does, nor start as fast. Run as
`python mcp_plain.py [SCHEMA]`, where SCHEMA is the JSON Schema of every tool.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

SCHEMA = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {"type": "object"}
TOOLS: dict[str, Callable[[], object]] = {}


def tool(function: Callable[[], object]) -> Callable[[], object]:
    TOOLS[function.__name__] = function
    return function


@tool
def line() -> None:
    """One line that never ends."""
    while True:
        sys.stdout.write("x" * 65536)


@tool
def lines() -> None:
    """Messages without end, each of them well-formed."""
    note = {"jsonrpc": "2.0", "method": "notifications/message"}
    note["params"] = {"level": "info", "data": "x" * 100_000}
    text = json.dumps(note) + "\n"
    while True:
        sys.stdout.write(text)


@tool
def junk() -> dict:
    """What is no message, and what is no result."""
    print("this is not JSON", flush=True)
    return {"content": "nor is this a result"}


@tool
def evil() -> dict:
    """A result that its own schema takes for ever to check."""
    return {"content": [], "structuredContent": {"x": "a" * 60 + "!"}}


@tool
def environment() -> str:
    return " ".join(sorted(os.environ))


@tool
def pid() -> str:
    return str(os.getpid())


@tool
def start_child() -> str:
    """A process that would stay."""
    return str(subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL).pid)


@tool
def die() -> None:
    os.write(2, b"all is lost\n")
    os._exit(3)


@tool
def slow() -> None:
    """An answer that comes too late, while others don't."""
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()


@tool
def freeze() -> None:
    """Answers nothing more, to anybody."""
    time.sleep(300)


def send(message: dict) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answered(request: dict) -> dict | None:
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": request["params"]["protocolVersion"],
                "serverInfo": {"name": "plain", "version": "1"},
                "capabilities": {"tools": {}},
            }
        case "tools/list":
            tools = [{"name": name, "inputSchema": SCHEMA} for name in TOOLS]
            tools[0]["description"] = "x" * 100_000
            slow = {"type": "string", "pattern": "^(a+)+$"}
            for each in tools:
                if each["name"] == "evil":
                    each["outputSchema"] = {"type": "object", "properties": {"x": slow}}
            return {"tools": tools}
        case "tools/call":
            result = TOOLS[request["params"]["name"]]()
            if isinstance(result, str):
                return {"content": [{"type": "text", "text": result}]}
            return result


for text in sys.stdin:
    request = json.loads(text)
    if "id" not in request:
        continue
    if request["method"] not in ("initialize", "tools/list", "tools/call"):
        send({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
        continue
    result = answered(request)
    if result is not None:
        send({"id": request["id"], "result": result})
