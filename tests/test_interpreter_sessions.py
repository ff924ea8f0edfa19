"""The code interpreter in a conversation: what calls share, what comes back, who makes room."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from sandbox_fixtures import confined

from corral.errors import ConfigError
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.sandbox import (
    Level,
    Permissions,
    PythonPool,
)
from corral.tools.tool import ToolContext, ToolOutput

pytestmark = [confined, pytest.mark.usefixtures("temporary")]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="data-") as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


class Chat:
    """A conversation that calls the tool."""

    def __init__(self, tool: CodeInterpreter, session: str = "one") -> None:
        self.tool = tool
        self.session = session

    async def __call__(self, code: str) -> ToolOutput:
        context = ToolContext(session=self.session, turn_id="t", call_id="c")
        return await self.tool.call({"code": code}, context)

    async def text(self, code: str) -> str:
        output = await self(code)
        assert isinstance(output.content, str)
        return output.content


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    tool = CodeInterpreter(Permissions(wall_seconds=30))
    yield Chat(tool)
    await tool.aclose()


async def test_each_conversation_has_variables_of_its_own(chat: Chat) -> None:
    other = Chat(chat.tool, "two")
    await chat("x = 1")
    await other("x = 2")
    assert (await chat.text("x"), await other.text("x")) == ("1", "2")


async def test_calls_of_one_message_run_one_after_another(chat: Chat) -> None:
    await chat("x = 0")
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(chat, "y = x\nimport time; time.sleep(0.02)\nx = y + 1")
    assert await chat.text("x") == "5"


def test_event_loops_of_several_threads_share_a_session() -> None:
    tool = CodeInterpreter(sessions=2)
    chat = Chat(tool)
    anyio.run(chat, "x = 0")
    said: list[str] = []

    def work() -> None:
        said.append(anyio.run(chat.text, "x += 1\nx"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(said) == ["1", "2", "3", "4"]
    anyio.run(tool.aclose)


async def test_the_model_is_told_that_a_stopped_call_was_undone() -> None:
    tool = CodeInterpreter(Permissions(wall_seconds=0.5))
    chat = Chat(tool)
    await chat("x = 1")
    output = await chat("x = 2\nprint('so far')\nwhile True: pass")
    assert output.is_error
    assert output.content == (
        "so far\nThe program was stopped: it ran longer than 0.5 seconds.\n"
        "The variables are as they were before this code."
    )
    assert await chat.text("x") == "1"
    await tool.aclose()


async def test_without_state_each_call_starts_from_nothing() -> None:
    tool = CodeInterpreter(stateful=False)
    chat = Chat(tool)
    output = await chat("x = 1\nopen('made.txt', 'w').write('here')")
    assert [(a.name, a.data) for a in output.attachments] == [("made.txt", b"here")]
    assert "NameError" in await chat.text("x")
    assert await chat.text("import os; os.listdir('.')") == "[]"
    await tool.aclose()


async def test_the_least_recently_used_session_makes_room(chat: Chat) -> None:
    tool = CodeInterpreter(sessions=2)
    one, two, three = (Chat(tool, name) for name in ("one", "two", "three"))
    await one("x = 1")
    await two("x = 2")
    await one("x")
    await three("x = 3")
    assert await one.text("x") == "1"
    gone = await two.text("x")
    assert "NameError" in gone and "made room for others" in gone
    await tool.aclose()


async def test_more_conversations_at_once_than_sessions_take_turns() -> None:
    tool = CodeInterpreter(sessions=2)

    async def one(number: int) -> None:
        assert await Chat(tool, str(number)).text(f"{number} * 2") == str(number * 2)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(one, number)
    await tool.aclose()


async def test_an_idle_session_is_ended_and_the_model_told() -> None:
    tool = CodeInterpreter(idle_seconds=0.3)
    chat = Chat(tool)
    await chat("x = 1")
    await anyio.sleep(1.5)
    text = await chat.text("x")
    assert "NameError" in text and "was idle for too long" in text
    assert "session" not in await chat.text("1")
    await tool.aclose()


async def test_a_closed_interpreter_begins_anew(chat: Chat) -> None:
    await chat("x = 1")
    await chat.tool.aclose()
    await chat.tool.aclose()
    assert "NameError" in await chat.text("x")


async def test_narrowed_it_may_do_no_more_than_both_allow(folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    ceiling = Permissions(wall_seconds=0.5)
    tool = CodeInterpreter(Permissions(wall_seconds=60), data=folder).narrowed(ceiling)
    chat = Chat(tool)
    assert "longer than 0.5 seconds" in await chat.text("while True: pass")
    assert "FileNotFoundError" in await chat.text("open('data/a.txt')")
    await tool.aclose()


async def test_files_come_back_and_stay(chat: Chat) -> None:
    output = await chat(
        "import os\nos.mkdir('out')\n"
        "open('a b.csv', 'w').write('1,2')\nopen('out/b.bin', 'wb').write(b'\\xff\\0')\n"
        "open('.hidden', 'w').write('x')\n'done'"
    )
    assert output.content == "'done'\n[Files written: a b.csv, out/b.bin]"
    assert [(a.name, a.media_type, a.data) for a in output.attachments] == [
        ("a b.csv", "text/csv", b"1,2"),
        ("out_b.bin", "application/octet-stream", b"\xff\0"),
    ]
    again = await chat("open('a b.csv').read()")
    assert (again.content, again.attachments) == ("'1,2'", ())
    changed = await chat("open('a b.csv', 'a').write('\\n3,4')")
    assert [a.data for a in changed.attachments] == [b"1,2\n3,4"]


async def test_files_of_a_stopped_call_come_back_too() -> None:
    tool = CodeInterpreter(Permissions(wall_seconds=0.5))
    output = await Chat(tool)("open('a.txt', 'w').write('x')\nwhile True: pass")
    assert [a.name for a in output.attachments] == ["a.txt"]
    await tool.aclose()


async def test_open_figures_come_back_as_pictures(chat: Chat) -> None:
    pytest.importorskip("matplotlib")
    output = await chat(
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2])\nplt.show()\nplt.figure()\nplt.bar([1], [2])"
    )
    assert not output.is_error, output.content
    assert [(a.name, a.media_type) for a in output.attachments] == [
        ("figure-1.png", "image/png"),
        ("figure-2.png", "image/png"),
    ]
    assert all(a.data.startswith(b"\x89PNG") for a in output.attachments)
    assert "figure-1.png, figure-2.png" in str(output.content) and "[stderr]" not in str(
        output.content
    )
    # One that the code saves by itself comes once, and none are left open.
    saved = await chat("plt.plot([1])\nplt.savefig('mine.png', dpi=40)")
    assert [a.name for a in saved.attachments] == ["mine.png"]
    assert await chat.text("plt.get_fignums()") == "[]"


async def test_the_data_stack_works_within_the_default_limits(chat: Chat) -> None:
    for name in ("numpy", "pandas"):
        pytest.importorskip(name)
    await chat("import numpy as np, pandas as pd\ndf = pd.DataFrame({'a': np.arange(4.0)})")
    assert await chat.text("float(np.linalg.norm(df['a'] @ np.ones(4)))") == "6.0"
    assert await chat.text("df.describe().loc['mean', 'a'].item()") == "1.5"


async def test_a_folder_of_the_users_can_be_read_and_not_written(
    folder: Path, level: Level
) -> None:
    (folder / "sales.csv").write_text("a,b\n1,2\n")
    async with PythonPool(data=folder, spares=0, level=level) as pool:
        session = await pool.open_session()
        assert (await session.run("open('data/sales.csv').read()")).value == repr("a,b\n1,2\n")
        if level == "namespaces":
            assert (await session.run("import os; os.listdir('/data')")).value == "['sales.csv']"
        for attempt in (
            "open('data/new', 'w')",
            "open('data/sales.csv', 'a')",
            "import os; os.unlink('data/sales.csv')",
        ):
            error = (await session.run(attempt)).error
            assert error is not None and ("Read-only" in error or "Permission" in error)
        await session.aclose()
    assert os.listdir(folder) == ["sales.csv"]


async def test_the_model_is_told_of_the_users_files(folder: Path) -> None:
    (folder / "sales.csv").write_text("a,b\n1,2\n")
    tool = CodeInterpreter(data=folder)
    assert "sales.csv" in tool.spec.description
    chat = Chat(tool)
    told = "[The user's files are in the folder data, to be read: sales.csv.]"
    assert await chat.text("1") == f"1\n{told}"
    assert await chat.text("2") == "2"
    assert (await chat.text("open('sales.csv')")).endswith(told)
    output = await chat("open('data/sales.csv').read()")
    assert (output.content, output.attachments) == (repr("a,b\n1,2\n"), ())
    await tool.aclose()


@pytest.mark.parametrize("wrong", ["/", "~", "/nothing/there", "/etc/passwd"])
def test_a_data_folder_that_can_not_be_granted_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        CodeInterpreter(data=wrong)


async def test_much_output_reaches_the_model_cut_in_the_middle(chat: Chat) -> None:
    text = await chat.text(
        "print('start')\nfor n in range(100_000): print(n)\nraise ValueError('end')"
    )
    assert len(text) < 21_000
    assert text.startswith("start") and text.endswith("ValueError: end")
    assert "characters left out" in text


async def test_a_first_call_finds_a_worker_ready() -> None:
    tool = CodeInterpreter()
    await tool.ready()
    await anyio.sleep(1.0)
    began = time.monotonic()
    assert await Chat(tool).text("17 * 23") == "391"
    assert time.monotonic() - began < 5
    await tool.aclose()
