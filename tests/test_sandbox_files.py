"""What untrusted code leaves behind is looked at by the host, which comes to no harm by it."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.messages import Attachment
from corral.tools.attachments import as_attachments, safe_name, save_attachments
from corral.tools.interpreter_text import program_text
from corral.tools.sandbox import (
    Level,
    MadeFile,
    Permissions,
    PythonPool,
    SandboxResult,
    probe,
    read_untrusted_json,
)
from corral.tools.sandbox._files import changed_files, read_files, seen_files
from corral.tools.sandbox._workspace import remove


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose removal must cope with whatever lies in it."""
    path = tempfile.mkdtemp(prefix="left-")
    yield Path(path)
    remove(path)
    assert not os.path.lexists(path)


def taken(folder: Path) -> dict[str, bytes | None]:
    """What the host takes out of a folder."""
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {file.path: file.data for file in read_files(fd, sorted(seen_files(fd)))}
    finally:
        os.close(fd)
        assert len(os.listdir("/proc/self/fd")) == before


def test_plain_files_are_taken_and_hidden_ones_are_not(folder: Path) -> None:
    (folder / "a").write_bytes(b"\xff")
    (folder / "in").mkdir()
    (folder / "in" / "b").write_text("b")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "c").write_text("c")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "d").write_text("d")
    assert taken(folder) == {"a": b"\xff", "in/b": b"b"}


def test_links_lead_nowhere(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("secret")
    inside = folder / "work"
    inside.mkdir()
    (inside / "file").symlink_to(secret)
    (inside / "folder").symlink_to(folder)
    (inside / "loop").symlink_to("loop")
    (inside / "far").symlink_to("/etc/passwd")
    assert taken(inside) == {}


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    inside = folder / "work"
    (inside / "in").mkdir(parents=True)
    (inside / "a").write_text("a")
    (inside / "in" / "b").write_text("b")
    fd = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    seen = sorted(seen_files(fd))
    (inside / "a").unlink()
    (inside / "a").symlink_to(folder / "secret")
    (inside / "in" / "b").unlink()
    (inside / "in").rmdir()
    (inside / "in").symlink_to(folder)
    (folder / "b").write_text("outside")
    assert [file.data for file in read_files(fd, seen)] == [None, None]
    os.close(fd)


def test_pipes_and_sockets_hold_nobody_up(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        assert taken(folder) == {}
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        names = ["pipe", "socket", "gone", "", "..", "../x", "a\0b"[:1]]
        assert all(file.data is None for file in read_files(fd, names))
        os.close(fd)


def test_a_deep_tree_is_looked_at_only_so_far(folder: Path) -> None:
    # Made from below, since a path of that length has no name.
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(400):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert list(taken(folder).values()) == [b""] * 8


def test_very_many_files_are_not_all_taken(folder: Path) -> None:
    for number in range(9000):
        os.close(os.open(folder / str(number), os.O_CREAT | os.O_WRONLY))
    found = taken(folder)
    assert len(found) <= 1000
    assert sum(data is not None for data in found.values()) == 20


def test_big_files_are_named_and_not_taken(folder: Path) -> None:
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 40)
    for number in range(5):
        with open(folder / f"half-{number}", "wb") as file:
            file.truncate(12 << 20)
    found = taken(folder)
    assert found["sparse"] is None
    assert sum(len(data or b"") for data in found.values()) <= 32 << 20
    assert sum(data is None for data in found.values()) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "closed").write_text("x")
    (folder / "closed").chmod(0)
    assert taken(folder) == {"closed": None}


def test_names_of_every_kind_are_read_back(folder: Path) -> None:
    for name in (
        b"\xff\xfe",
        b"new\nline",
        "h\u00e9".encode(),
        b"x" * 255,
        b" ",
        b"-rf",
        b"a\x1b[31m",
    ):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    found = taken(folder)
    assert {os.fsencode(path): data for path, data in found.items()} == {
        name: name for name in map(os.fsencode, found)
    }
    assert len(found) == 7


def test_only_what_has_changed_comes_again(folder: Path) -> None:
    for name in ("same", "longer", "gone"):
        (folder / name).write_text("x")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    before = seen_files(fd)
    (folder / "longer").write_text("xx")
    (folder / "gone").unlink()
    (folder / "new").write_text("x")
    assert changed_files(before, seen_files(fd)) == ["longer", "new"]
    os.close(fd)


# --- names to save under


@settings(deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_name_becomes_one_that_can_be_saved_anywhere(path: str) -> None:
    name = safe_name(path)
    assert name and name == name.strip(". ") and len(name) <= 101
    assert not set(name) & set('/\\<>:"|?*\0\n\r\t')
    assert name.encode("utf-8")
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("plot.png", "plot.png"),
        ("out/plot 1.png", "out_plot 1.png"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "file"),
        ("", "file"),
        ("con.txt", "_con.txt"),
        ("x" * 300 + ".csv", "x" * 96 + ".csv"),
        ("\udcff\udcfe", "_"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("h\u00e9llo.txt", "h\u00e9llo.txt"),
    ],
)
def test_names_stay_as_they_are_where_they_can(path: str, name: str) -> None:
    assert safe_name(path) == name


