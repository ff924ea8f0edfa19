"""Files that tools make: as attachments, named so that they can be saved anywhere; and saved."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

from corral.messages import Attachment
from corral.tools.plain_text import plain
from corral.tools.sandbox import MadeFile

__all__ = ["as_attachments", "safe_name", "save_attachments"]

_LONGEST_NAME = 100
# What a name means something by in a shell, on Windows or in a path; and what can't be seen.
_UNWANTED = re.compile(r"[^\w.,()+=@ -]+")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


def as_attachments(files: Iterable[MadeFile]) -> tuple[Attachment, ...]:
    """The files whose bytes were taken, each under a name of its own."""
    attachments: list[Attachment] = []
    taken: set[str] = set()
    for file in files:
        if file.data is None:
            continue
        name = _free(safe_name(file.path), taken)
        taken.add(name.lower())
        kind, encoding = mimetypes.guess_type(name, strict=False)
        attachments.append(
            Attachment(
                name=name,
                media_type=kind if kind and not encoding else "application/octet-stream",
                data=base64.b64encode(file.data),
            )
        )
    return tuple(attachments)


def save_attachments(attachments: Iterable[Attachment], folder: str | Path) -> list[Path]:
    """Write attachments into `folder`, which is made if need be, and return their paths.

    Nothing is overwritten: a name that is taken gets a number. Only the user may read them.

    Raises:
        OSError: A file can't be written.
    """
    folder = Path(folder)
    saved: list[Path] = []
    for attachment in attachments:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken: set[str] = set()
        while True:
            path = folder / _free(safe_name(attachment.name), taken)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                taken.add(path.name.lower())
                continue
            break
        with open(fd, "wb") as file:
            file.write(attachment.data)
        saved.append(path)
    return saved


def safe_name(path: str) -> str:
    """One path component, safe to save under on any system, that tells what `path` was called.

    >>> safe_name("out/../plot .png")
    'out_.._plot .png'
    """
    text = path.encode("utf-8", "replace").decode("utf-8", "replace")
    name = _UNWANTED.sub("_", plain(text)).strip(". ")
    stem, dot, suffix = name.rpartition(".")
    if dot and len(suffix) <= 10:
        name = f"{stem[: _LONGEST_NAME - len(suffix) - 1]}.{suffix}"
    name = name[:_LONGEST_NAME].strip(". ") or "file"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def _free(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    number = 2
    while name.lower() in taken:
        name = f"{stem}-{number}{dot}{suffix}"
        number += 1
    return name
