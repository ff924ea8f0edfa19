"""The code interpreter as a notebook: what is there in the next call, and what comes back."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from corral.errors import ConfigError, SandboxUnavailable
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.sandbox import (
    CellResult,
    Level,
    Permissions,
    PythonPool,
    PythonSession,
    probe,
)
from corral.tools.tool import ToolContext, ToolOutput

pytestmark = pytest.mark.skipif(
    not probe().levels, reason=f"no sandbox here: {dict(probe().problems)}"
)


@pytest.fixture(params=["namespaces", "reduced"])
def level(request: pytest.FixtureRequest) -> Level:
    if request.param not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems[request.param]}")
    return request.param


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that nobody else uses meanwhile."""
    with tempfile.TemporaryDirectory(prefix="own-") as made:
        path = Path(made)
        path.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield path


class Notebook:
    """A session whose cells have to keep its variables, unless said otherwise."""

    def __init__(self, session: PythonSession) -> None:
        self.session = session

    async def __call__(self, code: str, *, state: str = "kept") -> CellResult:
        result = await self.session.run(code)
        assert result.state == state, result
        return result

    async def value(self, code: str) -> str | None:
        result = await self(code)
        assert result.error is None, result.error
        return result.value


@pytest.fixture
async def notebook(level: Level, request: pytest.FixtureRequest) -> AsyncIterator[Notebook]:
    limits: dict[str, Any] = getattr(request, "param", {})
    async with PythonPool(Permissions.model_validate(limits), spares=0, level=level) as pool:
        session = await pool.open_session()
        yield Notebook(session)
        await session.aclose()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="data-") as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


def limited(**limits: Any) -> Any:
    return pytest.mark.parametrize("notebook", [limits], indirect=True)


# --- variables


async def test_variables_functions_and_imports_are_there_in_the_next_cell(
    notebook: Notebook,
) -> None:
    await notebook("import math\nx = 17\ndef double(n):\n    return 2 * n")
    assert await notebook.value("double(x) + math.floor(0.5)") == "34"
    assert await notebook.value("_") == "34"


async def test_what_a_cell_set_before_its_exception_is_kept(notebook: Notebook) -> None:
    await notebook("x = 1")
    failed = await notebook("x = 2\n1 / 0")
    assert failed.error is not None and "ZeroDivisionError" in failed.error
    assert await notebook.value("x") == "2"


@limited(wall_seconds=0.4)
async def test_variables_are_as_before_a_cell_that_took_too_long(notebook: Notebook) -> None:
    await notebook("x = [1]")
    stopped = await notebook("x.append(2)\nprint('so far')\nwhile True: pass", state="restored")
    assert (stopped.over, stopped.stdout) == ("wall", "so far\n")
    assert await notebook.value("x") == "[1]"
    # More than once, and from the copy of a copy.
    await notebook("x.append(3)")
    await notebook("x.clear()\nimport time\ntime.sleep(60)", state="restored")
    assert await notebook.value("x") == "[1, 3]"


async def test_variables_are_as_before_a_cell_that_crashed(notebook: Notebook) -> None:
    await notebook("x = [1]")
    crashed = await notebook("import ctypes\nx.append(2)\nctypes.string_at(0)", state="restored")
    assert crashed.signal == 11
    assert await notebook.value("x") == "[1]"
    left = await notebook("import os\nx.append(3)\nos._exit(5)", state="restored")
    assert left.exit_code == 5
    assert await notebook.value("x") == "[1]"


@limited(memory_bytes=256 << 20)
async def test_variables_survive_a_cell_that_wants_too_much_memory(notebook: Notebook) -> None:
    await notebook("x = 1")
    failed = await notebook("data = bytearray(1 << 30)")
    assert failed.error is not None and "MemoryError" in failed.error
    assert await notebook.value("x") == "1"


@limited(cpu_seconds=1)
async def test_processor_time_is_limited_for_each_cell(notebook: Notebook) -> None:
    busy = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass"
    await notebook("x = 1")
    for _ in range(2):  # More than the limit together.
        await notebook(busy.format(0.6))
    raised = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (40, 40))\n"
    stopped = await notebook(raised + busy.format(60), state="restored")
    assert stopped.over == "cpu"
    assert await notebook.value("x") == "1"


