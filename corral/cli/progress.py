"""A progress line on standard error: a bar on a terminal, a line per task elsewhere."""

from __future__ import annotations

import sys
import time

import click

__all__ = ["ProgressLine"]

_WIDTH = 30
_MIB = 1024 * 1024


class ProgressLine:
    """Fulfils `corral.model_runtime.opening.Progress`."""

    def __init__(self) -> None:
        """Show nothing until called."""
        self._what = ""
        self._drawn = 0.0
        self._tty = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes (or, where they are few, steps) are done."""
        if what != self._what:
            self.close()
            self._what = what
            if not self._tty:
                click.echo(what, err=True)
        finished = total is not None and done >= total
        if not self._tty or (time.monotonic() - self._drawn < 0.1 and not finished):
            return
        self._drawn = time.monotonic()
        if total:
            filled = min(_WIDTH, _WIDTH * done // total)
            bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}]"
            size = f" {done / _MIB:.1f}/{total / _MIB:.1f} MiB" if total > _MIB else ""
            shown = f"{what} {bar}{size}"
        else:
            shown = f"{what} {done / _MIB:.1f} MiB"
        click.echo(f"\r{shown}\033[K", nl=False, err=True)

    def close(self) -> None:
        """End the line."""
        if self._what and self._tty:
            click.echo("\r\033[K", nl=False, err=True)
        self._what = ""
