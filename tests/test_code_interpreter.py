"""What the model is shown of a program that it wrote."""

from __future__ import annotations

from typing import Any

import pytest
from sandbox_fixtures import confined

from corral.tools.code_interpreter import CODE_INTERPRETER, interpret
from corral.tools.sandbox import Permissions

pytestmark = confined


async def shown(code: str, **limits: Any) -> tuple[str, bool]:
    return await interpret(code, permissions=Permissions(**limits))


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("17 * 23", "391"),
        ("print('a\\n\\nb\\n')", "a\n\nb\n"),
        ("x = 1", "(no output)"),
        ("```python\nprint(1)\n```", "1"),
        ("```\nprint(1)\n```\n", "1"),
        ("\n```py\nfor i in range(2):\n    print(i)```", "0\n1"),
        ("<|python_tag|>print(1)", "1"),
        ("%matplotlib inline\nprint(1)", "1"),
        ("print('```not a fence```')", "```not a fence```"),
        ("print('h\u00e9llo \U0001f999')", "h\u00e9llo \U0001f999"),
        ("import sys; print('beside', file=sys.stderr); print('out')", "out\n[stderr]\nbeside"),
        ("exit()", "(no output)"),
    ],
)
async def test_what_was_printed_is_shown(code: str, content: str) -> None:
    assert await shown(code) == (content, False)


async def test_an_error_is_shown_below_what_was_printed() -> None:
    content, is_error = await shown("print('first')\ndef f():\n    return 1 / 0\nf()")
    assert is_error
    lines = content.splitlines()
    assert lines[:3] == [
        "first",
        "Traceback (most recent call last):",
        '  File "<code>", line 4, in <module>',
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "corral" not in content


async def test_of_a_chain_of_errors_the_last_is_shown() -> None:
    code = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('last')"
    content, is_error = await shown(code)
    assert is_error
    assert content.startswith("Traceback (most recent call last):")
    assert content.endswith("ValueError: last") and "ZeroDivisionError" not in content


async def test_a_mistake_in_the_syntax_is_shown_where_it_is() -> None:
    content, is_error = await shown("print('a')\nprint('b'")
    assert is_error
    assert content.startswith('  File "<code>", line 2\n')
    assert content.endswith("SyntaxError: '(' was never closed")


async def test_a_program_that_takes_too_long_is_told_the_limit() -> None:
    content, is_error = await shown(
        "print('so far')\nimport time; time.sleep(60)", wall_seconds=0.5
    )
    assert is_error
    assert content == "so far\nThe program was stopped: it ran longer than 0.5 seconds."


async def test_a_program_that_works_too_much_is_told_the_limit() -> None:
    content, is_error = await shown("while True: pass", cpu_seconds=1, wall_seconds=60)
    assert is_error
    assert content == "The program was stopped: it used more than 1 seconds of processor time."


async def test_a_program_that_wants_too_much_memory_is_told() -> None:
    content, is_error = await shown("x = bytearray(1 << 33)")
    assert is_error and content.endswith("MemoryError")


async def test_a_crash_is_told() -> None:
    content, is_error = await shown("import ctypes; ctypes.string_at(0)")
    assert is_error
    assert "SIGSEGV" in content


async def test_an_exit_code_is_told() -> None:
    assert await shown("exit(3)") == ("The program ended with exit code 3.", True)
    assert await shown("exit('why not')") == ("why not", True)


async def test_long_output_is_marked_as_cut() -> None:
    content, is_error = await shown("print('x' * 5000)", output_bytes=1000)
    assert not is_error
    assert content == "x" * 1000 + "\n[Output cut: only the first 1000 bytes were kept.]"


async def test_nothing_reaches_a_terminal_but_text() -> None:
    code = (
        "print('a\\x1b[31mred\\x1b[0m\\tb\\x07\\x00c')\n"
        "print('\\x1b]0;title\\x07kept\\rgone\\x9b2J\\u202e')\n"
        "print('\\x1b]8;;http://x\\x1b\\\\link\\x1b]8;;\\x1b\\\\')"
    )
    assert await shown(code) == ("ared\tbc\nkeptgone2J\nlink", False)


async def test_control_characters_are_taken_from_errors_too() -> None:
    content, is_error = await shown("raise ValueError('\\x1b[2J\\x07here')")
    assert is_error
    assert content.endswith("ValueError: here")


async def test_a_program_that_is_not_text_is_told_so() -> None:
    content, is_error = await shown("x = '\ud800'")
    assert is_error and "Error" in content
    content, is_error = await shown("x = 1\0")
    assert is_error and "Error" in content


def test_the_model_is_shown_one_argument() -> None:
    assert CODE_INTERPRETER.kind == "code_interpreter"
    assert CODE_INTERPRETER.parameters["required"] == ["code"]
