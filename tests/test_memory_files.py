"""The database as a file: who can read it, what it may be, damage, and forgetting."""

from __future__ import annotations

import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from memory_helpers import outcomes, say, turn
from sqlite_utils.utils import sqlite3

import corral.memory
from corral.errors import ConfigError, SessionBusy, StoreError
from corral.memory import SQLiteStore, default_path
from corral.messages import UserMessage


@pytest.fixture
async def store(tmp_path):
    async with await SQLiteStore.open(tmp_path / "corral.db") as opened:
        yield opened


async def test_only_the_owner_can_read_the_database(tmp_path):
    path = tmp_path / "new" / "folder" / "corral.db"
    async with await SQLiteStore.open(path) as store:
        await say(store, "hi")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").rglob("*")}
        modes["new"] = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert modes.pop("folder") == modes.pop("new") == 0o700
    assert set(modes) == {"corral.db", "corral.db-wal", "corral.db-shm"}
    assert set(modes.values()) == {0o600}


def test_where_the_database_is(monkeypatch, tmp_path):
    monkeypatch.setenv("CORRAL_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "b"))
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert default_path() == tmp_path / "a" / "corral.db"
    monkeypatch.setenv("CORRAL_DATA", "")
    assert default_path() == tmp_path / "b" / "corral" / "corral.db"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_path() == tmp_path / "c" / ".local" / "share" / "corral" / "corral.db"


async def refused(path: Path) -> str:
    with pytest.raises((StoreError, ConfigError)) as caught:
        await SQLiteStore.open(path)
    return str(caught.value)


async def test_a_path_that_cannot_be_a_database_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "text.db").write_text("this is no database, and long enough to be looked at\n" * 99)
    assert "is a folder" in await refused(tmp_path)
    assert "in the way" in await refused(tmp_path / "file" / "corral.db")
    assert "not a database" in await refused(tmp_path / "text.db")
    assert "NUL" in await refused(tmp_path / "a\0b")
    assert (tmp_path / "file").read_text() == "text"
    assert not list(tmp_path.glob("text.db-*"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder root can't write")
async def test_a_folder_that_cannot_be_written_is_refused_with_a_remedy():
    assert "CORRAL_DATA" in await refused(Path("/proc/corral/corral.db"))
    assert "CORRAL_DATA" in await refused(Path("/proc/corral.db"))


async def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE sessions (x)")
    assert "another program" in await refused(path)
    with closing(sqlite3.connect(path)) as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["sessions"]


async def test_a_newer_corrals_database_is_refused(tmp_path):
    path = tmp_path / "corral.db"
    async with await SQLiteStore.open(path) as store:
        await say(store, "hi")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "VALUES ('corral', '9999_future', '')"
        )
    message = await refused(path)
    assert "newer" in message and "9999_future" in message and "upgrade" in message


async def test_a_full_disk_loses_nothing_that_was_stored(store):
    await say(store, "before")
    with closing(sqlite3.connect(store.path)) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    store._worker.connection._execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full.*Free some space"):
        await say(store, "x" * 100_000)
    store._worker.connection._execute("PRAGMA max_page_count = 100000")
    assert len(await store.items("main")) == 2
    await say(store, "after")
    assert await outcomes(store) == ["answered", "failed", "answered"]


async def test_a_damaged_database_is_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "corral.db"
    async with await SQLiteStore.open(path) as store:
        for number in range(50):
            await say(store, f"{number} " + "x" * 500)
    content = bytearray(path.read_bytes())
    content[4096 * 4 :] = b"\xa5" * len(content[4096 * 4 :])
    path.write_bytes(content)
    with pytest.raises(StoreError, match="Move it away"):
        async with await SQLiteStore.open(path) as store:
            await store.items("main")


async def test_an_item_that_cannot_be_read_is_named(store):
    await say(store, "hi")
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute('UPDATE items SET content = \'{"role": "llama"}\' WHERE seq = 2')
    with pytest.raises(StoreError, match=r"Item 2 .*'main'"):
        await store.items("main")


async def test_a_closed_store_says_so(tmp_path):
    store = await SQLiteStore.open(tmp_path / "corral.db")
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="Open the store again"):
        await store.sessions()
    with pytest.raises(StoreError, match="Open the store again"):
        async with turn(store):
            pass


def test_a_store_can_be_used_from_one_event_loop_after_another(tmp_path):
    store = anyio.run(SQLiteStore.open, tmp_path / "corral.db")
    for text in ("one", "two"):
        anyio.run(say, store, text)
    assert len(anyio.run(store.items, "main")) == 4
    anyio.run(store.aclose)


def test_importing_the_package_loads_no_sqlite():
    program = "import sys, corral.memory; print([m for m in sys.modules if 'sqlite' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there():
    assert len(set(corral.memory.__all__)) == len(corral.memory.__all__)
    for name in corral.memory.__all__:
        assert getattr(corral.memory, name) is not None
    with pytest.raises(AttributeError):
        _ = corral.memory.nothing


def traces(path: Path, text: str) -> list[str]:
    """The database's files that hold `text`."""
    files = sorted(path.parent.glob(path.name + "*"))
    return [file.name for file in files if text.encode() in file.read_bytes()]


async def test_a_forgotten_session_leaves_no_text_on_the_disk(tmp_path):
    path = tmp_path / "corral.db"
    secret = "xyzzy-secret-plugh"
    async with await SQLiteStore.open(path) as store, await SQLiteStore.open(path) as other:
        for number in range(20):
            await say(store, f"{secret} {number} " + "z" * 500 * number, session="secret")
            await say(store, f"public {number}", session="public")
        assert traces(path, secret)
        assert await other.sessions()
        assert await store.forget("secret")
        assert traces(path, secret) == []
        assert not await store.forget("secret")
        assert [info.key for info in await other.sessions()] == ["public"]
        assert len(await other.items("public")) == 40
        await say(other, "new", session="secret")
        assert [item.seq for item in await store.items("secret")] == [1, 2]


async def test_forgetting_also_wipes_what_an_edit_by_hand_left_behind(store):
    secret = "xyzzy-secret-plugh " * 500
    await say(store, secret, session="secret")
    await say(store, "public", session="public")
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("DELETE FROM items WHERE seq = 1 AND role = 'user' AND length(content) > 500")
    assert await store.forget("secret")
    assert traces(store.path, "xyzzy-secret-plugh") == []
    assert len(await store.items("public")) == 2


async def test_a_session_in_use_is_not_forgotten(store):
    async with turn(store) as t:
        await t.append(UserMessage(content="hi"))
        with pytest.raises(SessionBusy):
            await store.forget("main")
        await t.finish("answered")
    assert len(await store.items("main")) == 1


async def test_an_in_memory_store_works_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with await SQLiteStore.open(None) as store, await SQLiteStore.open(None) as other:
        await say(store, "hi")
        assert await other.sessions() == [] and store.path is None
        assert await store.forget("main")
    assert list(tmp_path.iterdir()) == []


async def test_a_tenant_cannot_reach_anothers_sessions(tmp_path):
    path = tmp_path / "corral.db"
    async with (
        await SQLiteStore.open(path, tenant="a") as a,
        await SQLiteStore.open(path, tenant="b") as b,
    ):
        await say(a, "of a")
        assert await b.sessions() == [] and await b.items("main") == []
        assert [line async for line in b.export("main")] == [] and not await b.forget("main")
        async with turn(a) as held, turn(b) as t:
            assert await t.history() == []
            await t.finish("answered")
            await held.finish("answered")
        await b.forget("main")
        assert len(await a.items("main")) == 2