async def test_a_cancelled_cell_is_undone_and_the_session_goes_on(notebook: Notebook) -> None:
    await notebook("x = 1")
    with anyio.move_on_after(0.3) as scope:
        await notebook("x = 2\nwhile True: pass")
    assert scope.cancelled_caught
    assert await notebook.value("x") == "1"


async def test_exit_ends_the_cell_alone(notebook: Notebook) -> None:
    await notebook("x = 1")
    assert (await notebook("x = 2\nexit(3)")).exit_code == 3
    said = await notebook("exit('why not')")
    assert (said.exit_code, said.stderr) == (1, "why not\n")
    assert await notebook.value("x") == "2"


async def test_threads_go_on_in_the_next_cell_and_stand_still_between(notebook: Notebook) -> None:
    await notebook(
        "import threading, time\n"
        "count = 0\n"
        "def work():\n"
        "    global count\n"
        "    while True:\n"
        "        count += 1\n"
        "        time.sleep(0.005)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)"
    )
    before = int(await notebook.value("count") or 0)
    await anyio.sleep(0.6)
    between = int(await notebook.value("count") or 0) - before
    assert between < 60
    assert await notebook.value(f"time.sleep(0.1)\ncount > {before + between}") == "True"


async def test_an_executor_of_an_earlier_cell_still_works(notebook: Notebook) -> None:
    await notebook(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\nlist(pool.map(abs, [-1]))"
    )
    assert await notebook.value("list(pool.map(abs, [-2, -3]))") == "[2, 3]"


# --- what a cell shows


async def test_the_value_and_both_streams_come_apart(notebook: Notebook) -> None:
    result = await notebook("import sys\nprint('out')\nprint('err', file=sys.stderr)\n17 * 23")
    assert (result.stdout, result.stderr, result.value) == ("out\n", "err\n", "391")
    assert (await notebook("None")).value is None
    assert (await notebook("x = 1")).value is None


async def test_a_long_value_is_cut(notebook: Notebook) -> None:
    value = await notebook.value("'x' * 1_000_000")
    assert value is not None and len(value) < 60_000 and value.endswith("more characters)")


async def test_a_traceback_names_the_cell_and_its_line_and_shows_no_other_frames(
    notebook: Notebook,
) -> None:
    await notebook("import json\n\ndef read(text):\n    return json.loads(text)")
    error = (await notebook("x = 1\nread('{')")).error
    assert error is not None
    lines = error.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "<cell 2>", line 2, in <module>'
    assert '  File "<cell 1>", line 4, in read' in lines
    assert "    return json.loads(text)" in lines
    assert "decoder.py" not in error and "corral" not in error


async def test_a_mistake_in_the_syntax_changes_nothing(notebook: Notebook) -> None:
    await notebook("x = 1")
    error = (await notebook("x = 2\ny = = 3")).error
    assert error is not None and 'File "<cell 2>", line 2' in error
    assert await notebook.value("x") == "1"


async def test_a_cell_that_redirects_its_output_does_so_for_itself(notebook: Notebook) -> None:
    await notebook("import io, sys\nsys.stdout = io.StringIO()\nprint('lost')")
    assert (await notebook("print('seen')")).stdout == "seen\n"
    await notebook("sys.stdout.close()\nsys.stderr.close()")
    seen = await notebook("print('out')\nprint('err', file=sys.stderr)")
    assert (seen.stdout, seen.stderr) == ("out\n", "err\n")


@limited(output_bytes=1000)
async def test_output_is_cut_by_cell(notebook: Notebook) -> None:
    result = await notebook("print('x' * 100_000)")
    assert (len(result.stdout), result.truncated) == (1000, True)
    result = await notebook("print('y')")
    assert (result.stdout, result.truncated) == ("y\n", False)


async def test_a_cell_that_makes_its_descriptors_impatient_harms_nothing(
    notebook: Notebook,
) -> None:
    await notebook(
        "import os\nx = 1\n"
        "for fd in range(60):\n    try:\n        os.set_blocking(fd, False)\n"
        "    except OSError:\n        pass"
    )
    await anyio.sleep(0.1)
    assert await notebook.value("x") == "1"
    assert await notebook.value("x + 1") == "2"


# --- what a session may not do


