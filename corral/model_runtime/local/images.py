"""From an image's bytes to pixels, within limits that hold before anything is unpacked.

A small file can name a huge canvas, so bytes and pixels are checked against the file's own header
first. What comes out is what a person would see: turned as a camera's EXIF says, the first frame of
a moving image, transparency on white.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from corral.errors import ConfigError, RuntimeUnavailable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_LIMITS", "ImageLimits", "check_image", "load_pillow", "read_image"]

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_READ = "PNG, JPEG and WebP are read. Convert it."
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a segment that holds the size (ITU T.81, table B.1)."""
_MOST_SEGMENTS = 4096
"""In front of a JPEG's size. Real ones have some dozens, a long colour profile 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """How large an image may be.

    The vision models of Llama 3.2 look at 1,120 x 1,120 pixels at most, so little is lost.
    """

    max_bytes: int = 20_000_000
    """Of the file."""
    max_pixels: int = 50_000_000
    """Width times height; unpacked a pixel takes three bytes, and twice that while it is scaled."""


IMAGE_LIMITS: Final = ImageLimits()
"""The limits where none are given."""


def check_image(data: bytes, limits: ImageLimits = IMAGE_LIMITS, *, what: str = "The image") -> str:
    """The media type of an image whose file and header are within limits. Needs no Pillow.

    `what` is what errors call it.

    Raises:
        ConfigError: It is too large, or no PNG, JPEG or WebP file.
    """
    if len(data) > limits.max_bytes:
        raise ConfigError(
            f"{what} has more than {limits.max_bytes:,} bytes. Make it smaller, or raise "
            "max_bytes of the ImageLimits."
        )
    found = _header(data)
    if found is None:
        raise ConfigError(f"{what} is of a kind that isn't read, or none at all. {_READ}")
    media_type, size = found
    if size is None or 0 in size:
        raise ConfigError(
            f"{what} is damaged: its header doesn't say how large it is. Save it again."
        )
    _check_pixels(size, limits, what)
    return media_type


def read_image(
    data: bytes, limits: ImageLimits = IMAGE_LIMITS, *, what: str = "The image"
) -> Image:
    """Unpack an image as RGB. `what` is what errors call it.

    Raises:
        ConfigError: It is too large, damaged, or no PNG, JPEG or WebP file.
        RuntimeUnavailable: Pillow isn't installed.
    """
    media_type = check_image(data, limits, what=what)
    pillow, operations = load_pillow()
    try:
        image: Any = pillow.open(io.BytesIO(data), formats=[_FORMATS[media_type]])
        # What Pillow makes of the header decides how much it unpacks.
        _check_pixels(image.size, limits, what)
        image.load()
        image = operations.exif_transpose(image)
        return _as_rgb(image, pillow)
    except ConfigError:
        raise
    # Pillow's decoders raise whatever their format's library does.
    except Exception as error:
        raise ConfigError(f"{what} is damaged: {error}. Save it again.") from error


def load_pillow() -> tuple[Any, Any]:
    """Pillow's modules `Image` and `ImageOps`.

    Raises:
        RuntimeUnavailable: It isn't installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise RuntimeUnavailable(
            "Reading images needs the package 'Pillow'. Install it: pip install pillow"
        ) from error
    return Image, ImageOps


def _as_rgb(image: Any, pillow: Any) -> Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would cut off
        image = image.point(_eight_bits).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(value: Any) -> Any:
    return value * (1 / 256)  # Pillow asks for the formula, and takes no other kind


def _check_pixels(size: tuple[int, int], limits: ImageLimits, what: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ConfigError(
            f"{what} has {width:,} x {height:,} pixels, {width * height:,} in all, and may "
            f"have {limits.max_pixels:,}. Make it smaller, or raise max_pixels of the ImageLimits."
        )


def _header(data: bytes) -> tuple[str, tuple[int, int] | None] | None:
    """Media type, and width and height where the header is whole; None for what isn't read."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", _pair(data[16:24], 4, "big") if data[12:16] == b"IHDR" else None
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg", _jpeg_size(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp", _webp_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _FRAME_HEADERS:
            size = _pair(data[at + 5 : at + 9], 2, "big")
            return size and (size[1], size[0])
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a segment
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Of the three kinds of WebP: RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        size = _pair(data[26:30], 2, "little")
        return size and (size[0] & 0x3FFF, size[1] & 0x3FFF)
    return None


def _pair(data: bytes, each: int, order: Any) -> tuple[int, int] | None:
    if len(data) < 2 * each:
        return None
    return int.from_bytes(data[:each], order), int.from_bytes(data[each:], order)
