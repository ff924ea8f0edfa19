"""A client's list of messages as a conversation that an agent can go on with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from corral.errors import ConfigError
from corral.messages import AssistantMessage, ImagePart, Message, Part, TextPart, UserMessage
from corral.model_runtime.local.images import check_image
from corral.server.errors import ApiError

__all__ = ["Line", "Role", "continue_from", "image_part", "role_of"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message of a client, whichever interface it came by."""

    role: Role
    text: str
    images: tuple[ImagePart, ...] = ()


def continue_from(
    lines: Sequence[Line], *, param: str = "messages"
) -> tuple[list[Message], UserMessage]:
    """What was said before, and the user's message that the turn answers: the last line.

    A client's system messages have the user's standing and no more, since an agent's instructions
    are its operator's: each goes in front of the user's next message. So does a greeting that the
    client had the agent say first.

    Raises:
        ApiError: 400, the last line is not the user's.
    """
    if not lines or lines[-1].role != "user":
        raise ApiError(
            400,
            "The last message must be the user's: it is what the agent answers.",
            param=param,
        )
    messages: list[Message] = []
    notes: list[str] = []
    for line in lines:
        if line.role == "system":
            notes.append(line.text)
        elif line.role == "assistant" and line.text.strip():
            if messages:
                messages.append(AssistantMessage(text=line.text))
            else:  # a conversation is the user's to begin: no model was trained on another order
                notes.append(f"(You greeted me: {line.text})")
        elif line.role == "user":
            messages.append(_user_message("\n\n".join([*notes, line.text]), line.images))
            notes.clear()
    last = messages.pop()
    assert isinstance(last, UserMessage)
    return messages, last


def role_of(role: str, known: Mapping[str, Role], *, has_calls: bool) -> Role:
    """The role of a client's message, by the names that the interface has for roles.

    Raises:
        ApiError: 400, it holds calls of tools, or the result of one: an agent's are its own.
    """
    if has_calls or role not in known:
        raise ApiError(
            400,
            f"A message of the role {role!r} with tools' calls or results has no place in an "
            "agent's conversation: its tools run on the server. Leave it out.",
            param="messages",
        )
    return known[role]


def image_part(data: str, *, param: str = "messages") -> ImagePart:
    """An image that came as base64, known by its first bytes.

    Raises:
        ApiError: 400, it is no base64, neither PNG, JPEG nor WebP, or too large.
    """
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400, "An image is not valid base64. Encode its bytes.", param=param
        ) from None
    try:
        media_type = check_image(raw)
    except ConfigError as error:
        raise ApiError(400, str(error), param=param) from None
    return ImagePart.model_validate({"media_type": media_type, "data": data})


def _user_message(text: str, images: Sequence[ImagePart]) -> UserMessage:
    if not images:
        return UserMessage(content=text)
    parts: list[Part] = [*images, TextPart(text=text)]
    return UserMessage(content=tuple(parts))
