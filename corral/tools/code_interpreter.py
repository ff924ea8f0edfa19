"""Llama's code interpreter: a program in, and out what it printed, as the model is to read it."""

from __future__ import annotations

import re
import signal

import anyio.to_thread
from pydantic import JsonValue

from corral.errors import SandboxUnavailable, ToolError
from corral.messages import ToolSpec
from corral.tools.sandbox import Permissions, SandboxResult, probe, run_python
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["CODE_INTERPRETER", "CodeInterpreter", "interpret"]

CODE_INTERPRETER = ToolSpec(
    name="code_interpreter",
    description="Runs Python and returns what it prints.",
    parameters={
        "type": "object",
        "properties": {"code": {"type": "string", "description": "The program."}},
        "required": ["code"],
        "additionalProperties": False,
    },
    kind="code_interpreter",
)
"""The tool as the model is shown it; Llama 3.2 knows it by training and calls it in bare Python."""

_FENCE = re.compile(
    r"\A\s*```[ \t]*(?:python|py|ipython|python3)?[ \t]*\n(.*?)\n?```\s*\Z", re.S | re.I
)
_TAG = "<|python_tag|>"
# Escape sequences first, whole; then every control character but newline and tab. A carriage return
# goes too, since it would let a terminal overwrite the line that was shown.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_TRACEBACK = "Traceback (most recent call last):"


class CodeInterpreter:
    """The code interpreter as a tool: each call is a program of its own, in the sandbox."""

    def __init__(self, permissions: Permissions | None = None) -> None:
        """Run programs with `permissions`; by default they may touch nothing."""
        self._permissions = permissions or Permissions()

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return CODE_INTERPRETER

    async def ready(self) -> None:
        """See that this machine can confine code.

        Raises:
            SandboxUnavailable: It can't; the message says which probe failed, and the remedy.
        """
        report = await anyio.to_thread.run_sync(probe)
        report.level_for(self._permissions)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run `arguments["code"]` and give what it printed.

        Raises:
            ToolError: The sandbox could not be set up. Nothing was run.
        """
        try:
            content, is_error = await interpret(
                str(arguments["code"]), permissions=self._permissions
            )
        except SandboxUnavailable as error:
            raise ToolError(str(error)) from error
        return ToolOutput(content=content, is_error=is_error)


async def interpret(code: str, *, permissions: Permissions) -> tuple[str, bool]:
    """Run what a model wrote as a program, and say what came of it.

    Args:
        code: The program; a Markdown fence around it is taken off.
        permissions: What it may do.

    Returns:
        What the model is shown, and whether that is an error. A program that ended well gives
        exactly what it printed (without the last newline), or `(no output)`; else what it printed
        until then, followed by the traceback of its own frames, or by a sentence that names the
        limit it ran into.

    Raises:
        SandboxUnavailable: If this machine can't confine the program. It did not run.
    """
    result = await run_python(_bare(code), permissions=permissions)
    parts: list[str] = []
    printed = _plain(result.stdout).removesuffix("\n")
    if printed:
        parts.append(printed)
    why = _why_it_failed(result, permissions)
    if why:
        parts.append(why)
    if result.truncated:
        parts.append(f"[Output cut: only the first {permissions.output_bytes} bytes were kept.]")
    return "\n".join(parts) or "(no output)", why is not None


def _bare(code: str) -> str:
    code = code.removeprefix(_TAG)
    fenced = _FENCE.match(code)
    return fenced[1] if fenced else code


def _plain(text: str) -> str:
    """`text` as a terminal may be shown it: of control characters, only newline and tab remain."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def _why_it_failed(result: SandboxResult, permissions: Permissions) -> str | None:
    """What to tell the model when the program didn't end well, else None."""
    match result.over:
        case "wall":
            limit = f"ran longer than {permissions.wall_seconds:g} seconds"
        case "cpu":
            limit = f"used more than {permissions.cpu_seconds:g} seconds of processor time"
        case "memory":
            limit = f"used more than {permissions.memory_bytes} bytes of memory"
        case "disk":
            limit = f"wrote more than {permissions.disk_bytes} bytes to disk"
        case "files":
            limit = f"made more than {permissions.files} files"
        case None:
            return _how_it_ended(result, permissions)
    return f"The program was stopped: it {limit}."


def _how_it_ended(result: SandboxResult, permissions: Permissions) -> str | None:
    if result.signal is not None:
        return _signal_sentence(result.signal, permissions)
    if result.exit_code == 0:
        return None
    errors = _plain(result.stderr).strip("\n")
    start = errors.rfind(f"\n{_TRACEBACK}")
    if start >= 0:
        errors = errors[start + 1 :]
    return errors or f"The program ended with exit code {result.exit_code}."


def _signal_sentence(number: int, permissions: Permissions) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL):
        return (
            f"The program crashed ({name}), perhaps for want of memory: "
            f"it may use {permissions.memory_bytes} bytes."
        )
    if number == getattr(signal, "SIGSYS", None):
        return f"The program was stopped ({name}): it made a system call that is not allowed."
    return f"The program was ended by {name}."
