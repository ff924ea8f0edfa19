"""Models of an Ollama server, through the official client, with a prompt that is ours to the byte.

    runtime = OllamaRuntime("llama3.2:3b", num_ctx=16384)

Raw mode because Ollama's own template for Llama 3.2 shows the tools only while the last message is
the user's, and its template for Llama Guard 3 always asks about the user. Models of other families
go through Ollama's chat, with a warning that says what is lost. Its parts: `client` is the
official client with what it lacks, `server` what is asked of a server once, `failures` what its
errors mean, `chat` the other families, `runtime` the rest.
"""

from corral.model_runtime.ollama.library import OllamaModel, list_models, pull_model
from corral.model_runtime.ollama.runtime import OllamaRuntime

__all__ = ["OllamaModel", "OllamaRuntime", "list_models", "pull_model"]
