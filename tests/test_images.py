"""Images for a user's message: from a file, bytes, Pillow, and from the network only if granted."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import packed
from PIL import Image
from web_server import Reply, Web, web_server

from corral import ConfigError, fetch_image, image_part
from corral.messages import ImagePart, MessageAdapter, TextPart, UserMessage
from corral.model_runtime.local.images import ImageLimits, read_image

PICTURE = Image.effect_noise((30, 20), 80).convert("RGB")


def pixels(part: ImagePart) -> bytes:
    return read_image(part.data).tobytes()


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as web:
        web.replies["/cat.png"] = Reply(
            body=packed(PICTURE), headers={"Content-Type": "text/plain"}
        )
        yield web


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_file_is_taken_as_it_is(tmp_path: Path, kind: str):
    path = tmp_path / "picture"
    path.write_bytes(packed(PICTURE, kind=kind))
    for source in (path, str(path), path.read_bytes()):
        part = image_part(source)
        assert part.media_type == f"image/{kind}"
        assert part.data == path.read_bytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_an_image_of_pillows_keeps_what_is_seen(mode: str):
    image = PICTURE.convert(mode)
    part = image_part(image)
    assert part.media_type == "image/png"
    if mode not in ("RGBA", "LA"):
        assert pixels(part) == image.convert("RGB").tobytes()


def test_an_image_of_pillows_that_has_no_pixels_is_named_as_such():
    for image in (Image.open(io.BytesIO(packed(PICTURE)[:-300])), Image.new("RGB", (0, 5))):
        with pytest.raises(ConfigError, match="can't be packed"):
            image_part(image)


def test_an_image_survives_the_store():
    message = UserMessage(content=(image_part(PICTURE), TextPart(text="What is it?")))
    again = MessageAdapter.validate_json(MessageAdapter.dump_json(message))
    assert again == message


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_limits_hold_for_every_kind(kind: str):
    data = packed(PICTURE, kind=kind)
    with pytest.raises(ConfigError, match=r"30 x 20 pixels, 600 in all, and may have 599"):
        image_part(data, limits=ImageLimits(max_pixels=599))
    with pytest.raises(ConfigError, match=r"more than 100 bytes"):
        image_part(data, limits=ImageLimits(max_bytes=100))
    assert image_part(data, limits=ImageLimits(max_pixels=600, max_bytes=len(data)))


def test_the_size_is_read_from_all_three_kinds_of_webp():
    for options in ({"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0MM"}):
        file = io.BytesIO()
        PICTURE.save(file, "WEBP", **options)
        with pytest.raises(ConfigError, match="30 x 20 pixels"):
            image_part(file.getvalue(), limits=ImageLimits(max_pixels=1))


def test_what_is_no_image_file_is_named(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "notes.txt": "of a kind that isn't read",
        "empty.png": "of a kind that isn't read",
        "pipe.png": "is no file",
        "": "is no file",
        "none.png": "No such file",
    }.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            image_part(tmp_path / name)
        assert repr(str(tmp_path / name)) in str(caught.value)
    with pytest.raises(ConfigError, match="can't be read"):
        image_part("a\0b.png")
    with pytest.raises(ConfigError, match="'int'"):
        image_part(5)  # type: ignore[arg-type]


def test_nothing_is_fetched_unasked(web: Web):
    with pytest.raises(ConfigError, match="allow_url=True"):
        image_part(f"{web.url}/cat.png")
    assert web.seen == []


def test_a_granted_url_is_fetched(web: Web):
    part = image_part(f"{web.url}/cat.png", allow_url=True, hosts=[web.host])
    assert part == image_part(packed(PICTURE))
    assert [seen.target for seen in web.seen] == ["/cat.png"]


async def test_async_code_awaits_instead_of_blocking(web: Web):
    url = f"{web.url}/cat.png"
    with pytest.raises(ConfigError, match="await fetch_image"):
        image_part(url, allow_url=True, hosts=[web.host])
    assert await fetch_image(url, hosts=[web.host]) == image_part(packed(PICTURE))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "[::1]"])
async def test_a_url_alone_never_leads_to_this_machine(web: Web, host: str):
    with pytest.raises(ConfigError, match="can't be fetched"):
        await fetch_image(f"http://{host}:{web.port}/cat.png")
    assert web.seen == []


async def test_a_redirect_leads_nowhere_that_was_not_granted(web: Web):
    with web_server() as other:
        other.replies["/cat.png"] = Reply(body=packed(PICTURE))
        there = {"Location": f"{other.url}/cat.png"}
        web.replies["/moved"] = Reply(status=302, headers=there)
        with pytest.raises(ConfigError, match="may not be reached"):
            await fetch_image(f"{web.url}/moved", hosts=[web.host])
        assert other.seen == []
        assert await fetch_image(f"{web.url}/moved", hosts=[web.host, other.host])
        web.replies["/file"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
        with pytest.raises(ConfigError, match="not followed"):
            await fetch_image(f"{web.url}/file", hosts=[web.host])


@pytest.mark.parametrize(
    "url", ["ftp://a.example/x.png", "file:///etc/passwd", "http://", "data://x"]
)
def test_other_schemes_are_refused(url: str):
    with pytest.raises(ConfigError, match="https://"):
        image_part(url, allow_url=True)


async def test_no_more_is_read_than_the_limit(web: Web):
    web.replies["/large.png"] = Reply(body=packed(PICTURE) + b"\0" * 1_000_000)
    with pytest.raises(ConfigError, match="more than 10,000 bytes"):
        await fetch_image(
            f"{web.url}/large.png", hosts=[web.host], limits=ImageLimits(max_bytes=10_000)
        )


async def test_an_answer_that_is_no_image_is_told(web: Web):
    web.replies["/gone.png"] = Reply(status=404)
    with pytest.raises(ConfigError, match="the server said 404"):
        await fetch_image(f"{web.url}/gone.png", hosts=[web.host])
    web.replies["/page.png"] = Reply(body=b"<html>")
    with pytest.raises(ConfigError, match="from '127.0.0.1' is of a kind that isn't read"):
        await fetch_image(f"{web.url}/page.png", hosts=[web.host])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ConfigError, match="can't be fetched"):
            await fetch_image(f"http://{host}/cat.png", hosts=[host])
