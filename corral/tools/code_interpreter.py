"""Llama's code interpreter: Python that the model writes, in the sandbox, with a notebook's memory.

Each conversation has a session of its own: variables and files are there in the next call, and
also after a call that was stopped or crashed, as they were before it. Figures and files that the
code makes come back as attachments.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import anyio
from pydantic import JsonValue

from corral.errors import ConfigError, SandboxUnavailable, ToolError
from corral.messages import ToolSpec
from corral.tools.attachments import as_attachments
from corral.tools.interpreter_text import bare_code, cell_text, program_text
from corral.tools.options import ToolOptions
from corral.tools.plain_text import plain
from corral.tools.sandbox import (
    MadeFile,
    Permissions,
    PythonPool,
    PythonSession,
    run_python,
)
from corral.tools.sandbox._waiting import Places
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

_MOST_NAMES = 20
_MOST_ENDED = 1000


class CodeInterpreter:
    """The code interpreter as a tool: a session of Python for each conversation, in the sandbox.

    What a call printed goes to the model, with the value of a last expression as a notebook shows
    it. Figures of matplotlib that are open at a call's end, and files that it wrote into its
    working directory, come back as attachments, and the model is told their names.

    A call that runs into a limit, or crashes, is undone: variables are as they were before it.
    Files are not. Between calls nothing of a session runs.
    """

    def __init__(
        self,
        permissions: Permissions | None = None,
        *,
        stateful: bool = True,
        data: str | Path | None = None,
        preload: Sequence[str] = (),
        sessions: int = 16,
        idle_seconds: float = 900.0,
        unsafe_local: bool = False,
    ) -> None:
        """Describe the interpreter. Nothing is started yet.

        Args:
            permissions: What the code of each call may do; by default it may touch nothing.
            stateful: Whether the calls of a conversation share variables and files; else each is
                a program of its own, which starts from nothing.
            data: A folder of the user's that the code may read. It is found as `data` in the
                working directory (and as `/data` where the sandbox has namespaces), and the model
                is told so, with the names of what lies in it.
            preload: Modules to import before the first call, such as `("numpy", "pandas")`: that
                saves the first call the time to import them, and costs the memory.
            sessions: How many sessions may exist at a time. The one that was not used for longest
                makes room for another.
            idle_seconds: After how long without a call a session ends; 0 for never.
            unsafe_local: Run what the model writes as plain processes with all of your rights,
                confined by nothing, each starting from nothing: see `run_python`. Only for
                machines without a sandbox, and at your own risk.

        Raises:
            ConfigError: `data` is no folder, or one that can't be granted; or `sessions` is not at
                least 1.
        """
        if sessions < 1:
            raise ConfigError(f"sessions={sessions!r} leaves no session to run in. Give 1 or more.")
        self._permissions = permissions or Permissions()
        self._stateful = stateful
        self._data = _data_folder(data)
        self._preload = tuple(preload)
        self._most = sessions
        self._idle_seconds = idle_seconds
        self._unsafe_local = unsafe_local
        self._pool = PythonPool(
            self._permissions, data=self._data, preload=preload, idle_seconds=idle_seconds
        )
        # Of several calls in a message, a later one may use what an earlier one has set.
        self.options = ToolOptions(parallel=not stateful)
        self._held = _Sessions(self._most)
        self._room = Places(self._most)

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        if self._data is None:
            return CODE_INTERPRETER
        told = f"{CODE_INTERPRETER.description} {_about(self._data)}"
        return CODE_INTERPRETER.model_copy(update={"description": told})

    def narrowed(self, ceiling: Permissions) -> CodeInterpreter:
        """The same tool, allowed only what `ceiling` allows as well."""
        data = self._data
        if data is not None:
            may_read = Permissions(read=(data,)).narrowed(ceiling).read
            data = data if data in may_read else None
        return CodeInterpreter(
            self._permissions.narrowed(ceiling),
            stateful=self._stateful,
            data=data,
            preload=self._preload,
            sessions=self._most,
            idle_seconds=self._idle_seconds,
            unsafe_local=self._unsafe_local,
        )

    async def ready(self) -> None:
        """See that this machine can confine code, and have a worker get ready for the first call.

        Raises:
            SandboxUnavailable: It can't; the message says which probe failed, and the remedy.
        """
        if not self._unsafe_local:
            await self._pool.warm_up(sessions=self._stateful)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run `arguments["code"]` and give what it printed, and what files it made.

        Raises:
            ToolError: The sandbox could not be set up. Nothing was run.
        """
        code = bare_code(str(arguments["code"]))
        if self._unsafe_local:
            result = await run_python(code, permissions=self._permissions, unsafe_local=True)
            return self._output(*program_text(result, self._permissions), result.files, notes=())
        try:
            if self._stateful:
                return await self._run_cell(code, context.session)
            result = await self._pool.run_python(code, collect_files=True)
        except SandboxUnavailable as error:
            raise ToolError(str(error)) from error
        content, is_error = program_text(result, self._permissions)
        return self._output(content, is_error, result.files, notes=self._missing(result.stderr))

    async def aclose(self) -> None:
        """End all sessions, and what waits for others. A later call begins anew."""
        with anyio.CancelScope(shield=True):
            for session in self._held.take_all():
                await session.aclose()
            await self._pool.aclose()

    async def _run_cell(self, code: str, key: str) -> ToolOutput:
        async with self._room:
            session, notes = await self._session(key)
            try:
                result = await session.run(code)
            finally:
                self._held.done(key)
                if session.is_over:
                    await self._end(key, session, "crashed, or was stopped")
        content, is_error = cell_text(result, self._permissions)
        return self._output(
            content, is_error, result.files, notes=[*notes, *self._missing(result.error or "")]
        )

    async def _session(self, key: str) -> tuple[PythonSession, list[str]]:
        """The session of a conversation, and what the model has to be told if it is a new one."""
        session = self._held.use(key)
        if session is not None and session.is_over:
            self._held.done(key)
            why = "was idle for too long" if session.was_idle else "ended"
            await self._end(key, session, why)
            session = None
        if session is not None:
            return session, []
        notes: list[str] = []
        ended = self._held.why_ended(key)
        if ended:
            notes.append(
                f"[This is a new session: the earlier one {ended}. Its variables are gone]"
            )
        if self._data is not None:
            notes.append(f"[{_about(self._data)}]")
        session = await self._pool.open_session()
        for other_key, other in self._held.add(key, session):
            await self._end(other_key, other, "made room for others")
        return session, notes

    async def _end(self, key: str, session: PythonSession, why: str) -> None:
        self._held.remove(key, session, why)
        await session.aclose()

    def _missing(self, error: str) -> list[str]:
        """Where the user's files are, for code that looked for one elsewhere."""
        if self._data is None or "FileNotFoundError" not in error:
            return []
        return [f"[{_about(self._data)}]"]

    def _output(
        self, content: str, is_error: bool, files: tuple[MadeFile, ...], *, notes: Sequence[str]
    ) -> ToolOutput:
        return ToolOutput(
            content="\n".join([content, *dict.fromkeys(notes)]),
            is_error=is_error,
            attachments=as_attachments(files),
        )