def test_attachments_have_names_of_their_own() -> None:
    files = [
        MadeFile(path="a/b.png", data=b"1"),
        MadeFile(path="a_b.png", data=b"2"),
        MadeFile(path="A_B.png", data=b"3"),
        MadeFile(path="big", data=None),
    ]
    made = as_attachments(files)
    assert [(a.name, a.media_type, a.data) for a in made] == [
        ("a_b.png", "image/png", b"1"),
        ("a_b-2.png", "image/png", b"2"),
        ("A_B-3.png", "image/png", b"3"),
    ]
    assert Attachment.model_validate_json(made[0].model_dump_json()) == made[0]


def test_saving_overwrites_nothing_and_follows_nothing(folder: Path) -> None:
    outside = folder / "outside"
    outside.write_text("kept")
    into = folder / "files"
    into.mkdir()
    (into / "b.txt").symlink_to(outside)
    made = as_attachments([MadeFile(path="a.txt", data=b"1"), MadeFile(path="b.txt", data=b"2")])
    # Names that come from elsewhere are not believed.
    evil = Attachment.model_construct(name="../evil", media_type="text/plain", data=b"3")
    first = save_attachments([*made, evil], into)
    again = save_attachments(made, into)
    assert [path.name for path in first] == ["a.txt", "b-2.txt", "_evil"]
    assert [path.name for path in again] == ["a-2.txt", "b-3.txt"]
    assert outside.read_text() == "kept"
    assert all(path.parent == into for path in first + again)
    assert (into / "b-2.txt").read_bytes() == b"2"
    assert all(path.stat().st_mode & 0o077 == 0 for path in first)


# --- what the model is told of files


def test_names_of_files_are_told_as_plain_text_and_not_without_end() -> None:
    files = [MadeFile(path=f"n{number}\x1b[31m\n" + "x" * 300, data=b"") for number in range(50)]
    files.append(MadeFile(path="\udcff", data=None))
    result = SandboxResult(
        stdout="",
        stderr="",
        exit_code=0,
        signal=None,
        timed_out=False,
        truncated=False,
        seconds=0.1,
        level="reduced",
        files=tuple(files),
    )
    text, is_error = program_text(result, Permissions())
    assert not is_error
    assert text.encode("utf-8") and "\x1b" not in text and len(text) < 5000
    assert "and 30 more" in text
    assert len(text.splitlines()) == 2


# --- JSON


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 33 + b"]" * 33,
        b"NaN",
        b"[Infinity]",
        b"[-1e999]",
        b"1" * 5000,
        b"1e" + b"9" * 5000,
        b"\xff",
        b'"\xff"',
        b"",
        b"{",
        b'"' * 100_001,
        b'"\\' * 50_000,
        b"[" + b"0," * 1_000_000 + b"0]",
    ],
)
def test_json_that_could_do_harm_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_untrusted_json(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@settings(deadline=None, database=None)
@given(json_values)
def test_other_json_is_read(value: object) -> None:
    assert read_untrusted_json(json.dumps(value).encode()) == value


@settings(deadline=None, database=None)
@given(st.binary(max_size=200))
def test_reading_json_raises_nothing_but_value_errors(data: bytes) -> None:
    try:
        read_untrusted_json(data)
    except ValueError:
        pass


# --- from real code


HOSTILE = """
import os
os.symlink('/etc/passwd', 'link.txt')
os.symlink('.', 'loop')
os.mkdir('deep'); os.chdir('deep')
for _ in range(100):
    os.mkdir('d'); open('f', 'w').close(); os.chdir('d')
os.chdir(os.environ['HOME'])
with open('sparse', 'wb') as file:
    file.truncate(60_000_000)
for name in (b'\\xff\\xfe.txt', b'\\x1b[31m.txt', 'x' * 255):
    try:
        open(name, 'w').write('x')
    except OSError:
        pass
for number in range(300):
    open(f'many-{number}', 'w').close()
try:
    os.mkfifo('pipe')
except OSError:
    pass
open('a good one.txt', 'w').write('good')
"""


@pytest.mark.parametrize("level", ["namespaces", "reduced"])
async def test_hostile_files_of_a_session_come_back_as_far_as_they_can(level: Level) -> None:
    if level not in probe().levels:
        pytest.skip(f"not on this machine: {probe().problems.get(level)}")
    async with PythonPool(spares=0, level=level) as pool:
        session = await pool.open_session()
        result = await session.run(HOSTILE)
        assert (result.error, result.state) == (None, "kept")
        found = {file.path: file.data for file in result.files}
        assert found["a good one.txt"] == b"good"
        assert found.get("sparse") is None
        assert "link.txt" not in found and "pipe" not in found
        assert len(as_attachments(result.files)) == 20
        assert (await session.run("17 * 23")).value == "391"
        await session.aclose()
