"""Saves the figures that a cell leaves open as PNG files in its working directory.

A figure that the cell has saved by itself is only closed. To know that, matplotlib's figure class
is watched from the moment it is imported.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Figures"]

_WATCHED = "matplotlib.figure"


class Figures:
    """The figures of one session."""

    def __init__(self) -> None:
        """Watch for matplotlib."""
        self._count = 0
        self._folder = os.getcwd()
        self._saved: set[int] = set()
        if _WATCHED in sys.modules:
            self._watch(sys.modules[_WATCHED])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Part of the import system: find as all others do, and then watch what was imported."""
        if name != _WATCHED:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec: Any = finder.find_spec(name, path, target)
            if spec is not None:
                self._watch_when_run(spec.loader)
                return spec
        return None

    def _watch_when_run(self, loader: Any) -> None:
        execute = loader.exec_module

        def execute_and_watch(module: Any) -> None:
            execute(module)
            self._watch(module)

        loader.exec_module = execute_and_watch

    def _watch(self, module: Any) -> None:
        import functools

        original = module.Figure.savefig

        @functools.wraps(original)  # matplotlib looks at the name of what it finds here.
        def savefig(figure: Any, *arguments: Any, **options: Any) -> Any:
            done = original(figure, *arguments, **options)
            self._saved.add(id(figure))
            return done

        module.Figure.savefig = savefig
        # There is no screen, and `show` would say so; what it would show is saved.
        import warnings

        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

    def save(self) -> None:
        """Save and close what is open. Where saving fails the rest is closed all the same."""
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if id(figure) not in self._saved:
                    figure.savefig(self._next_name(), format="png")
        finally:
            self._saved.clear()
            pyplot.close("all")

    def _next_name(self) -> str:
        while True:
            self._count += 1
            path = os.path.join(self._folder, f"figure-{self._count}.png")
            if not os.path.lexists(path):
                return path