class _Sessions:
    """The sessions there are, the least recently used first. Safe to use from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, PythonSession] = OrderedDict()
        self._busy: dict[str, int] = {}
        self._ended: OrderedDict[str, str] = OrderedDict()

    def use(self, key: str) -> PythonSession | None:
        """The session of that key, kept from being ended until `done`."""
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                self._sessions.move_to_end(key)
                self._busy[key] = self._busy.get(key, 0) + 1
            return session

    def add(self, key: str, session: PythonSession) -> list[tuple[str, PythonSession]]:
        """Keep a new session, in use; returns those that have to make room."""
        with self._lock:
            self._sessions[key] = session
            self._busy[key] = self._busy.get(key, 0) + 1
            idle = [other for other in self._sessions if not self._busy.get(other)]
            surplus = max(0, len(self._sessions) - self._most)
            return [(other, self._sessions[other]) for other in idle[:surplus]]

    def done(self, key: str) -> None:
        """Let a session that was used be ended."""
        with self._lock:
            left = self._busy.pop(key, 1) - 1
            if left > 0:
                self._busy[key] = left

    def remove(self, key: str, session: PythonSession, why: str) -> None:
        """Forget a session, and remember why."""
        with self._lock:
            if self._sessions.get(key) is session:
                del self._sessions[key]
                self._ended[key] = why
                while len(self._ended) > _MOST_ENDED:
                    self._ended.popitem(last=False)

    def why_ended(self, key: str) -> str | None:
        """Why the last session of that key is over; told once."""
        with self._lock:
            return self._ended.pop(key, None)

    def take_all(self) -> list[PythonSession]:
        """Forget all sessions, and give them to be closed."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._ended.update(dict.fromkeys(self._sessions, "was closed"))
            self._sessions.clear()
            self._busy.clear()
            return sessions


async def interpret(code: str, *, permissions: Permissions) -> tuple[str, bool]:
    """Run what a model wrote as a program of its own, and say what came of it.

    Args:
        code: The program; a Markdown fence around it is taken off.
        permissions: What it may do.

    Returns:
        What the model is shown, and whether that is an error.

    Raises:
        SandboxUnavailable: If this machine can't confine the program. It did not run.
    """
    result = await run_python(bare_code(code), permissions=permissions)
    return program_text(result, permissions)


def _data_folder(data: str | Path | None) -> Path | None:
    if data is None:
        return None
    (folder,) = Permissions(read=(Path(data).expanduser().absolute(),)).read
    if not folder.is_dir():
        raise ConfigError(f"The data folder {str(data)!r} is no folder. Name one that exists.")
    if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
        raise ConfigError(
            f"The data folder {str(data)!r} is closed to other users, and as root Corral runs code "
            f"as user 65534. Open it: chmod -R o+rX {str(folder)!r}"
        )
    return folder


def _about(data: Path) -> str:
    """One sentence on the user's files."""
    try:
        names = sorted(entry.name for entry in data.iterdir() if not entry.name.startswith("."))
    except OSError:
        names = []
    shown = ", ".join(plain(name).replace("\n", "?") for name in names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown += f" and {len(names) - _MOST_NAMES} more"
    return f"The user's files are in the folder data, to be read: {shown or 'none yet'}."
