"""Images for a user's message, from wherever a program has them.

    message = UserMessage(content=(image_part("receipt.jpg"), TextPart(text="What was the total?")))

Nothing is fetched from the network unless the program says so for that very image, and then only
from the host that the address names.
"""

from __future__ import annotations

import base64
import io
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel

from corral.errors import ConfigError, ToolError
from corral.messages import ImagePart
from corral.model_runtime.local.images import IMAGE_LIMITS, ImageLimits, check_image, load_pillow
from corral.tools.http.addresses import is_public, read_address
from corral.tools.http.fetch import Request, fetch
from corral.tools.sandbox import Permissions

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageSource", "fetch_image", "image_part"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image"
"""A path, the bytes of a file, an image of Pillow's, or a URL."""

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})


def image_part(
    source: ImageSource,
    *,
    allow_url: bool = False,
    hosts: Sequence[str] = (),
    limits: ImageLimits = IMAGE_LIMITS,
) -> ImagePart:
    """An image for a message. PNG, JPEG and WebP are taken.

    Args:
        source: A path, bytes, an image of Pillow's, or an `http://` or `https://` URL. An image of
            Pillow's is packed as PNG.
        allow_url: Whether a URL may be fetched. It blocks; in async code, await `fetch_image`.
        hosts: See `fetch_image`.
        limits: How large the image may be, checked before it is unpacked.

    Raises:
        ConfigError: The file can't be read, isn't such an image, or is too large; or a URL was
            given and not allowed.
        RuntimeUnavailable: An image of Pillow's was given, and Pillow isn't installed.
    """
    if isinstance(source, str) and "://" in source:
        return _fetched(source, allow_url=allow_url, hosts=hosts, limits=limits)
    if isinstance(source, bytes):
        return _part(source, limits)
    if _is_pillow(source):
        return _part(_packed(source), limits)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return _part(_read(path, limits), limits, f"The image {path!r}")
    raise ConfigError(
        f"An image can't be made of {type(source).__name__!r}. Give a path, bytes, or an image of "
        "Pillow's."
    )


async def fetch_image(
    url: str, *, hosts: Sequence[str] = (), limits: ImageLimits = IMAGE_LIMITS
) -> ImagePart:
    """Fetch an image. Calling this grants the request to the URL's own host.

    Addresses of this machine and of its networks are refused, whether the URL names them, its name
    stands for them or a redirect leads there. So is a redirect to another host.

    Args:
        url: With `http` or `https`.
        hosts: What may be reached besides, such as `cdn.example.com` for a redirect, or
            `127.0.0.1:8000` for this machine itself. Never take them from a user's text.
        limits: How large the image may be; no more is read.

    Raises:
        ConfigError: It can't be fetched from there, or isn't such an image.
    """
    host = _host(url)
    address = read_address(host)
    own = () if address is not None and not is_public(address) else (_entry(host),)
    request = Request(method="GET", url=url, max_bytes=limits.max_bytes)
    try:
        permissions = Permissions(network=(*own, *hosts))
        answer = await fetch(request, permissions=permissions)
    except (ConfigError, ToolError) as error:
        raise ConfigError(
            f"The image can't be fetched from {host!r}: {error} Save it and name the file, or "
            "name under hosts= what may be reached."
        ) from error
    if answer.status != 200:
        raise ConfigError(
            f"The image can't be fetched from {host!r}: the server said {answer.status} "
            f"{answer.reason}. Check the address."
        )
    # Where there was more than the limit, one byte more says so.
    return _part(answer.body + b"\0" * answer.cut, limits, f"The image from {host!r}")


def _fetched(url: str, *, allow_url: bool, hosts: Sequence[str], limits: ImageLimits) -> ImagePart:
    host = _host(url)
    if not allow_url:
        raise ConfigError(
            f"The image lies at {host!r}, and nothing is fetched from the network unasked. Save "
            "it and name the file, or allow it: image_part(url, allow_url=True)"
        )
    try:
        anyio.lowlevel.current_token()
    except anyio.NoEventLoopError:

        async def run() -> ImagePart:
            return await fetch_image(url, hosts=hosts, limits=limits)

        return anyio.run(run)
    raise ConfigError(
        "image_part was given a URL in async code, which it would block. Use: await "
        "fetch_image(url)"
    )


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        parts, host = None, ""
    if parts is None or parts.scheme not in ("http", "https") or not host:
        scheme = url.partition(":")[0]
        raise ConfigError(
            f"An image can't be fetched by {scheme!r} from such an address. Use http:// or "
            "https:// with a host, or name a file."
        )
    return host


def _entry(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _part(data: bytes, limits: ImageLimits, what: str = "The image") -> ImagePart:
    media_type = check_image(data, limits, what=what)
    return ImagePart(media_type=media_type, data=base64.b64encode(data))


def _read(path: str, limits: ImageLimits) -> bytes:
    """The file's bytes, of which one too many is enough to tell that it is too large."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"{path!r} is no file, so no image. Name an image file.")
        with open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The image {path!r} can't be read: {reason}. Check the path.") from error


def _is_pillow(source: object) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def _packed(image: Any) -> bytes:
    _, operations = load_pillow()
    packed = io.BytesIO()
    try:
        turned = operations.exif_transpose(image)
        if turned.mode not in _PNG_MODES:
            turned = turned.convert("RGB")
        turned.save(packed, "PNG")
    # Pillow reads a file when it is asked for pixels, and raises whatever its decoder does.
    except Exception as error:
        raise ConfigError(
            f"The image of Pillow's can't be packed: {error}. Give another, or the file's bytes."
        ) from error
    return packed.getvalue()
