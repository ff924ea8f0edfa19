"""A function's source with all that it needs from around it, as a program of its own.

What a function uses by a global name is written out in front of it: imports as imports, plain
constants as literals, functions and classes of the same file as their source, and so on with what
those use. So the program needs none of the user's files, and gets none to read. What can't be
written out (an open file, a closure's variable) is refused when the tool is made.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import symtable
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from corral.errors import ConfigError, ToolError, ToolRetry
from corral.tools.function import FunctionTool

__all__ = ["write_out"]

_LONGEST_CONSTANT = 64 << 10


def write_out(function: Callable[..., Any], *, tool: str) -> str:
    """The source of a program that defines `function` under its own name.

    It takes `ToolError` and `ToolRetry` for granted: whoever runs the program defines them.

    Raises:
        ConfigError: The function, or something that it uses, can't be sent; says what, and what to
            do.
    """
    if not isinstance(function, FunctionType):
        raise _refused(tool, f"it is a {type(function).__name__}, not a function with a def")
    if function.__name__ == "<lambda>":
        raise _refused(tool, "it is a lambda")
    if inspect.iscoroutinefunction(function):
        raise _refused(tool, "it is async, and what runs in the sandbox waits for nothing")
    writer = _Writer(tool)
    writer.add_function(function, function.__name__)
    return "from __future__ import annotations\n" + "\n".join(writer.parts) + "\n"


class _Writer:
    """Writes definitions, each after those that it needs."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._done: dict[str, object] = {}
        self.parts: list[str] = []

    def add_function(self, function: FunctionType, name: str) -> None:
        if function.__closure__:
            free = ", ".join(repr(name) for name in function.__code__.co_freevars)
            raise _refused(self._tool, f"{function.__name__!r} uses {free} of the function around")
        tree = self._definition(function)
        if not isinstance(tree, ast.FunctionDef):
            raise _refused(self._tool, f"{function.__name__!r} has no def of its own")
        if _is_tool(tree):
            tree.decorator_list = []
        self._done[name] = function
        self._add(tree, name, cast("dict[str, object]", function.__globals__))

    def _add_class(self, kind: type, name: str, module: ModuleType) -> None:
        tree = self._definition(kind)
        self._done[name] = kind
        self._add(tree, name, vars(module))

    def _add(self, tree: ast.stmt, name: str, around: dict[str, object]) -> None:
        own = str(getattr(tree, "name", name))
        for inner in ast.walk(tree):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                _strip_annotations(inner)
        source = ast.unparse(tree)
        for used in sorted(_globals_of(source) - {own}):
            self._need(used, around)
        self.parts.append(source if own == name else f"{source}\n{name} = {own}")

    def _need(self, name: str, around: dict[str, object]) -> None:
        """See that a global name means in the program what it means here."""
        if name not in around:
            if not hasattr(builtins, name):
                raise _refused(self._tool, f"it uses {name!r}, which is defined nowhere")
            return
        value = around[name]
        if name in self._done:
            if self._done[name] is not value:
                raise _refused(self._tool, f"it uses two things called {name!r}")
            return
        if isinstance(value, FunctionTool):
            value = cast("Any", value)._function
        if value is ToolError or value is ToolRetry:
            self._alias(name, value.__name__, value)
        elif isinstance(value, ModuleType):
            self._import(f"import {value.__name__} as {name}", name, value)
        elif self._is_near(value, around) and isinstance(value, FunctionType):
            self.add_function(value, name)
        elif self._is_near(value, around) and isinstance(value, type):
            self._add_class(value, name, sys.modules[value.__module__])
        elif (found := _importable(value)) is not None:
            self._import(f"from {found[0]} import {found[1]} as {name}", name, value)
        elif (literal := _literal(value)) is not None:
            self._import(f"{name} = {literal}", name, value)
        else:
            kind = type(value).__name__
            raise _refused(self._tool, f"it uses {name!r}, a {kind}, which can't be sent there")

    def _alias(self, name: str, standard: str, value: object) -> None:
        self._done[name] = value
        if name != standard:
            self.parts.append(f"{name} = {standard}")

    def _import(self, statement: str, name: str, value: object) -> None:
        self._done[name] = value
        self.parts.append(statement)

    @staticmethod
    def _is_near(value: object, around: dict[str, object]) -> bool:
        """Whether something was defined in the file of the function that uses it."""
        return getattr(value, "__module__", None) == around.get("__name__")

    def _definition(self, thing: FunctionType | type) -> ast.stmt:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
        except (OSError, TypeError, SyntaxError, IndentationError) as error:
            raise _refused(
                self._tool, f"the source of {thing.__name__!r} can't be read ({error})"
            ) from error
        return tree.body[0]


def _is_tool(tree: ast.FunctionDef) -> bool:
    """Whether its decorators may go: they make the tool, and aren't part of what it does."""
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for decorator in tree.decorator_list
        for node in [decorator.func if isinstance(decorator, ast.Call) else decorator]
        if isinstance(node, ast.Name | ast.Attribute)
    }
    return names == {"tool"}


def _strip_annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    function.returns = None
    arguments = function.args
    for argument in (
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        *(each for each in (arguments.vararg, arguments.kwarg) if each is not None),
    ):
        argument.annotation = None


def _globals_of(source: str) -> set[str]:
    """The global names that a definition uses: in its body, its defaults and its decorators."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if table.get_type() == "module":
                if symbol.is_referenced():
                    yield symbol.get_name()
            elif symbol.is_global() and symbol.is_referenced():
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return set(walk(symtable.symtable(source, "<tool>", "exec")))


def _importable(value: object) -> tuple[str, str] | None:
    """The module and the name by which something can be imported."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    if isinstance(value, CodeType) or "." in name:
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is value else None


def _literal(value: object) -> str | None:
    """A constant as Python writes it, if it comes back from that as what it is."""
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str]", value)
        return f"__import__('re').compile({pattern.pattern!r}, {pattern.flags})"
    try:
        written = repr(value)
        if len(written) <= _LONGEST_CONSTANT and ast.literal_eval(written) == value:
            return written
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return None


def _refused(tool: str, why: str) -> ConfigError:
    return ConfigError(
        f"The tool {tool!r} can't be isolated: {why}. Write it as a plain function that uses only "
        "its arguments, imports, constants, and functions of its own file."
    )
