"""How a tool's calls are run: deadlines, tries, side by side or alone, asked about or not.

A tool says so by an attribute `options`; one without it is run with the defaults. The agent keeps
to them for every kind of tool alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from pydantic import JsonValue

from corral.errors import ConfigError

__all__ = ["NeedsApproval", "ToolOptions", "options_of"]

NeedsApproval: TypeAlias = bool | Callable[[dict[str, JsonValue]], bool | str]
"""Whether a person is asked before a call runs: always, never, or as a function of the call's
arguments says. A string is a yes, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """How a tool's calls are run.

    Attributes:
        timeout: Seconds after which a call is given up; None for no bound but the turn's.
        retries: How often in a turn the tool may have a call made again, by `ToolRetry`.
        parallel: Whether a call may run beside the others of its message.
        needs_approval: Whether a person is asked first.
        deps: What the tool wants in `RunContext.deps`, by the name of its type; None if nothing.

    Raises:
        ConfigError: `timeout` is no time, or `retries` no number of times.
    """

    timeout: float | None = None
    retries: int = 2
    parallel: bool = True
    needs_approval: NeedsApproval = False
    deps: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be kept to."""
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ConfigError(
                f"A tool's timeout is {self.timeout!r}. Give seconds, above 0, or None."
            )
        if self.retries < 0:
            raise ConfigError(f"A tool's retries are {self.retries!r}. Give 0 or more.")

    def why_ask(self, arguments: dict[str, JsonValue]) -> str | None:
        """Why a call with these arguments needs a person's approval; None where it needs none.

        A function that fails to say counts as a yes.
        """
        if isinstance(self.needs_approval, bool):
            return _ALWAYS if self.needs_approval else None
        try:
            said = self.needs_approval(arguments)
        except Exception as error:  # fails closed, and the person who is asked reads why
            return f"whether it needs approval could not be told: {type(error).__name__}: {error}"
        if isinstance(said, str):
            return said or _ALWAYS
        return _ALWAYS if said else None


_ALWAYS = "the tool is marked as one to ask about"
_DEFAULT = ToolOptions()


def options_of(tool: object) -> ToolOptions:
    """A tool's options: its attribute `options`, or the defaults with its own `needs_approval`."""
    options = getattr(tool, "options", None)
    if isinstance(options, ToolOptions):
        return options
    asks = cast("NeedsApproval", getattr(tool, "needs_approval", False))
    return ToolOptions(needs_approval=asks) if asks is not False else _DEFAULT
