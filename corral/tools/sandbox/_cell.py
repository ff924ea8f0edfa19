"""The host's side of one cell of a session."""

from __future__ import annotations

import time

from corral.tools.sandbox._exchange import Exchange
from corral.tools.sandbox._words import KILL
from corral.tools.sandbox._worker import KILL_SECONDS, Worker
from corral.tools.sandbox.result import CellResult, CellState, Limit, MadeFile
from corral.tools.sandbox.untrusted_json import read_untrusted_json

__all__ = ["RESULT_BYTES", "Cell"]

RESULT_BYTES = 1 << 20
_END_SECONDS = 0.5
_LIMITS: dict[str, Limit] = {"memory": "memory", "disk": "disk", "files": "files", "cpu": "cpu"}


class Cell:
    """One cell, from when it is sent to when it is told what became of it."""

    def __init__(self, worker: Worker, exchange: Exchange, *, wall_seconds: float) -> None:
        """Take part in `exchange`; what the supervisor said before now is of earlier cells."""
        self._worker = worker
        self._exchange = exchange
        self._told_before = len(worker.lines)
        holders = [line.split()[1] for line in worker.lines if line.startswith("holder ")]
        self._holder = holders[-1] if holders else "0"
        self._wall = wall_seconds
        self._began = time.monotonic()
        self._ended = self._began
        self._out_of_time = False
        self._told: dict[str, str | None] = {}

    def serve(self) -> CellState:
        """Serve the pipes until the cell is over, one way or another."""
        until = self._began + self._wall
        killed = False
        while True:
            state = self._state()
            if state is not None:
                self._ended = time.monotonic()
                return state
            stop = self._exchange.woken or self._garbled
            if not killed and (stop or time.monotonic() >= until):
                self._out_of_time = not stop
                self._worker.send(KILL)
                killed, until = True, time.monotonic() + KILL_SECONDS
            elif time.monotonic() >= until:
                return "lost"
            self._exchange.step(until)

    def _state(self) -> CellState | None:
        if self._worker.gone:
            return "lost"
        if any(line in ("lost", "idle") for line in self._lines):
            self._await_end()
            return "lost"
        if "next" in self._lines:
            self._await_end()
            return "restored"
        return "kept" if self._read_result() else None

    @property
    def _lines(self) -> list[str]:
        return self._worker.lines[self._told_before :]

    @property
    def _garbled(self) -> bool:
        """Whether the code has written to where only its result should be."""
        length = int.from_bytes(self._exchange.results.kept[:8], "big")
        return length > RESULT_BYTES or bool(self._exchange.results.dropped)

    def _read_result(self) -> bool:
        kept = self._exchange.results.kept
        length = int.from_bytes(kept[:8], "big")
        if len(kept) < 8 or self._garbled or len(kept) < 8 + length:
            return False
        try:
            told = read_untrusted_json(bytes(kept[8 : 8 + length]), max_depth=1)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            told = {"error": "The cell's result could not be read."}
        self._told = {key: value if isinstance(value, str) else None for key, value in told.items()}
        return True

    def _await_end(self) -> None:
        """Wait for how the process ended, which another process tells than that it did."""
        until = time.monotonic() + _END_SECONDS
        while self._end_words() is None and time.monotonic() < until and not self._worker.gone:
            self._exchange.step(until)

    def _end_words(self) -> list[str] | None:
        for line in reversed(self._lines):
            words = line.split()
            if words[:1] == ["end"] and self._holder in (words[1], "0"):
                return words[2:]
        return None

    def result(self, state: CellState, files: tuple[MadeFile, ...]) -> CellResult:
        """What came of it."""
        over: Limit | None = "wall" if self._out_of_time else None
        code = number = None
        for line in self._lines:
            if line.startswith("over "):
                over = _LIMITS[line.split()[1]]
        if state == "kept":
            said = self._told.get("exit")
            code = int(said) if said and said.isdecimal() and len(said) < 4 else None
        else:
            end = self._end_words() or ["signal", "9"]
            code = int(end[1]) if end[0] == "exit" else None
            number = int(end[1]) if end[0] == "signal" else None
        exchange = self._exchange
        return CellResult(
            stdout=exchange.out.text,
            stderr=exchange.err.text,
            value=self._told.get("value"),
            error=self._told.get("error"),
            exit_code=code,
            signal=number,
            over=over,
            truncated=bool(exchange.out.dropped or exchange.err.dropped),
            state=state,
            seconds=self._ended - self._began,
            level=self._worker.level,
            files=files,
        )
