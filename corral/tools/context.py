"""What a running tool may know of where it runs: the turn, the call, and the program's own things.

    @tool
    async def stock(context: RunContext[Warehouse], item: str) -> int:
        '''Say how many of an item are in stock.'''
        return await context.deps.count(item)

The context is the function's first parameter, and no part of what the model is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

__all__ = ["RunContext"]

Deps = TypeVar("Deps")


# Without slots: a frozen generic class that has them can't be called by its subscripted name.
@dataclass(frozen=True, kw_only=True)
class RunContext(Generic[Deps]):
    """Where a call comes from, and what the program gave its tools to work with.

    Attributes:
        session: The session's key.
        turn_id: The turn's id.
        call_id: The call's id, unique in its session: good as an idempotency key.
        deps: What was given as `deps` to the agent or to the turn; None if nothing was.
        retry: How often this tool has asked for the call to be made again in this turn, from 0.
    """

    session: str
    turn_id: str
    call_id: str
    deps: Deps = field(default=cast("Any", None))
    retry: int = 0
