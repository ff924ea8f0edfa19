"""Tools that send HTTP requests: where they go, what they send, what they give back."""

from __future__ import annotations

import datetime
import gzip
import json
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_server import Reply, Web, web_server

from corral import ConfigError, ToolError
from corral.tools.builtin import HttpGet
from corral.tools.http import HttpTool
from corral.tools.http.addresses import is_public
from corral.tools.http.fetch import Request, fetch
from corral.tools.http.json_path import JsonPath
from corral.tools.http.transport import CheckedTransport
from corral.tools.http.url_template import UrlTemplate
from corral.tools.options import ToolOptions
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext

CALL = ToolContext(session="s", turn_id="t", call_id="c")
TEXT = {"type": "string"}


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


def http_tool(web: Web, target: str, *required: str, **settings) -> HttpTool:
    parameters = {
        "type": "object",
        "properties": {name: TEXT for name in ("a", "b")},
        "required": list(required),
    }
    settings = {"hosts": [web.host], "parameters": parameters, **settings}
    return HttpTool("t", description="d", url=f"{web.url}{target}", **settings)


async def called(tool: HttpTool | HttpGet, **arguments):
    return (await tool.call(arguments, CALL)).content


async def test_the_wanted_part_of_the_answer_comes_back(web: Web):
    days = [{"temperature": 21, "wind": {"strong": True}}]
    web.replies["/days/Oslo"] = Reply(body=json.dumps({"current": {"days": days}}).encode())
    tool = http_tool(web, "/days/{a}", "a", answer="current.days[0].temperature")
    await tool.ready()
    assert await called(tool, a="Oslo") == 21
    whole = http_tool(web, "/days/{a}", "a")
    assert await called(whole, a="Oslo") == {"current": {"days": days}}
    lost = http_tool(web, "/days/{a}", "a", answer="current.nights[0]")
    with pytest.raises(ToolError, match="an object with 'days'"):
        await called(lost, a="Oslo")


@pytest.mark.parametrize(
    "value",
    ["a/b", "../x", "?q=1", "#f", "%2e%2e", "a b", "å", "x&y=z", "\r\nX: y", "a\\b", "@h:1"],
)
async def test_what_the_model_writes_stays_in_its_part_of_the_url(web: Web, value: str):
    from urllib.parse import unquote

    tool = http_tool(web, "/p/{a}/end?q={b}", "a")
    with pytest.raises(ToolError, match="404"):
        await called(tool, a=value, b=value)
    path, _, query = web.seen[0].target.partition("?")
    assert [unquote(part) for part in path.split("/")] == ["", "p", value, "end"]
    assert unquote(query.removeprefix("q=")) == value and "&" not in query


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_a_value_that_would_change_the_path_is_refused(web: Web, value: str):
    tool = http_tool(web, "/p/{a}/end", "a")
    with pytest.raises(ToolError):
        await called(tool, a=value)
    assert web.seen == []


@given(value=st.text(), query=st.text())
def test_no_text_leads_out_of_its_place(value: str, query: str):
    import httpx

    template = UrlTemplate.parse(
        "https://api.example.com/v1/{a}?q={b}", tool="t", names=frozenset("ab")
    )
    try:
        url = httpx.URL(template.fill({"a": value, "b": query}))
    except (ToolError, UnicodeEncodeError):
        return
    assert url.host == "api.example.com" and url.fragment == "" and url.userinfo == b""
    assert url.raw_path.startswith(b"/v1/") and url.raw_path.count(b"/") == 2
    assert dict(url.params) == {"q": query}


async def test_a_query_without_its_argument_is_left_out(web: Web):
    web.replies["/x"] = Reply(body=b"{}")
    tool = http_tool(web, "/x?a={a}&b={b}&c=1")
    await called(tool, b="2")
    await called(tool)
    assert [seen.target for seen in web.seen] == ["/x?b=2&c=1", "/x?c=1"]


async def test_a_body_keeps_the_arguments_types(web: Web):
    web.replies["/orders"] = Reply(body=b'{"ok": true}')
    tool = HttpTool(
        "order",
        description="d",
        url=f"{web.url}/orders",
        hosts=[web.host],
        parameters={
            "type": "object",
            "properties": {
                "count": {"type": "integer"},
                "tags": {"type": "array", "items": TEXT},
                "note": TEXT,
                "size": {"type": "string", "default": "small"},
            },
        },
        body={"n": "{count}", "t": ["{tags}", "fixed"], "note": "{note}", "say": "<{size}>"},
    )
    await called(tool, count=3, tags=["a", '"}{'])
    assert web.seen[0].method == "POST"
    assert json.loads(web.seen[0].body) == {"n": 3, "t": [["a", '"}{'], "fixed"], "say": "<small>"}