async def test_code_in_a_session_starts_no_process(notebook: Notebook) -> None:
    attempts = (
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import threading, os\nfound = []\n"
        "def work():\n"
        "    try:\n        found.append(os.fork())\n"
        "    except PermissionError as error:\n        found.append(error)\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()\nraise found[0]",
    )
    for attempt in attempts:
        error = (await notebook(attempt)).error
        assert error is not None and "PermissionError" in error, attempt


async def test_code_that_garbles_its_results_harms_its_own_session_alone(level: Level) -> None:
    """Whatever is written on every descriptor there is, the host answers for it in good time."""
    attempts = (
        "import os\nfor fd in range(3, 30):\n    try:\n        os.write(fd, {!r})\n"
        "    except OSError:\n        pass",
        "import os\nos.closerange(3, 256)",
        "import os\nos.read = os.write = os.pipe = os.fork = None",
    )
    garbage = (b"\xff" * 8, b"\0" * 8, (5).to_bytes(8, "big") + b"[[[[[", b"x" * 100_000)
    codes = [attempts[0].format(g) for g in garbage] + list(attempts[1:])
    async with PythonPool(Permissions(wall_seconds=2), spares=0, level=level) as pool:
        for code in codes:
            session = await pool.open_session()
            with anyio.fail_after(30):
                await session.run(code)
                if not session.is_over:
                    await session.run("1")
            await session.aclose()
        other = await pool.open_session()
        assert (await other.run("17 * 23")).value == "391"
        await other.aclose()


async def test_a_forged_result_lets_no_second_process_pile_up(level: Level) -> None:
    """Code that reports its own end early may not keep a copy of itself at every cell."""
    forge = (
        "import os\n"
        "told = b'{\"value\": null}'\n"
        "for fd in range(3, 30):\n"
        "    try:\n        os.write(fd, len(told).to_bytes(8, 'big') + told)\n"
        "    except OSError:\n        pass\n"
        "import time\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        if not os.fork():\n            time.sleep(60)\n"
        "    except OSError:\n        pass\n"
        "    time.sleep(0.005)\n"
    )
    async with PythonPool(Permissions(wall_seconds=5), spares=0, level=level) as pool:
        session = await pool.open_session()
        await session.run("1")
        at_most = len(_descendants()) + 1  # The copy that a cell has.
        for _ in range(4):
            if not session.is_over:
                await session.run(forge)
                assert len(_descendants()) <= at_most
                await anyio.sleep(0.1)
        assert len(_descendants()) <= at_most
        await session.aclose()


def _descendants() -> list[int]:
    from corral.tools.sandbox._keeper import descendants

    return descendants(os.getpid())


@limited(processes=4, wall_seconds=1.0)
async def test_a_deadline_ends_daemons_too(notebook: Notebook) -> None:
    if notebook.session._worker.level == "reduced":  # pyright: ignore[reportPrivateUsage]
        pytest.skip("no other processes on this level")
    await notebook("x = 1")
    daemon = (
        "import os, time\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if not os.fork():\n"
        "        while True:\n"
        "            open('beat', 'w').write(str(time.time()))\n"
        "            time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "time.sleep(60)"
    )
    await notebook(daemon, state="restored")
    assert await notebook.value("x") == "1"
    beat = await notebook.value("open('beat').read()")
    assert await notebook.value("import time\ntime.sleep(0.2)\nopen('beat').read()") == beat


async def test_a_session_that_is_closed_leaves_nothing(level: Level) -> None:
    async def used() -> tuple[int, int, list[str]]:
        folders = [n for n in os.listdir(tempfile.gettempdir()) if n.startswith("corral-")]
        return len(os.listdir("/proc/self/fd")), len(_descendants()), sorted(folders)

    before = await used()
    async with PythonPool(Permissions(wall_seconds=0.3), level=level) as pool:
        for code in ("x = 1", "while True: pass", "import os; os._exit(0)"):
            session = await pool.open_session()
            await session.run("open('file', 'w').write('x')")
            await session.run(code)
            await session.aclose()
    assert await used() == before


async def test_a_session_without_cells_ends_by_itself(level: Level) -> None:
    async with PythonPool(spares=0, idle_seconds=0.3, level=level) as pool:
        session = await pool.open_session()
        await session.run("x = 1")
        until = time.monotonic() + 20
        while not session.is_over and time.monotonic() < until:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        assert session.was_idle
        with pytest.raises(SandboxUnavailable):
            await session.run("x")
        await session.aclose()


# --- the tool


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
