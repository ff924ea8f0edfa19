"""What came of a call to a server, as a tool's output."""

from __future__ import annotations

import json
import mimetypes
import re
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from corral.errors import ToolError
from corral.messages import Attachment
from corral.tools.plain_text import plain, shortened
from corral.tools.tool import ToolOutput

if TYPE_CHECKING:
    from mcp import types

__all__ = ["as_output"]

_LONGEST_TEXT = 64 << 10
_MOST_ATTACHMENTS = 32
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*\Z")


def as_output(result: types.CallToolResult, *, tool: str) -> ToolOutput:
    """A server's result: structured content if there is any, else text; files as attachments.

    Args:
        result: What the server sent.
        tool: The tool's name, which its files are named after.

    Raises:
        ToolError: A file in it isn't one.
    """
    texts: list[str] = []
    attachments: list[Attachment] = []
    for block in result.content:
        match block.type:
            case "text":
                texts.append(block.text)
            case "image" | "audio":
                _attach(attachments, block.data, block.mime_type, tool)
            case "resource_link":
                texts.append(f"{block.name}: {block.uri}")
            case "resource":
                inner = block.resource
                # The two kinds of contents differ in this one field.
                text, blob = getattr(inner, "text", None), getattr(inner, "blob", None)
                if isinstance(text, str):
                    texts.append(text)
                elif isinstance(blob, str):
                    _attach(attachments, blob, inner.mime_type, tool)
    if attachments:
        texts.append(f"[Files: {', '.join(each.name for each in attachments)}]")
    text = shortened(plain("\n".join(texts)), _LONGEST_TEXT)
    if result.is_error:
        return ToolOutput(content=text or f"{tool} failed, and didn't say why.", is_error=True)
    content: JsonValue = text or "(no output)"
    if result.structured_content is not None:
        content = result.structured_content
        written = json.dumps(content, ensure_ascii=False)
        if len(written) > _LONGEST_TEXT:
            content = text or shortened(written, _LONGEST_TEXT)
    return ToolOutput(content=content, attachments=tuple(attachments))


def _attach(attachments: list[Attachment], data: str, media_type: str | None, tool: str) -> None:
    if len(attachments) == _MOST_ATTACHMENTS:
        raise ToolError(f"{tool} sent more than {_MOST_ATTACHMENTS} files.")
    media = (media_type or "").partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.match(media):
        media = "application/octet-stream"
    name = f"{tool}-{len(attachments) + 1}{mimetypes.guess_extension(media) or '.bin'}"
    try:
        attachments.append(Attachment(name=name, media_type=media, data=data.encode()))
    except (ValidationError, ValueError) as error:
        raise ToolError(f"{tool} sent a file that can't be read. Try again.") from error
