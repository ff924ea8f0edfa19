"""What permissions grant, how two of them meet, and the one line that a person reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.tools.sandbox import Permissions, SandboxReport, run_python
from corral.tools.sandbox.permissions import LEVELS

LIMITS = (
    "wall_seconds",
    "cpu_seconds",
    "memory_bytes",
    "disk_bytes",
    "files",
    "processes",
    "output_bytes",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="permissions-") as made:
        Path(made).chmod(0o755)
        yield Path(made).resolve()


# --- two sets of permissions ---

PATHS = ["/srv/a", "/srv/a/b", "/srv/a/b/c", "/srv/ab", "/srv/d", "/opt"]
PROBES = [*PATHS, "/srv", "/srv/a/x", "/srv/a/b/c/d", "/srv/abc", "/opt/x/y", "/"]
HOSTS = [
    "example.com",
    "example.com:443",
    "*.example.com",
    "*.example.com:80",
    "api.example.com",
    "*.api.example.com:443",
    "127.0.0.1:8080",
    "[::1]",
    "localhost",
]
REACHED = [
    "example.com",
    "api.example.com",
    "v2.api.example.com",
    "notexample.com",
    "127.0.0.1",
    "::1",
    "localhost",
]


@st.composite
def permission_sets(draw: st.DrawFn) -> Permissions:
    write = draw(st.sets(st.sampled_from(PATHS), max_size=2))
    read = draw(st.sets(st.sampled_from(PATHS), max_size=3))
    read = {r for r in read if not any(Path(r).is_relative_to(w) for w in write)}
    return Permissions(
        read=tuple(map(Path, read)),
        write=tuple(map(Path, write)),
        network=tuple(draw(st.lists(st.sampled_from(HOSTS), max_size=4))),
        env=tuple(draw(st.sets(st.sampled_from(["A", "B", "C"])))),
        wall_seconds=draw(st.floats(0.1, 1000)),
        cpu_seconds=draw(st.floats(0.1, 1000)),
        memory_bytes=draw(st.integers(32 << 20, 1 << 34)),
        disk_bytes=draw(st.integers(64 << 10, 1 << 34)),
        files=draw(st.integers(8, 1 << 20)),
        processes=draw(st.integers(0, 256)),
        output_bytes=draw(st.integers(1, 1 << 30)),
        min_level=draw(st.sampled_from(LEVELS)),
    )


def access(permissions: Permissions, path: str) -> int:
    """0 for none, 1 for reading, 2 for writing."""
    if any(Path(path).is_relative_to(tree) for tree in permissions.write):
        return 2
    return int(any(Path(path).is_relative_to(tree) for tree in permissions.read))


@settings(deadline=None, database=None, max_examples=40)
@given(permission_sets(), permission_sets())
def test_narrowed_permissions_never_allow_more_than_either(
    one: Permissions, other: Permissions
) -> None:
    both = one.narrowed(other)
    for path in PROBES:
        assert access(both, path) == min(access(one, path), access(other, path))
    for host in REACHED:
        for port in (80, 443, 8080):
            granted = one.allows_host(host, port) and other.allows_host(host, port)
            assert both.allows_host(host, port) == granted
    assert set(both.env) == set(one.env) & set(other.env)
    for name in LIMITS:
        assert getattr(both, name) == min(getattr(one, name), getattr(other, name))
    strict = max(LEVELS.index(one.min_level), LEVELS.index(other.min_level))
    assert both.min_level == LEVELS[strict]
    # What comes out is again what could have been written by hand.
    assert Permissions.model_validate(both.model_dump()) == both


@settings(deadline=None, database=None, max_examples=40)
@given(permission_sets(), permission_sets(), permission_sets())
def test_the_order_of_ceilings_does_not_matter(
    one: Permissions, two: Permissions, three: Permissions
) -> None:
    def meaning(p: Permissions) -> object:
        hosts = [p.allows_host(host, port) for host in REACHED for port in (80, 443, 8080)]
        return [access(p, path) for path in PROBES], hosts, set(p.env), p.memory_bytes, p.min_level

    left = one.narrowed(two).narrowed(three)
    assert meaning(left) == meaning(three.narrowed(two.narrowed(one)))
    assert meaning(one.narrowed(one)) == meaning(one)


def test_every_field_is_narrowed() -> None:
    known = {*LIMITS, "read", "write", "network", "env", "min_level"}
    assert set(Permissions.model_fields) == known


def test_a_link_made_later_does_not_widen_what_was_granted(folder: Path) -> None:
    granted, secret = folder / "granted", folder / "secret"
    granted.mkdir()
    secret.mkdir()
    permissions = Permissions(read=(granted,))
    granted.rmdir()
    granted.symlink_to(secret)
    narrowed = permissions.narrowed(Permissions(read=(folder,)))
    assert narrowed.read == (granted,)
    assert access(narrowed, str(secret)) == 0


def test_a_link_is_followed_when_permissions_are_made(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    permissions = Permissions(read=(folder / "link",))
    assert permissions.read == (folder / "real",)
    assert permissions.narrowed(Permissions(read=(folder / "real",))).read == (folder / "real",)


async def test_a_granted_folder_that_has_become_a_link_is_not_followed(folder: Path) -> None:
    granted, secret = folder / "granted", folder / "secret"
    granted.mkdir()
    secret.mkdir()
    (secret / "file").write_text("the secret")
    permissions = Permissions(read=(granted,))
    granted.rmdir()
    granted.symlink_to(secret)
    try:
        result = await run_python(
            f"open({str(granted / 'file')!r}).read()", permissions=permissions
        )
    except Exception as refused:
        assert "the secret" not in str(refused)
    else:
        assert "the secret" not in result.stdout


@pytest.mark.parametrize("name", [".ssh", "data"])
def test_a_folder_inside_the_home_folder_may_be_granted(name: str) -> None:
    # The user's decision; it is the home folder whole that no tool needs.
    granted = Permissions(read=(Path(f"~/{name}"),)).read
    assert granted == ((Path.home() / name).resolve(),)


# --- hosts ---


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("*.example.com:443", "*.example.com:443"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ("127.0.0.1", "127.0.0.1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_has_one_form(written: str, normal: str) -> None:
    assert Permissions(network=(written,)).network == (normal,)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "*",
        "*.",
        "a.*.com",
        "https://example.com",
        "example.com/path",
        "user@example.com",
        "example.com:0",
        "example.com:65536",
        "example.com:http",
        "example.com:443:443",
        "127.1",
        "0x7f000001",
        "2130706433",
        "010.0.0.1",
        "*.127.0.0.1",
        "::1",
        "[::1",
        "[example.com]",
        "exa mple.com",
        "example..com",
        "-example.com",
        "bücher.example",
        "example.com\n",
        "a" * 64 + ".com",
    ],
)
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="is no host"):
        Permissions(network=(written,))


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("example.com", 443, True),
        ("EXAMPLE.com.", 443, True),
        ("example.com", 80, False),
        ("api.example.com", 443, False),
        ("a.b.sub.example.com", 1, True),
        ("sub.example.com", 1, False),
        ("evilsub.example.com", 1, False),
        ("::1", 80, True),
        ("[::1]", 80, True),
        ("127.0.0.1", 80, False),
        ("*.sub.example.com", 80, False),
        ("", 80, False),
        ("example.com:443@evil.example", 443, False),
    ],
)
def test_a_host_is_allowed_by_name_and_port(host: str, port: int, allowed: bool) -> None:
    permissions = Permissions(network=("example.com:443", "*.sub.example.com", "[::1]"))
    assert permissions.allows_host(host, port) is allowed


@settings(deadline=None, database=None, max_examples=40)
@given(st.text(max_size=30), st.integers(1, 65535))
def test_nothing_is_allowed_that_was_not_listed(host: str, port: int) -> None:
    assert not Permissions().allows_host(host, port)
    allowed = Permissions(network=("example.com",)).allows_host(host, port)
    assert not allowed or host.strip("[]").removesuffix(".").lower() == "example.com"


async def test_a_program_is_refused_rather_than_run_with_hosts_that_nothing_enforces() -> None:
    permissions = Permissions(network=("example.com",))
    with pytest.raises(ConfigError, match="gets no sockets"):
        await run_python("print('ran')", permissions=permissions)
    with pytest.raises(ConfigError, match="gets no sockets"):
        SandboxReport(levels=("namespaces",)).level_for(permissions)


# --- variables ---


@pytest.mark.parametrize(
    "name",
    ["LD_AUDIT", "PYTHONPATH", "GLIBC_TUNABLES", "BASH_ENV", "GCONV_PATH", "MALLOC_PERTURB_", ""],
)
def test_a_variable_that_steers_a_loader_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="can't be passed"):
        Permissions(env=(name,))


# --- the line for a person ---


def test_permissions_are_told_in_one_line() -> None:
    assert str(Permissions()) == (
        "reads nothing; writes nothing; network none; variables none; 20 s (10 s of processor); "
        "1 GiB memory; 64 MiB disk in 4096 files; one process; 1 MiB output; "
        "level reduced or stronger"
    )
    told = Permissions(
        read=(Path("/srv/data"),),
        write=(Path("/srv/out"), Path("/srv/more")),
        network=("api.example.com",),
        env=("TZ",),
        wall_seconds=2.5,
        memory_bytes=200 << 20,
        processes=4,
        output_bytes=100,
        min_level="namespaces",
    ).describe()
    assert told == (
        "reads /srv/data; writes /srv/out, /srv/more; network api.example.com; variables TZ; "
        "2.5 s (10 s of processor); 200 MiB memory; 64 MiB disk in 4096 files; "
        "4 more processes; 100 bytes output; level namespaces"
    )


@settings(deadline=None, database=None, max_examples=40)
@given(permission_sets())
def test_the_line_is_one_line_and_names_every_grant(permissions: Permissions) -> None:
    line = permissions.describe()
    assert line.isprintable()
    for granted in (*permissions.read, *permissions.write, *permissions.network, *permissions.env):
        assert str(granted) in line


@pytest.mark.parametrize("name", ["a; level namespaces", "\x1b[2Jclear", "two\nlines", "a, b"])
def test_a_files_name_can_not_pass_for_more_of_the_line(name: str) -> None:
    line = Permissions(read=(Path("/srv", name),)).describe()
    assert line.isprintable()
    assert ascii(f"/srv/{name}") in line


def test_permissions_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Permissions().memory_bytes = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="frozen"):
        Permissions().narrowed(Permissions()).read = ()  # pyright: ignore


def test_a_path_is_not_followed_to_where_nothing_may_be_granted(folder: Path) -> None:
    for target in ("/", "/proc/self", str(Path.home())):
        link = folder / f"link-{os.urandom(4).hex()}"
        link.symlink_to(target)
        with pytest.raises(ConfigError):
            Permissions(read=(link,))
