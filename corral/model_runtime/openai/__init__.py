"""Models of any server that speaks completions: vLLM, SGLang, llama.cpp, or a hosted Llama.

    runtime = OpenAIRuntime("meta-llama/Llama-3.2-3B-Instruct", base_url="http://gpu:8000/v1")

Corral's own prompt is sent, as token ids where the server takes them and the tokenizer is at hand.
Only where a server has nothing but chat does it render the prompt itself. Its parts: `servers`
knows what kinds of servers there are and finds out which one answers, `completions`, `generate`
and `chat` speak the three dialects, `runtime` does the rest.
"""

from corral.model_runtime.openai.runtime import OpenAIRuntime
from corral.model_runtime.openai.servers import KINDS, ServerKind

__all__ = ["KINDS", "OpenAIRuntime", "ServerKind"]
