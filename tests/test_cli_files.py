"""Files that tools make, on the command line: kept, shown by their paths, and forgotten."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from corral.cli.files import files_of
from corral.cli.sessions import forget_session
from corral.cli.show import Screen
from corral.events import CallFinished, TurnStarted
from corral.memory.sqlite import SQLiteStore
from corral.messages import Attachment, ToolResult, UserMessage


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def show_files(session: str, *names: str, memory: str | Path | None = None) -> None:
    screen = Screen(memory=memory)
    screen.show(TurnStarted(turn_id="t", session=session, agent="a", model="m"))
    content = base64.b64encode(b"content")
    screen.show(
        CallFinished(
            result=ToolResult(call_id="c", name="code_interpreter", content="done"),
            seconds=0.1,
            attachments=tuple(
                Attachment(name=name, media_type="text/plain", data=content) for name in names
            ),
        )
    )


async def remember(session: str, memory: Path) -> None:
    store = await SQLiteStore.open(memory)
    async with store.turn(session, agent="a", model="m", shielded=False) as turn:
        await turn.append(UserMessage(content="hello"))
        await turn.finish("answered", reason=None)
    await store.aclose()


def test_files_are_kept_below_the_users_data_and_shown_by_path(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_files("alice", "plot.png", "a.csv")
    folder = data / "files" / "alice"
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "plot.png"]
    assert (folder / "a.csv").read_bytes() == b"content"
    shown = capsys.readouterr().err
    assert f"file   {folder / 'plot.png'}" in shown and f"file   {folder / 'a.csv'}" in shown


def test_a_name_from_elsewhere_stays_in_the_folder(data: Path) -> None:
    show_files("../../alice", "../../evil", "a/b")
    (folder,) = (data / "files").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["_.._evil", "a_b"]


def test_sessions_whose_names_look_alike_as_folders_share_none(data: Path) -> None:
    keys = ["a/b", "a_b", "a:b", "a" * 200, "a" * 199, "..", "."]
    assert len({files_of(key, None) for key in keys}) == len(keys)
    assert all(files_of(key, None).parent == data / "files" for key in keys)


def test_a_folder_that_can_not_be_written_is_told_and_stops_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.mkdir()
    (data / "files").write_text("in the way")
    show_files("alice", "a.csv")
    assert "could not be kept" in capsys.readouterr().err


async def test_forgetting_a_session_forgets_its_files(data: Path) -> None:
    own = data / "corral.db"
    for session in ("alice", "bob"):
        await remember(session, own)
        show_files(session, "a.csv", memory=own)
    assert await forget_session("alice", None, yes=True) == 0
    assert [path.name for path in (data / "files").iterdir()] == ["bob"]


async def test_files_of_another_database_lie_beside_it(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    await remember("alice", other)
    await remember("alice", data / "corral.db")
    show_files("alice", "a.csv", memory=other)
    show_files("alice", "a.csv", memory=data / "corral.db")
    assert (tmp_path / "other.db.files" / "alice" / "a.csv").exists()
    assert await forget_session("alice", other, yes=True) == 0
    assert not (tmp_path / "other.db.files" / "alice").exists()
    assert (data / "files" / "alice" / "a.csv").exists()
