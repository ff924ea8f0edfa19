"""What a model is shown of the code that it ran."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from corral.tools.plain_text import plain, shortened
from corral.tools.sandbox import CellResult, Limit, MadeFile, Permissions, SandboxResult

__all__ = ["bare_code", "cell_text", "program_text"]

_FENCE = re.compile(
    r"\A\s*```[ \t]*(?:python|py|ipython|python3)?[ \t]*\n(.*?)\n?```\s*\Z", re.S | re.I
)
_TAG = "<|python_tag|>"
# What a notebook is told so that it shows figures, which happens here by itself.
_INLINE = re.compile(r"^[ \t]*%matplotlib\b.*$", re.M)
_TRACEBACK = "Traceback (most recent call last):"
_LONGEST = 20_000
_LONGEST_STDERR = 2_000
_LONGEST_NAME = 100
_MOST_NAMES = 20


def bare_code(code: str) -> str:
    """The program in what a model wrote: without the tag, the Markdown fence or `%matplotlib`."""
    code = code.removeprefix(_TAG)
    fenced = _FENCE.match(code)
    return _INLINE.sub("", fenced[1] if fenced else code)


def program_text(result: SandboxResult, permissions: Permissions) -> tuple[str, bool]:
    """What to show of a program, and whether it failed.

    One that ended well gives what it printed (without the last newline), or `(no output)`; else
    what it printed until then, followed by the traceback of its own frames, or by a sentence that
    names the limit it ran into.
    """
    why = _limit_sentence(result.over, permissions)
    errors = ""
    if why is None and result.signal is not None:
        why = _signal_sentence(result.signal, permissions)
    elif why is None and result.exit_code:
        why = _last_traceback(result.stderr)
        why = why or f"The program ended with exit code {result.exit_code}."
    if why is None:
        errors = result.stderr
    parts = [*_printed(result.stdout), *_aside(errors), *([why] if why else [])]
    parts += _notes(result.truncated, permissions, result.files)
    return _joined(parts), why is not None


def cell_text(result: CellResult, permissions: Permissions) -> tuple[str, bool]:
    """What to show of a session's cell, and whether it failed.

    The same, with the value of a last expression below what was printed, and below a failure what
    became of the variables.
    """
    why = _limit_sentence(result.over, permissions)
    if why is None and result.signal is not None:
        why = _signal_sentence(result.signal, permissions)
    elif why is None and result.error:
        why = _last_traceback(result.error)
    elif why is None and result.exit_code:
        why = f"The program ended with exit code {result.exit_code}."
    parts = [*_printed(result.stdout), *_printed(result.value or ""), *_aside(result.stderr)]
    if why:
        parts.append(why)
    if result.state == "restored":
        parts.append("The variables are as they were before this code.")
    elif result.state == "lost":
        parts.append("The variables of earlier code are lost, and so are its files.")
    parts += _notes(result.truncated, permissions, result.files)
    return _joined(parts), why is not None or result.state != "kept"


def _printed(text: str) -> list[str]:
    shown = plain(text).removesuffix("\n")
    return [shown] if shown else []


def _aside(stderr: str) -> list[str]:
    shown = plain(stderr).strip("\n")
    return [f"[stderr]\n{shortened(shown, _LONGEST_STDERR)}"] if shown else []


def _notes(truncated: bool, permissions: Permissions, files: Iterable[MadeFile]) -> list[str]:
    notes: list[str] = []
    if truncated:
        notes.append(f"[Output cut: only the first {permissions.output_bytes} bytes were kept.]")
    for told, names in (
        ("Files written", [file.path for file in files if file.data is not None]),
        ("Files written, but too large to be passed on", [f.path for f in files if f.data is None]),
    ):
        shown = ", ".join(_name(name) for name in names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            shown += f" and {len(names) - _MOST_NAMES} more"
        if names:
            notes.append(f"[{told}: {shown}]")
    return notes


def _name(path: str) -> str:
    text = path.encode("utf-8", "replace").decode("utf-8", "replace")
    return shortened(plain(text).replace("\n", "?"), _LONGEST_NAME)


def _joined(parts: list[str]) -> str:
    text = "\n".join(parts) or "(no output)"
    if len(text) <= _LONGEST:
        return text
    # The end matters as much as the beginning: an error stands there.
    half = _LONGEST // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def _last_traceback(stderr: str) -> str:
    errors = plain(stderr).strip("\n")
    start = errors.rfind(f"\n{_TRACEBACK}")
    return errors[start + 1 :] if start >= 0 else errors


def _limit_sentence(over: Limit | None, permissions: Permissions) -> str | None:
    match over:
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
            return None
    return f"The program was stopped: it {limit}."


def _signal_sentence(number: int, permissions: Permissions) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGKILL"):
        return (
            f"The program crashed ({name}), perhaps for want of memory: "
            f"it may use {permissions.memory_bytes} bytes."
        )
    if name == "SIGSYS":
        return f"The program was stopped ({name}): it made a system call that is not allowed."
    return f"The program was ended by {name}."
