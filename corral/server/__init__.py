"""Corral as a server: agents behind OpenAI's and Ollama's HTTP interfaces.

`settings` says how it may be reached, `catalogue` holds the agents and models that it serves,
`front` stands before every request (who may come, how much, how many), `turns` runs an agent's
turn for a request, and the rest are the two interfaces, a group of endpoints a file. It needs the
extra `llama-corral[server]`; importing this package loads nothing of that.
"""

from __future__ import annotations

from corral.server.serving import serve
from corral.server.settings import ServerSettings

__all__ = ["ServerSettings", "serve"]