async def test_a_key_from_the_environment_is_sent_and_never_shown(web: Web, monkeypatch):
    tool = http_tool(web, "/x", headers={"Authorization": "Bearer ${SHOP_KEY}"})
    monkeypatch.delenv("SHOP_KEY", raising=False)
    with pytest.raises(ConfigError, match="SHOP_KEY"):
        await tool.ready()
    monkeypatch.setenv("SHOP_KEY", "sesame-1234")
    await tool.ready()
    web.replies["/x"] = lambda seen: Reply(
        body=json.dumps({"you sent": seen.headers["authorization"]}).encode()
    )
    assert await called(tool) == {"you sent": "Bearer [hidden]"}
    assert web.seen[0].headers["authorization"] == "Bearer sesame-1234"
    web.replies["/x"] = Reply(status=403, body=b"no entry for sesame-1234")
    with pytest.raises(ToolError, match="403.*hidden") as caught:
        await called(tool)
    assert "sesame" not in str(caught.value) + repr(tool)
    monkeypatch.setenv("SHOP_KEY", "a\r\nHost: b")
    with pytest.raises(ConfigError, match="can't stand in a header"):
        await tool.ready()


async def test_redirects_stay_within_the_list_and_take_no_key_along(web: Web, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "sesame-1234")
    with web_server() as other:
        other.replies["/there"] = Reply(body=b'"there"')
        web.replies["/near"] = Reply(302, headers={"Location": "/here"})
        web.replies["/here"] = Reply(body=b'"here"')
        web.replies["/far"] = Reply(302, headers={"Location": f"{other.url}/there"})
        web.replies["/round"] = Reply(302, headers={"Location": "/round"})
        web.replies["/file"] = Reply(302, headers={"Location": "file:///etc/passwd"})
        headers = {"X-Key": "${SHOP_KEY}"}
        assert await called(http_tool(web, "/near", headers=headers)) == "here"
        assert all("x-key" in seen.headers for seen in web.seen)
        with pytest.raises(ToolError, match="may not be reached"):
            await called(http_tool(web, "/far", headers=headers))
        assert other.seen == []
        wide = http_tool(web, "/far", headers=headers, hosts=[web.host, other.host])
        assert await called(wide) == "there"
        assert "x-key" not in other.seen[0].headers
        with pytest.raises(ToolError, match="more than 5"):
            await called(http_tool(web, "/round"))
        with pytest.raises(ToolError, match="not followed"):
            await called(http_tool(web, "/file"))
        with pytest.raises(ToolError, match="POST.*not repeated"):
            await called(http_tool(web, "/near", body={}))


def test_an_address_of_this_machine_must_be_listed(web: Web):
    with pytest.raises(ConfigError, match="not a public address.*hosts"):
        HttpTool("t", description="d", url=f"{web.url}/x")
    HttpTool("t", description="d", url="https://api.example.com/x")


async def test_a_name_that_stands_for_this_machine_needs_the_address_listed(web: Web):
    web.replies["/x"] = Reply(body=b"1")
    settings = {"description": "d", "url": f"http://localhost:{web.port}/x"}
    with pytest.raises(ToolError, match="not a public address"):
        await called(HttpTool("t", **settings))
    assert web.seen == []
    addresses = [f"127.0.0.1:{web.port}", f"[::1]:{web.port}"]
    listed = HttpTool("t", hosts=[f"localhost:{web.port}", *addresses], **settings)
    assert await called(listed) == 1


PRIVATE = """
0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1
255.255.255.255 168.63.129.16 :: ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 fe80::1
fec0::1 fc00::1 fd00:ec2::254 ff02::1 2001::1 2001:db8::1 2002:7f00:1:: 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 3fff::1
""".split()
PUBLIC = "1.1.1.1 8.8.8.8 172.32.0.1 192.169.0.1 2606:4700::1111 64:ff9b::101:101".split()


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_to_a_private_address_is_not_followed(web: Web, address: str):
    async def lies(host: str, port: int) -> list[str]:
        return ["93.184.215.14", address]

    transport = CheckedTransport(Permissions(network=("evil.example",)), resolve=lies)
    request = Request(method="GET", url=f"http://evil.example:{web.port}/")
    with pytest.raises(ToolError, match="not a public address"):
        await fetch(request, permissions=Permissions(), transport=transport)
    await transport.aclose()
    assert web.seen == []


