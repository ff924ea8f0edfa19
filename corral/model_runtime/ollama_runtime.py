"""`OllamaRuntime`, under the name that it was first known by."""

from corral.model_runtime.ollama.runtime import OllamaRuntime

__all__ = ["OllamaRuntime"]
