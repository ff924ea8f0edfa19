"""A session's own process: it runs cell after cell in one `__main__`, like a notebook.

Before each cell it makes a copy of itself, which waits on a pipe: a byte there tells it that it is
not needed, the pipe's end that this process has died, and that it is to go on in its place with the
variables as they were. What is printed goes to the standard streams; the rest of what came of a
cell goes to the host as a frame of JSON.
"""

from __future__ import annotations

import os
import select
import sys

from . import _figures, _program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import TextIO

__all__ = ["CELL_NAME", "NEEDED", "announce", "serve"]

CELL_NAME = "<cell {}>"
NEEDED = ("_json", "linecache", "traceback")
"""Modules that a session uses itself, to be imported before its first cell waits for them."""
_LONGEST_VALUE = 50_000


def announce() -> None:
    """Tell the supervisor who we are, by a fork that it will refuse."""
    try:
        child = os.fork()
    except OSError:
        return
    if not child:
        os._exit(0)
    raise OSError("the supervisor let a fork through that it must refuse")


def serve(request: int, results: int, *, copies: bool) -> int:
    """Run the cells that come on `request` until there are no more; returns the exit code."""
    session = _Session(_program.new_main())
    while True:
        source = _read_frame(request)
        if source is None:
            return 0
        spare = None
        if copies:
            _flush()
            try:
                spare = _copy()
            except OSError as error:  # Too little memory, or too many threads.
                why = f"The code was not run: the session could not be copied ({error})."
                _write_frame(results, _json_object({"error": why}))
                continue
            if spare is None:
                continue  # This is the copy, and the cell has come to nothing.
        told = session.run(source)
        _flush()
        if spare is not None:
            _tell(spare[1])  # That it isn't needed.
        _write_frame(results, told)
        if spare is not None:
            _reap(spare[0])  # After the result is told: a large process takes its time to end.


class _Session:
    def __init__(self, main: ModuleType) -> None:
        self._main = main
        self._sources: dict[str, str] = {}
        self._streams = (sys.stdout, sys.stderr)
        self._value: str | None = None
        self._figures = _figures.Figures()
        sys.displayhook = self._display

    def run(self, source: str) -> str:
        """Run one cell and return what came of it, as JSON."""
        filename = CELL_NAME.format(len(self._sources) + 1)
        self._sources[filename] = source
        self._value = error = code = None
        try:
            body, last = _program.compiled(source, filename)
            exec(body, self._main.__dict__)
            if last is not None:
                sys.displayhook(eval(last, self._main.__dict__))
        except SystemExit as stop:
            code = _program.exit_code(stop)
        except BaseException as raised:
            error = _program.formatted(raised, self._sources)
        try:
            self._figures.save()
        except BaseException as raised:
            sys.stderr.write(f"A figure could not be saved: {type(raised).__name__}: {raised}\n")
        # A cell that redirects what is printed, or closes it, does so for itself.
        self._streams = (_opened(self._streams[0], 1), _opened(self._streams[1], 2))
        sys.stdout, sys.stderr = self._streams
        return _json_object(
            {"value": self._value, "error": error, "exit": None if code is None else str(code)}
        )

    def _display(self, value: object) -> None:
        if value is None:
            return
        import builtins

        builtins.__dict__["_"] = value
        text = repr(value)
        if len(text) > _LONGEST_VALUE:
            text = f"{text[:_LONGEST_VALUE]} ... ({len(text) - _LONGEST_VALUE} more characters)"
        self._value = text


def _opened(stream: TextIO, fd: int) -> TextIO:
    if not stream.closed:
        return stream
    return open(fd, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


def _copy() -> tuple[int, int] | None:
    """Make a copy that waits; returns its number and the end to speak to it by.

    Returns None in the copy, when it is to take this process's place.
    """
    ours_read, ours = os.pipe()
    up, up_write = os.pipe()
    child = _quiet_fork()
    if child:
        os.close(ours_read)
        os.close(up_write)
        os.read(up, 1)
        os.close(up)
        return child, ours
    os.close(ours)
    os.close(up)
    announce()
    _tell(up_write)  # Killed meanwhile, it hears nothing, and we take its place below.
    word = os.read(ours_read, 1)
    os.close(ours_read)
    if word:
        os._exit(0)
    return None


def _quiet_fork() -> int:
    """Fork without the warning that threads are not copied: this copy is for the worst case."""
    if "warnings" not in sys.modules:
        return os.fork()
    warnings = sys.modules["warnings"]
    kept = warnings.filters[:]
    try:
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
    finally:
        warnings.filters[:] = kept


def _tell(end: int) -> None:
    """Write a byte to whoever waits for one, if it is still there."""
    try:
        os.write(end, b"x")
    except BrokenPipeError:
        pass  # It is gone already.
    os.close(end)


def _reap(child: int) -> None:
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass


def _read_frame(fd: int) -> str | None:
    head = _read(fd, 8)
    if len(head) < 8:
        return None
    return _read(fd, int.from_bytes(head, "big")).decode("utf-8", "surrogatepass")


def _read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            piece = os.read(fd, count - len(data))
        except BlockingIOError:  # A cell has changed how its descriptors work.
            _wait_for(fd, select.POLLIN)
            continue
        if not piece:
            break
        data += piece
    return data


def _wait_for(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()


def _write_frame(fd: int, text: str) -> None:
    data = text.encode("ascii")
    data = len(data).to_bytes(8, "big") + data
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            _wait_for(fd, select.POLLOUT)


def _json_object(fields: dict[str, str | None]) -> str:
    # The json module would do, and takes longer to import than a cell takes to run.
    from _json import encode_basestring_ascii as quoted

    words = [f"{quoted(k)}: {'null' if v is None else quoted(v)}" for k, v in fields.items()]
    return "{" + ", ".join(words) + "}"