def test_public_addresses_are_told_from_private_ones():
    assert not [text for text in PRIVATE if is_public(ip_address(text))]
    assert [text for text in PUBLIC if is_public(ip_address(text))] == PUBLIC


@pytest.mark.parametrize(
    "host",
    """127.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 127.0.0.1. localhost localhost.
    LOCALHOST [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:1] [::] 0 0.0.0.0
    ①②⑦.0.0.1 127。0。0。1 user@127.0.0.1 allowed.example@127.0.0.1 127.0.0.1%00
    allowed.example%2f@127.0.0.1 [::1%25lo]""".split(),
)
async def test_no_spelling_of_this_machine_gets_past_the_list(web: Web, host: str):
    tool = HttpGet("allowed.example", "*.example.org")
    with pytest.raises(ToolError):
        await called(tool, url=f"http://{host}:{web.port}/secret")
    assert web.seen == []


async def test_the_connection_goes_to_the_address_that_was_checked(web: Web):
    asked: list[str] = []

    async def changes(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    permissions = Permissions(network=("service.example", web.host))
    transport = CheckedTransport(permissions, resolve=changes)
    web.replies["/x"] = Reply(body=b"1")
    request = Request(method="GET", url=f"http://service.example:{web.port}/x")
    answer = await fetch(request, permissions=permissions, transport=transport)
    await transport.aclose()
    assert (answer.status, asked) == (200, ["service.example"])
    assert web.seen[0].headers["host"] == f"service.example:{web.port}"


def certificate(folder: Path, name: str) -> Path:
    """A certificate for `name` that signs itself, with its key, in a file."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


async def test_a_certificate_is_checked_against_the_name_not_the_address(tmp_path: Path):
    file = certificate(tmp_path, "service.example")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(file)

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    with web_server(tls=ours) as web:
        web.replies["/x"] = Reply(body=b"1")
        permissions = Permissions(network=("service.example", "other.example", web.host))
        believed = ssl.create_default_context(cafile=str(file))

        async def get(host: str) -> int:
            transport = CheckedTransport(permissions, resolve=here, verify=believed)
            request = Request(method="GET", url=f"https://{host}:{web.port}/x")
            try:
                return (await fetch(request, permissions=permissions, transport=transport)).status
            finally:
                await transport.aclose()

        assert await get("service.example") == 200
        with pytest.raises(ToolError, match="certificate"):
            await get("other.example")


async def test_answers_are_bounded_in_length_and_time(web: Web):
    web.replies["/long"] = Reply(body=b'"' + b"x" * 5000 + b'"')
    with pytest.raises(ToolError, match="longer than 1000 bytes"):
        await called(http_tool(web, "/long", max_bytes=1000))

    def endless(handler) -> None:
        while True:
            handler.wfile.write(b"x" * 65536)

    web.replies["/endless"] = Reply(body=endless)
    with pytest.raises(ToolError, match="longer than"):
        await called(http_tool(web, "/endless"))

    def slow(handler) -> None:
        for _ in range(600):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    web.replies["/slow"] = Reply(body=slow)
    began = time.monotonic()
    with pytest.raises(ToolError, match=r"within 0\.5 seconds"):
        await called(http_tool(web, "/slow", options=ToolOptions(timeout=0.5)))
    assert time.monotonic() - began < 20


async def test_packed_answers_are_unpacked_but_a_bomb_is_not(web: Web):
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    web.replies["/small"] = Reply(body=gzip.compress(b'{"a": 1}'), headers=packed)
    assert await called(http_tool(web, "/small")) == {"a": 1}
    web.replies["/bomb"] = Reply(body=gzip.compress(b"0" * (64 << 20)), headers=packed)
    with pytest.raises(ToolError, match="longer than"):
        await called(http_tool(web, "/bomb"))
    web.replies["/odd"] = Reply(body=b"x", headers={"Content-Encoding": "br"})
    with pytest.raises(ToolError, match="'br'"):
        await called(http_tool(web, "/odd"))


async def test_answers_that_are_no_json_or_no_text_say_so(web: Web):
    web.replies["/text"] = Reply(
        body="grüß\x1b[31m".encode(), headers={"Content-Type": "text/plain"}
    )
    assert await called(http_tool(web, "/text")) == "grüß"
    with pytest.raises(ToolError, match="not JSON"):
        await called(http_tool(web, "/text", answer="a"))
    web.replies["/image"] = Reply(body=b"\x89PNG", headers={"Content-Type": "image/png"})
    with pytest.raises(ToolError, match="not text"):
        await called(http_tool(web, "/image"))
    web.replies["/deep"] = Reply(body=b"[" * 100_000)
    with pytest.raises(ToolError, match="not JSON"):
        await called(http_tool(web, "/deep"))


async def test_a_server_that_is_not_there_is_an_error_the_model_can_read():
    tool = HttpTool("t", description="d", url="http://127.0.0.1:9/x", hosts=["127.0.0.1:9"])
    with pytest.raises(ToolError, match="failed"):
        await called(tool)


async def test_a_ceiling_takes_hosts_away_and_adds_none(web: Web):
    tool = http_tool(web, "/x")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        await tool.narrowed(Permissions()).ready()
    await tool.narrowed(Permissions(network=("127.0.0.1", "api.example.com"))).ready()
    narrowed = tool.narrowed(Permissions(network=("127.0.0.1", "api.example.com")))
    assert narrowed.permissions.network == (web.host,)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "https://{a}.example.com/"},
        {"url": "{a}://api.example.com/"},
        {"url": "https://api.example.com:{a}/"},
        {"url": "ftp://api.example.com/"},
        {"url": "https://me:pass@api.example.com/"},
        {"url": "https://api.example.com/#x"},
        {"url": "https://api.example.com/{nope}"},
        {"url": "https://api.example.com/{b}"},
        {"url": "https://api.example.com/{"},
        {"url": "https://api.example.com/", "method": "TRACE"},
        {"url": "https://api.example.com/", "method": "GET", "body": {}},
        {"url": "https://api.example.com/", "answer": "a..b"},
        {"url": "https://api.example.com/", "answer": ""},
        {"url": "https://api.example.com/", "answer": "a[x]"},
        {"url": "https://api.example.com/", "headers": {"Host": "x"}},
        {"url": "https://api.example.com/", "headers": {"A b": "x"}},
        {"url": "https://api.example.com/", "headers": {"A": "x\r\nB: y"}},
        {"url": "https://api.example.com/", "hosts": ["a/b"]},
        {"url": "https://api.example.com/", "max_bytes": 0},
        {"url": "https://api.example.com/", "parameters": {"type": "array"}},
        {"url": "https://api.example.com/", "parameters": {"properties": {"a": {"type": "x"}}}},
        {"url": "https://api.example.com/", "parameters": {"$ref": "https://example.com/s"}},
    ],
)
def test_what_can_not_work_is_refused_before_it_is_offered(settings):
    parameters = {"properties": {"a": TEXT, "b": TEXT}, "required": ["a"]}
    with pytest.raises(ConfigError):
        HttpTool("t", description="d", **{"parameters": parameters, **settings})


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("[-1]", (-1,)),
        ('a["x.y"][2]', ("a", "x.y", 2)),
        ("a-b._c", ("a-b", "_c")),
    ],
)
def test_paths_into_json(path: str, steps):
    assert JsonPath.parse(path).steps == steps


async def test_http_get_shows_what_a_reader_would_see(web: Web):
    page = b"<html><head><title>T</title></head><body><h1>Hi</h1><script>x()</script><p>a <b>b</b>"
    web.replies["/page"] = Reply(body=page, headers={"Content-Type": "text/html; charset=utf-8"})
    tool = HttpGet(web.host)
    await tool.ready()
    assert await called(tool, url=f"{web.url}/page") == "Hi\na b"
    web.replies["/t"] = Reply(body=b"plain", headers={"Content-Type": "text/plain"})
    assert await called(tool, url=f"{web.url}/t") == "plain"
    for url in ("file:///etc/passwd", "ftp://x/", f"{web.url}/none", "http://", "https://[x"):
        with pytest.raises(ToolError):
            await called(tool, url=url)
    with pytest.raises(ConfigError, match="hosts"):
        await HttpGet().ready()
