"""Where the files that tools make are kept: beside the database of their conversation."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from corral.memory.sqlite import default_path
from corral.tools.attachments import safe_name

__all__ = ["files_of", "forget_files"]


def files_of(session: str, memory: str | Path | None) -> Path:
    """The folder of a conversation's files; it need not be there.

    Below the user's data folder that is `files/SESSION`; beside a database of its own,
    `NAME.files/SESSION`.

    Args:
        session: The conversation's key.
        memory: Its database; None for the user's own, as is what names no file.
    """
    own = default_path()
    place = Path(memory) if memory else own
    top = own.parent / "files"
    if place != own and place.is_file():
        top = place.with_name(f"{place.name}.files")
    name = safe_name(session)
    if name != session or len(name) > 80:
        # Keys that make the same name must not share a folder.
        name = f"{name[:60]}-{hashlib.sha256(session.encode()).hexdigest()[:12]}"
    return top / name


def forget_files(session: str, memory: str | Path | None) -> None:
    """Delete a conversation's files, if it has any."""
    folder = files_of(session, memory)
    if folder.is_dir():
        shutil.rmtree(folder)
