"""Tools on files: what they give, and that nothing outside the granted folders is touched."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import anyio
import pytest

from corral import ConfigError, ToolError
from corral.tools.builtin import ListFiles, ReadFile, SearchFiles, WriteFile
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext

CALL = ToolContext(session="s", turn_id="t", call_id="c")
SECRET = "the secret"
_EXCHANGE = 2  # renameat2: swap the two names in one step


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "notes"
    (folder / "old").mkdir(parents=True)
    (folder / "a.txt").write_text("one\ntwo\nThree\n")
    (folder / "old" / "b.md").write_text("deep Two\n")
    return folder


def outside_of(notes: Path) -> dict[str, str]:
    """Every file outside the folder that could have been reached, with its text."""
    files = [Path("/etc/passwd"), *(p for p in notes.parent.rglob("*") if p.is_file())]
    return {str(p): p.read_text() for p in files if not p.is_relative_to(notes)}


def left_over(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.startswith(".corral")]


async def called(tool, **arguments) -> str:
    content = (await tool.call(arguments, CALL)).content
    assert isinstance(content, str)
    return content


async def test_a_file_is_read_whole_or_in_part(notes: Path):
    tool = ReadFile(notes)
    await tool.ready()
    assert await called(tool, path="a.txt") == "one\ntwo\nThree"
    assert await called(tool, path=str(notes / "old" / "b.md")) == "deep Two"
    part = await called(tool, path="./a.txt", first_line=2, lines=1)
    assert part == "two\n[lines 2 to 2 of 3]"
    with pytest.raises(ToolError, match="only 3 lines"):
        await called(tool, path="a.txt", first_line=9)
    (notes / "empty").touch()
    assert await called(tool, path="empty") == ""


async def test_long_files_come_in_pieces_that_a_prompt_can_hold(notes: Path):
    (notes / "long.txt").write_text("".join(f"{i} {'x' * 500}\n" for i in range(1000)))
    text = await called(ReadFile(notes), path="long.txt", lines=1000)
    assert len(text) < 70_000 and text.splitlines()[-1].endswith("of 1000]")
    (notes / "line.txt").write_text("y" * 200_000)
    assert len(await called(ReadFile(notes), path="line.txt")) < 70_000
    (notes / "huge.txt").touch()
    os.truncate(notes / "huge.txt", 9 << 20)
    with pytest.raises(ToolError, match="too much"):
        await called(ReadFile(notes), path="huge.txt")


async def test_what_is_no_text_says_so(notes: Path):
    (notes / "image.png").write_bytes(b"\x89PNG\x00")
    (notes / "latin.txt").write_bytes("grüß".encode("latin-1"))
    for name in ("image.png", "latin.txt"):
        with pytest.raises(ToolError, match="not a text file in UTF-8"):
            await called(ReadFile(notes), path=name)
    (notes / "bom.txt").write_bytes(b"\xef\xbb\xbfhi\x1b[2J")
    assert await called(ReadFile(notes), path="bom.txt") == "hi"


async def test_pipes_and_devices_are_not_waited_for(notes: Path):
    os.mkfifo(notes / "pipe")
    with anyio.fail_after(20):
        with pytest.raises(ToolError, match="no plain file"):
            await called(ReadFile(notes), path="pipe")
        assert "deep Two" in await called(SearchFiles(notes), text="two")
    with pytest.raises(ToolError, match="folder"):
        await called(ReadFile(notes), path="old")
    with pytest.raises(ToolError, match=r"There is no 'none\.txt'"):
        await called(ReadFile(notes), path="none.txt")


OUTSIDE = [
    "../secret.txt",
    "old/../../secret.txt",
    "/etc/passwd",
    "..",
    "../notes-2/x",
    "file-link",
    "folder-link/passwd",
    "folder-link/../secret.txt",
    "chain/secret.txt",
    "/proc/self/cwd",
    "a.txt/../../secret.txt",
    "old/\0/../x",
    "x" * 5000,
    "/",
    "~/x",
]


@pytest.mark.parametrize("path", OUTSIDE)
async def test_no_path_and_no_link_leads_out(notes: Path, path: str):
    (notes / "file-link").symlink_to(notes.parent / "secret.txt")
    (notes / "folder-link").symlink_to("/etc")
    (notes / "chain").symlink_to("..")
    for tool in (ReadFile(notes), ListFiles(notes), SearchFiles(notes)):
        arguments = {"path": path}
        if isinstance(tool, SearchFiles):
            arguments["text"] = "root"
        with pytest.raises(ToolError):
            await called(tool, **arguments)
    before = outside_of(notes)
    for how in ("new", "replace", "append"):
        try:
            await called(WriteFile(notes), path=path, text="x", how=how)
        except ToolError:
            pass
    assert outside_of(notes) == before


async def test_lists_and_searches_do_not_follow_links(notes: Path):
    (notes / "link").symlink_to(notes.parent)
    (notes / "secret-link.txt").symlink_to(notes.parent / "secret.txt")
    listed = await called(ListFiles(notes))
    assert listed.splitlines()[:2] == ["a.txt  14 bytes", "link  (a link or no plain file)"]
    assert "secret.txt" not in await called(ListFiles(notes), pattern="*.txt")
    assert await called(SearchFiles(notes), text=SECRET) == "(not found)"


async def test_files_are_found_by_name_and_by_what_is_in_them(notes: Path):
    assert await called(ListFiles(notes), pattern="*.md") == "old/b.md  9 bytes"
    assert await called(ListFiles(notes), path="old") == "b.md  9 bytes"
    assert await called(ListFiles(notes), pattern="*.nope") == "(nothing)"
    found = await called(SearchFiles(notes), text="TWO")
    assert found.splitlines() == ["a.txt:2: two", "old/b.md:1: deep Two"]
    assert await called(SearchFiles(notes), text="two", pattern="*.md") == "old/b.md:1: deep Two"
    for i in range(150):
        (notes / f"n{i}.log").write_text("needle\n" * 3)
    assert "more than 100 lines" in await called(SearchFiles(notes), text="needle")
    (notes / "bad\x1b[31m.log").write_text("esc\n")
    assert "\x1b" not in await called(SearchFiles(notes), text="esc") + await called(
        ListFiles(notes)
    )


async def test_several_folders_go_by_their_names(notes: Path):
    other = notes.parent / "outside"
    (other / "c.txt").write_text("two too")
    tool = ReadFile(notes, other)
    assert await called(tool, path="outside/c.txt") == "two too"
    assert await called(ListFiles(notes, other)) == "notes/\noutside/"
    found = await called(SearchFiles(notes, other), text="two")
    assert found.splitlines()[-1] == "outside/c.txt:1: two too"
    with pytest.raises(ToolError, match="none of the folders: notes, outside"):
        await called(tool, path="c.txt")


async def test_a_file_is_made_replaced_and_added_to(notes: Path):
    tool = WriteFile(notes)
    await tool.ready()
    assert (
        await called(tool, path="new/deep/x.txt", text="1\n") == "new/deep/x.txt now has 2 bytes."
    )
    with pytest.raises(ToolError, match="there already"):
        await called(tool, path="a.txt", text="lost")
    assert (notes / "a.txt").read_text().startswith("one")
    (notes / "a.txt").chmod(0o640)
    await called(tool, path="a.txt", text="fresh", how="replace")
    await called(tool, path="a.txt", text="er", how="append")
    assert (notes / "a.txt").read_text() == "fresher"
    assert (notes / "a.txt").stat().st_mode & 0o777 == 0o640
    for path in ("", ".", "old", "new/"):
        with pytest.raises(ToolError):
            await called(tool, path=path, text="x", how="replace")
    with pytest.raises(ToolError, match="more than"):
        await called(tool, path="big", text="x" * (2 << 20))
    with pytest.raises(ToolError, match="surrogate"):
        await called(tool, path="odd", text="\ud800")
    assert left_over(notes) == []


async def test_texts_that_are_added_at_once_are_all_kept(notes: Path):
    tool = WriteFile(notes)
    async with anyio.create_task_group() as tasks:
        for i in range(30):
            tasks.start_soon(lambda i=i: called(tool, path="log", text=f"{i}\n", how="append"))
    assert sorted(map(int, (notes / "log").read_text().split())) == list(range(30))


async def test_a_reader_sees_the_old_text_or_the_new_and_nothing_between(notes: Path):
    tool = WriteFile(notes)
    texts = ["a" * 300_000, "b" * 300_000]
    await called(tool, path="x", text=texts[0])
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add((notes / "x").read_text())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for i in range(1, 15):
            await called(tool, path="x", text=texts[i % 2], how="replace")
    finally:
        done.set()
        watcher.join()
    assert seen <= set(texts)


async def test_a_folder_swapped_for_a_link_in_mid_flight_leads_nowhere(notes: Path):
    """Somebody swaps a folder for a link to the outside, over and over, as fast as they can."""
    outside = notes.parent / "outside"
    (outside / "x.txt").write_text(SECRET)
    (notes / "d").mkdir()
    (notes / "d" / "x.txt").write_text("harmless")
    (notes / "link").symlink_to(outside)
    done = threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)
    names = [os.fsencode(notes / name) for name in ("d", "link")]

    def swap() -> None:
        while not done.is_set():
            assert libc.renameat2(-100, names[0], -100, names[1], _EXCHANGE) == 0

    swapper = threading.Thread(target=swap)
    swapper.start()
    reads: set[str] = set()
    try:
        for i in range(100):
            try:
                reads.add(await called(ReadFile(notes), path="d/x.txt"))
            except ToolError:
                pass
            try:
                await called(WriteFile(notes), path=f"d/made-{i}", text="x")
            except ToolError:
                pass
            assert SECRET not in await called(SearchFiles(notes), text=SECRET)
    finally:
        done.set()
        swapper.join()
    assert reads == {"harmless"}
    assert os.listdir(outside) == ["x.txt"]


async def test_grants_are_narrowed_and_never_widened(notes: Path):
    old = notes / "old"
    narrowed = ReadFile(notes).narrowed(Permissions(read=(old,)))
    assert await called(narrowed, path="b.md") == "deep Two"
    with pytest.raises(ToolError):
        await called(narrowed, path=str(notes / "a.txt"))
    nothing = WriteFile(notes).narrowed(Permissions(read=(notes,)))
    with pytest.raises(ConfigError, match="no folder"):
        await nothing.ready()
    with pytest.raises(ToolError):
        await called(nothing, path="x", text="x")


async def test_a_folder_that_can_not_be_granted_says_so(notes: Path):
    with pytest.raises(ConfigError, match="is no folder"):
        await ReadFile(notes / "none").ready()
    with pytest.raises(ConfigError, match="system"):
        ReadFile("/proc/self")
    (notes / "old" / "notes").mkdir()
    with pytest.raises(ConfigError, match="Two folders"):
        await ReadFile(notes, notes / "old" / "notes").ready()
    with pytest.raises(ConfigError, match="no folder"):
        await ReadFile().ready()
