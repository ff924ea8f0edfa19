"""Events on a terminal: the answer on standard output, everything about it on standard error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from corral.cli.files import files_of
from corral.errors import CorralError
from corral.events import (
    ApprovalAnswered,
    ApprovalRequested,
    CallFinished,
    CallRequested,
    Event,
    ShieldChecked,
    TextDelta,
    TurnFinished,
    TurnStarted,
)
from corral.messages import Attachment, ToolCall, ToolResult
from corral.tools.attachments import save_attachments

__all__ = ["Screen", "call_text", "printable", "result_text"]

_LONGEST_RESULT = 2000


class Screen:
    """Shows a turn as it happens."""

    def __init__(self, *, memory: str | Path | None = None) -> None:
        """Start with an empty line. Files that come are kept beside the database `memory`."""
        self._open_line = False
        self._memory = memory
        self._session = ""

    def show(self, event: Event) -> None:
        """Show one event, if it is one that a reader wants to see."""
        match event:
            case TurnStarted():
                self._session = event.session
            case ShieldChecked():
                self._note(_verdict(event), fg="red" if event.blocked else "green")
            case CallRequested():
                self._note(f"call   {call_text(event.call)}", fg="cyan")
            case ApprovalRequested():
                call = call_text(event.call)
                self._note(f"ask    {call}\n       why: {printable(event.why)}", fg="magenta")
            case ApprovalAnswered():
                why = f": {printable(event.reason)}" if event.reason else ""
                said = "approved" if event.approved else f"denied{why}"
                self._note(said, fg="magenta")
            case CallFinished():
                fg = "yellow" if event.result.is_error else "blue"
                self._note(f"result {result_text(event.result)}", fg=fg)
                self._keep(event.attachments)
            case TextDelta():
                click.echo(printable(event.text), nl=False)
                self._open_line = not event.text.endswith("\n")
            case TurnFinished():
                self._finish(event)
            case _:
                pass

    def _keep(self, attachments: Sequence[Attachment]) -> None:
        if not attachments:
            return
        try:
            for path in save_attachments(attachments, files_of(self._session, self._memory)):
                self._note(f"file   {printable(str(path))}", fg="blue")
        except (CorralError, OSError) as error:
            self._note(f"file   could not be kept: {printable(str(error))}", fg="yellow")

    def end_line(self) -> None:
        """End the line that the answer stands in."""
        if self._open_line:
            click.echo()
            self._open_line = False

    def _finish(self, event: TurnFinished) -> None:
        self.end_line()
        if event.outcome == "blocked":
            click.echo(event.text)
        if event.outcome != "answered":
            self._note(f"{event.outcome}: {event.reason}", fg="red")

    def _note(self, text: str, *, fg: str) -> None:
        self.end_line()
        click.secho(text, fg=fg, err=True)


def _verdict(event: ShieldChecked) -> str:
    verdict = event.verdict
    word = "safe" if verdict.safe else "unsafe " + ",".join(verdict.categories)
    word += " (let pass)" if not verdict.safe and not event.blocked else ""
    odds = "" if verdict.score is None else f"p(unsafe) {verdict.score:.3f}, "
    return f"shield {event.gate}: {word.strip()}  [{odds}{event.shield}, {event.seconds:.1f} s]"


def call_text(call: ToolCall) -> str:
    """A call as a person reads it: code as code, the rest as a call."""
    if call.arguments.keys() == {"code"}:
        return f"{call.name}\n{_indented(str(call.arguments['code']))}"
    arguments = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in call.arguments.items()
    )
    return printable(f"{call.name}({arguments})")


def result_text(result: ToolResult) -> str:
    """A result as a person reads it, cut when it is long."""
    content = result.content
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    if len(text) > _LONGEST_RESULT:
        text = f"{text[:_LONGEST_RESULT]} ... ({len(text) - _LONGEST_RESULT} more characters)"
    return f"{result.name}\n{_indented(text)}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in printable(text).splitlines())


def printable(text: str) -> str:
    """Text that can't steer a terminal: its control characters become U+FFFD."""
    return "".join(
        char if char in "\n\t" or (ord(char) >= 0x20 and not 0x7F <= ord(char) < 0xA0) else "\ufffd"
        for char in text
    )
