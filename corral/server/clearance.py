"""Earlier messages that a client sends along: judged like any, and once.

A client without a session sends its whole conversation with each request, and may have written
any of it itself. A guard judges the last message only, so what stands before it would go
unjudged. Here each earlier message is judged in its place, the user's as an input and the agent's
as an answer, and an exchange that is found unsafe is left out, as a session would hide it.

What this server has judged before is remembered by a hash of the conversation up to that message,
so a client that sends back what it was told costs nothing more.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from corral.errors import ShieldError
from corral.events import Gate
from corral.messages import AssistantMessage, Message, UserMessage
from corral.safety import Said, Shield, ask

__all__ = ["Clearance"]

_REMEMBERED = 10_000
_SECONDS = 60.0


class Clearance:
    """What an agent's shield has said about the conversations of clients without a session."""

    def __init__(self, shield: Shield | None) -> None:
        """Judge with `shield`; without one everything passes."""
        self._shield = shield
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        # Keyed, so that what the server remembers can't be told from guessed conversations.
        self._key = secrets.token_bytes(32)

    async def keep(self, history: Sequence[Message]) -> list[Message]:
        """The messages of `history` that a model may see: those of exchanges that pass.

        Raises:
            ShieldError: The shield gave no verdict. Nothing may be shown to a model then.
        """
        if self._shield is None:
            return list(history)
        kept: list[Message] = []
        for exchange in _exchanges(history):
            if await self._passes(kept, exchange):
                kept += exchange
        return kept

    def learn(
        self, kept: Sequence[Message], message: UserMessage, answer: str, *, safe: bool
    ) -> None:
        """Remember a turn that the agent's own gates have judged: answered, or blocked."""
        if self._shield is None:
            return
        conversation: list[Message] = [*kept, message]
        self._remember(self._hash(conversation), safe)
        if safe and answer:
            conversation.append(AssistantMessage(text=answer))
            self._remember(self._hash(conversation), True)

    async def _passes(self, kept: Sequence[Message], exchange: Sequence[Message]) -> bool:
        conversation = list(kept)
        for message in exchange:
            conversation.append(message)
            key = self._hash(conversation)
            safe = self._known.get(key)
            if safe is None:
                safe = await self._judge(conversation)
            self._remember(key, safe)
            if not safe:
                return False
        return True

    async def _judge(self, conversation: Sequence[Message]) -> bool:
        assert self._shield is not None
        gate: Gate = "input" if isinstance(conversation[-1], UserMessage) else "answer"
        check = await ask(self._shield, gate, _said(conversation), seconds=_SECONDS)
        if check.blocked and check.verdict.reason:
            raise ShieldError(
                f"An earlier message could not be judged: {check.verdict.reason}. Try again."
            )
        return not check.blocked

    def _remember(self, key: bytes, safe: bool) -> None:
        self._known[key] = safe
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _hash(self, conversation: Sequence[Message]) -> bytes:
        texts = json.dumps([[said.who, said.text.strip()] for said in _said(conversation)])
        return hashlib.blake2b(texts.encode(), key=self._key, digest_size=32).digest()


def _exchanges(history: Sequence[Message]) -> list[list[Message]]:
    """The history cut before each of the user's messages."""
    exchanges: list[list[Message]] = []
    for message in history:
        if isinstance(message, UserMessage) or not exchanges:
            exchanges.append([])
        exchanges[-1].append(message)
    return exchanges


def _said(conversation: Sequence[Message]) -> list[Said]:
    said: list[Said] = []
    for message in conversation:
        if isinstance(message, UserMessage):
            said.append(Said("user", message.text))
        elif isinstance(message, AssistantMessage):
            said.append(Said("agent", message.text))
    return said
