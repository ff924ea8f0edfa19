"""`@tool(isolated=True)`: a function that runs in the sandbox, with the permissions it was given.

Its source is sent there with what it needs (`corral.tools.self_contained`), its arguments and its
result travel as JSON. So its parameters have JSON's own types, and what it returns is data from
where untrusted code runs: read as JSON, with a bound on its size, and never as anything else.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import anyio.to_thread
from pydantic import JsonValue
from pydantic_core import from_json

from corral.errors import ConfigError, SandboxUnavailable, ToolError, ToolRetry
from corral.tools.context import RunContext
from corral.tools.function import FunctionTool, as_output
from corral.tools.options import ToolOptions
from corral.tools.permitted import Permitted
from corral.tools.plain_text import plain, shortened
from corral.tools.sandbox import Permissions, SandboxResult, probe, run_python
from corral.tools.self_contained import write_out
from corral.tools.tool import ToolOutput

__all__ = ["IsolatedTool"]

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_MESSAGE = 2000
_PLAIN = (str, int, float, bool, NoneType, list, dict, Any, object)
_DEFAULTS = ToolOptions()

_HEAD = """\
class ToolError(Exception): pass
class ToolRetry(ToolError): pass
"""
# What the function prints goes to the error stream, so that the result stands alone on the output,
# behind a mark that is new for each call.
_TAIL = """
def __run__():
    import json, sys
    output, sys.stdout = sys.stdout, sys.stderr
    asked = json.loads(sys.stdin.read())
    try:
        told = {{}}
        if not asked["only_load"]:
            told["result"] = {name}(*asked["args"], **asked["named"])
    except ToolRetry as error:
        told = {{"retry": str(error)}}
    except ToolError as error:
        told = {{"error": str(error)}}
    except Exception as error:
        told = {{"error": type(error).__name__ + ": " + str(error)}}
    try:
        text = json.dumps(told)
    except (TypeError, ValueError, RecursionError):
        kind = type(told.get("result")).__name__
        text = json.dumps({{"error": "it returned a " + kind + ", which can't be written as JSON"}})
    output.write(asked["mark"] + text)
    output.flush()

__run__()
"""


class IsolatedTool(Permitted, FunctionTool[P, R]):
    """A function as a tool that runs in the sandbox. Called as a function, it runs here."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        options: ToolOptions = _DEFAULTS,
        permissions: Permissions | None = None,
    ) -> None:
        """Make the tool; see `FunctionTool` for the arguments.

        Args:
            function: A plain function, not async, whose parameters have JSON's types.
            name: What the model calls it.
            description: What it does.
            options: How its calls are run.
            permissions: What it may do; by default nothing but compute.

        Raises:
            ConfigError: The function can't be sent to the sandbox; says what of it, and the remedy.
        """
        super().__init__(function, name=name, description=description, options=options)
        self._permissions = permissions or Permissions()
        if self._signature.takes_context or self._signature.is_method:
            what = "its RunContext" if self._signature.takes_context else "its object"
            raise ConfigError(
                f"The tool {self.__name__!r} can't be isolated: {what} can't be sent to the "
                "sandbox. Make it a plain function that takes what it needs as arguments."
            )
        definitions = write_out(function, tool=self.__name__)
        _check_types(function, self.__name__)
        head, _, rest = definitions.partition("\n")  # an import from __future__ must come first
        inner = str(getattr(function, "__name__", ""))
        self._program = f"{head}\n{_HEAD}{rest}{_TAIL.format(name=inner)}"

    async def ready(self) -> None:
        """See that this machine can confine the function, and that it can be loaded there.

        Raises:
            SandboxUnavailable: It can't be confined.
            ConfigError: It can't be loaded: it imports something that isn't there, for example.
        """
        report = await anyio.to_thread.run_sync(probe)
        report.level_for(self._permissions)
        told, result = await self._run({"only_load": True})
        if told is None:
            raise ConfigError(
                f"The isolated tool {self.__name__!r} can't be loaded in the sandbox: "
                f"{self._why(result)} Use only what is installed beside Corral, or don't isolate "
                "it."
            )

    async def call(self, arguments: dict[str, JsonValue], context: RunContext[Any]) -> ToolOutput:
        """Run the function once, in a sandbox made for this call. Cancelling kills it.

        Raises:
            ToolRetry: The function asked for the call to be made again.
            ToolError: It failed, it ran into a limit, or the sandbox can't be had.
        """
        positional, named = self._signature.bind(arguments)
        try:
            told, result = await self._run({"only_load": False, "args": positional, "named": named})
        except SandboxUnavailable as error:
            raise ToolError(str(error)) from error
        if told is None:
            raise ToolError(f"{self.__name__} gave no result: {self._why(result)}")
        for key, kind in (("retry", ToolRetry), ("error", ToolError)):
            if key in told:
                raise kind(shortened(plain(str(told[key])), _LONGEST_MESSAGE))
        return as_output(told.get("result"), tool=self.__name__)

    async def _run(self, asked: dict[str, Any]) -> tuple[dict[str, Any] | None, SandboxResult]:
        """What the program told behind the mark, None if nothing that can be read."""
        mark = f"\n{secrets.token_hex(16)}:"
        result = await run_python(
            self._program,
            permissions=self._permissions,
            stdin=json.dumps({**asked, "mark": mark}).encode(),
        )
        _, found, text = result.stdout.rpartition(mark)
        if not found or result.truncated:
            return None, result
        try:
            told = from_json(text)
        except ValueError:  # cut, or nested too deeply
            return None, result
        return (cast("dict[str, Any]", told) if isinstance(told, dict) else None), result

    def _why(self, result: SandboxResult) -> str:
        if result.over is not None:
            return f"it was stopped at its limit of {result.over}."
        if result.truncated:
            return f"it is longer than {self._permissions.output_bytes} bytes."
        lines = plain(result.stderr).strip().splitlines()
        last = lines[-1] if lines else f"it ended with exit code {result.exit_code}"
        return shortened(last, _LONGEST_MESSAGE).rstrip(".") + "."


def _check_types(function: Callable[..., Any], tool: str) -> None:
    for name, hint in get_type_hints(function, include_extras=True).items():
        if name != "return" and not _is_json(hint):
            raise ConfigError(
                f"The tool {tool!r} can't be isolated: its parameter {name!r} is a {hint!r}, and "
                "arguments travel to the sandbox as JSON. Use str, int, float, bool, list, dict, "
                "Literal or TypedDict, and make of them what is needed inside."
            )


def _is_json(hint: Any) -> bool:
    if hint in _PLAIN or hint is JsonValue or is_typeddict(hint):
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_json(inner[0])
    if origin is Literal:
        return True
    return origin in (list, dict, Union, UnionType) and all(_is_json(each) for each in inner)
