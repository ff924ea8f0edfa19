"""Small images that tests make: as noise, as a file's bytes, as part of a message."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from corral.messages import ImagePart


def picture(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise, which no two scalings make alike."""
    import numpy

    channels = {"RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}.get(mode, 1)
    noise = numpy.random.default_rng(seed).integers(0, 256, (height, width, channels))
    plain = noise.astype(numpy.uint8)[..., 0] if channels == 1 else noise.astype(numpy.uint8)
    return Image.fromarray(plain).convert(mode)


def packed(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def part(image: Image.Image | bytes) -> ImagePart:
    data = image if isinstance(image, bytes) else packed(image)
    return ImagePart(media_type="image/png", data=base64.b64encode(data))
