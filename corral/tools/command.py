"""A command as a tool, described in data: no Python needed, no shell involved, in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import anyio.to_thread
from pydantic import JsonValue

from corral.errors import ConfigError, SandboxUnavailable, ToolError
from corral.messages import ToolSpec
from corral.tools.configured import ConfiguredTool
from corral.tools.interpreter_text import program_text
from corral.tools.options import ToolOptions
from corral.tools.plain_text import shortened
from corral.tools.sandbox import Permissions, SandboxResult, probe, run_program
from corral.tools.schema import argument_names, check_name, check_parameters, with_defaults
from corral.tools.template import Template, parse_template
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["CommandTool"]

_LONGEST_ARGUMENT = 100_000
_LONGEST_ERROR = 300


class CommandTool(ConfiguredTool):
    """A tool that runs a program with arguments, confined to its permissions.

    The command is a list, and stays one: what the model writes fills a placeholder inside one
    element of it, and is never split, expanded, or read by a shell. An element whose argument
    wasn't given is left out; a list inside the list is left out as a whole. An element that would
    begin with `-` because of what the model wrote is refused, unless a literal `--` stands before
    it: or else a file's name could turn into an option.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str,
        command: Sequence[str | Sequence[str]],
        parameters: Mapping[str, Any] | None = None,
        stdin: str | None = None,
        files: Mapping[str, str] | None = None,
        output: Literal["text", "json"] = "text",
        permissions: Permissions | None = None,
        options: ToolOptions | None = None,
    ) -> None:
        """Describe the command. Nothing is run yet.

        Args:
            name: What the model calls the tool.
            description: What it does, for the model.
            command: The program and its arguments, such as `["wc", ["-m", "{unit}"]]`; the program
                itself is literal. `{argument}` is a placeholder, and `{{` a brace.
            parameters: The JSON Schema of the arguments.
            stdin: A template of what the program reads from its standard input.
            files: Templates of files to find in its working directory, by their names.
            output: Whether what it prints is text or JSON.
            permissions: What it may do; by default nothing but compute and print.
            options: How calls are run. A timeout shortens the permissions' `wall_seconds`.

        Raises:
            ConfigError: Something of it can't be used.
        """
        checked = check_parameters(parameters, tool=name)
        names = argument_names(checked)
        where = f"the command of the tool {name!r}"
        self._command = _parsed(command, where, names)
        if not self._command or self._command[0][0].names:
            raise ConfigError(
                f"{where.capitalize()} must begin with a program's name, without placeholders. "
                "Write it like [wc, -w]."
            )
        self._stdin = _template(stdin, f"the stdin of the tool {name!r}", names)
        self._files = {
            file: parse_template(text, where=f"the file {file!r} of the tool {name!r}", names=names)
            for file, text in (files or {}).items()
        }
        self._output = output
        super().__init__(
            ToolSpec(name=check_name(name), description=description, parameters=checked),
            permissions=permissions,
            options=options,
        )

    async def ready(self) -> None:
        """See that this machine can confine the command.

        Raises:
            SandboxUnavailable: It can't; the message says which probe failed, and the remedy.
        """
        (await anyio.to_thread.run_sync(probe)).level_for(self._permissions)

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """See that a command can be made of the arguments.

        Raises:
            ToolError: One of them would turn into an option, or can't be an argument at all.
        """
        self._argv(with_defaults(arguments, self._spec.parameters))

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run the command.

        Raises:
            ToolError: The arguments can't be used, or the sandbox could not be set up. Nothing was
                run.
        """
        values = with_defaults(arguments, self._spec.parameters)
        permissions = self._within_timeout()
        try:
            result = await run_program(
                self._argv(values),
                permissions=permissions,
                stdin=_bytes(self._stdin, values),
                files={name: _bytes(text, values) for name, text in self._files.items()},
            )
        except (SandboxUnavailable, ConfigError) as error:
            raise ToolError(str(error)) from error
        return self._told(result, permissions)

    def _within_timeout(self) -> Permissions:
        seconds = self.options.timeout
        if seconds is None or seconds >= self._permissions.wall_seconds:
            return self._permissions
        return self._permissions.model_copy(update={"wall_seconds": seconds})

    def _argv(self, values: Mapping[str, JsonValue]) -> list[str]:
        argv: list[str] = []
        options_over = False
        for group in self._command:
            if any(element.lacks(values) for element in group):
                continue
            for element in group:
                text = element.fill(values)
                if not element.names:
                    options_over = options_over or (text == "--" and bool(argv))
                elif "\0" in text or len(text) > _LONGEST_ARGUMENT or not _encodable(text):
                    raise ToolError(
                        f"{_names(element)} can't be an argument of a command: it is too long, or "
                        "holds what no text can."
                    )
                elif text.startswith("-") and not options_over and _open_at_start(element):
                    raise ToolError(
                        f"{_names(element)} must not begin with '-', which would make it an option."
                    )
                argv.append(text)
        return argv

    def _told(self, result: SandboxResult, permissions: Permissions) -> ToolOutput:
        """What the model reads of a result."""
        text, failed = program_text(result, permissions)
        if failed or self._output == "text":
            return ToolOutput(content=text, is_error=failed)
        try:
            return ToolOutput(content=json.loads(result.stdout))
        except (ValueError, RecursionError) as error:
            raise ToolError(
                f"{self._spec.name} did not print JSON, but: {shortened(text, _LONGEST_ERROR)}"
            ) from error


def _parsed(
    command: Sequence[str | Sequence[str]], where: str, names: frozenset[str]
) -> list[list[Template]]:
    """The command as groups of elements; what stands alone is a group of one."""
    if isinstance(command, str):
        raise ConfigError(f"{where.capitalize()} is a text. Write it as a list, like [wc, -w].")
    groups = [[each] if isinstance(each, str) else each for each in command]
    return [
        [parse_template(text, where=where, names=names) for text in group]
        for group in groups
        if group
    ]


def _template(text: str | None, where: str, names: frozenset[str]) -> Template | None:
    return None if text is None else parse_template(text, where=where, names=names)


def _bytes(template: Template | None, values: Mapping[str, JsonValue]) -> bytes:
    if template is None or template.lacks(values):
        return b""
    return template.fill(values).encode(errors="replace")


def _open_at_start(element: Template) -> bool:
    """Whether the model decides how an element begins."""
    return not isinstance(element.parts[0], str)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(element: Template) -> str:
    return " and ".join(sorted(element.names))
