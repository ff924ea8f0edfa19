"""The parser: pieces of a model's output in, an assistant's message out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from corral.messages import AssistantMessage, InvalidCall, StopReason, ToolCall, ToolSpec
from corral.model_runtime.parser.checking import check_calls, explain
from corral.model_runtime.parser.deltas import CallStarted, Delta, TextDelta
from corral.model_runtime.parser.gate import Gate
from corral.model_runtime.parser.hint import quotes_call
from corral.model_runtime.parser.intake import Intake
from corral.model_runtime.parser.literals import Fault
from corral.model_runtime.parser.offer import Found, Offer
from corral.model_runtime.parser.reader import Reading, read_message
from corral.model_runtime.parser.region import PYTHON_TAG, Turn
from corral.model_runtime.runtime import Piece

__all__ = ["OutputParser", "ParserOptions", "parse_output"]

_STOPS: dict[str, StopReason | None] = {
    "<|eot_id|>": "end_of_turn",
    "<|eom_id|>": "end_of_message",
    "<|end_of_text|>": "end_of_turn",
    "<|start_header_id|>": None,
    "<|begin_of_text|>": None,
}
"""Tokens that end a message, and the reason to stop that each stands for.

A header means that the model goes on to play another part, which says nothing of whether its
message was whole.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserOptions:
    """How strictly output is read.

    Attributes:
        strict: Whether anything that would have to be mended is an error instead.
        coerce: Whether arguments of a wrong type are mended where that loses nothing.
        validate: Whether arguments are checked against the tool's schema.
        parallel: Whether a message may hold more than one call.
        enabled: Whether calls are looked for at all; without, every message is text. Off is right
            when the model may not call a tool, or is to answer in a given form.
        max_calls: How many calls a message may hold.
        builtins: Llama's own tools that were offered, such as `"brave_search"`.
    """

    strict: bool = False
    coerce: bool = True
    validate: bool = True
    parallel: bool = True
    enabled: bool = True
    max_calls: int = 16
    builtins: tuple[str, ...] = ()


def _new_id() -> str:
    return f"call_{secrets.token_hex(8)}"


class OutputParser:
    """Turns one message of a model into text and calls, as it comes.

        parser = OutputParser(tools)
        async for piece in ...:
            for delta in parser.feed(piece):
                ...
        message = parser.finish(reason)
        for delta in parser.deltas:
            ...

    However the output is cut into pieces, the message is the same (but for its calls' ids), and so
    is the text of all `TextDelta`s together. That text is the message's, with two exceptions: where
    calls follow or precede prose the message has it without blanks at its ends, and prose that came
    before a broken call stays said.

    No method raises, whatever the model wrote.

    Args:
        tools: What the model was offered. A tool whose spec was made without `parameters` takes
            any; one of kind `code_interpreter` takes code behind `<|python_tag|>`.
        options: How strictly to read.
        new_id: Makes the ids of calls.
    """

    _watched = True

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        *,
        options: ParserOptions = ParserOptions(),
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """See the class."""
        self.deltas: tuple[Delta, ...] = ()
        """What `finish` let go: the text that had to wait, and the calls not yet told of."""
        self._options = options
        self._new_id = new_id
        self._offer = Offer(tools, options.builtins) if options.enabled else Offer(())
        self._gate = Gate(self._offer) if self._watched else None
        self._intake = Intake()
        self._parts: list[str] = []
        self._length = 0
        self._tags: list[int] = []
        self._header: list[str] | None = None
        self._headed = False
        self._newlines = 0
        self._at_start = True
        self._ended = False
        self._discarded = False
        self._stop: StopReason | None = None
        self._message: AssistantMessage | None = None

    def feed(self, piece: Piece | str | bytes) -> list[Delta]:
        """Take the next piece of output: what may be told of it now.

        Args:
            piece: A control token or a stretch of text (`Piece`); a string is a stretch of text,
                bytes are one in UTF-8, which may begin and end inside a character.
        """
        if self._message is not None:
            return []
        if isinstance(piece, Piece):
            if piece.is_special:
                deltas = self._plain(self._intake.flush())
                token = self._intake.text(piece.text) + self._intake.flush()
                return [*deltas, *self._control(token)]
            piece = piece.text
        if isinstance(piece, bytes):
            return self._plain(self._intake.data(piece))
        return self._plain(self._intake.text(piece))

    def finish(self, stop_reason: StopReason = "unknown") -> AssistantMessage:
        """End the message, and read it.

        Args:
            stop_reason: Why the model stopped. An end token among the pieces knows better.

        Returns:
            The message. What could not be told before is in `deltas`.
        """
        if self._message is None:
            left = self._plain(self._intake.flush())
            if self._header is not None:
                self._discarded = True
            self._message = self._read(self._stop or stop_reason)
            self.deltas = (*left, *self.deltas)
        return self._message

    # -- taking pieces

    def _plain(self, text: str) -> list[Delta]:
        """Take plain text, wherever it stands."""
        if not text:
            return []
        if self._ended:
            self._discarded = self._discarded or not text.isspace()
            return []
        if self._header is not None:
            self._header.append(text)
            return []
        return self._text(text)

    def _text(self, text: str) -> list[Delta]:
        while self._newlines and text.startswith("\n"):
            text = text[1:]
            self._newlines -= 1
        if not text:
            return []
        self._newlines = 0
        self._at_start = self._at_start and text.isspace()
        self._parts.append(text)
        self._length += len(text)
        return self._gate.text(text) if self._gate is not None else []

    def _control(self, token: str) -> list[Delta]:
        if self._ended:
            return []
        if self._header is not None:
            return self._end_header(token)
        if token == PYTHON_TAG and self._offer:
            self._newlines = 0
            self._at_start = False
            self._tags.append(self._length)
            self._parts.append(token)
            self._length += len(token)
            return self._gate.tag() if self._gate is not None else []
        if token == "<|start_header_id|>" and self._at_start and not self._headed:
            self._header = []
            self._headed = True
            return []
        if token == "<|begin_of_text|>" and self._at_start:
            return []
        if token in _STOPS:
            self._ended = True
            self._stop = _STOPS[token]
            self._discarded = self._stop is None
            return []
        return self._text(token)

    def _end_header(self, token: str) -> list[Delta]:
        """Behind a header's role: the assistant's own is passed over, any other ends it all."""
        role = "".join(self._header or ()).strip()
        self._header = None
        if token == "<|end_header_id|>" and role == "assistant":
            self._newlines = 2
        else:
            self._ended = self._discarded = True
        return []

    # -- reading

    def _read(self, stop: StopReason) -> AssistantMessage:
        text = "".join(self._parts)
        # Where the model went on to play another part, the message itself was not cut.
        cut_by = "unknown" if self._ended and self._stop is None else stop
        turn = Turn(self._offer, cut_by, max_calls=self._options.max_calls)
        if not self._offer:
            return self._say(turn, stop, text)
        try:
            reading = read_message(turn, text, self._tags)
            if not reading.calls:
                return self._say(turn, stop, text)
            if self._discarded:
                turn.warn(["discarded_after_stop"])
            if self._intake.broken:
                raise Fault("invalid_unicode")
            calls = check_calls(turn, reading.calls, self._options)
        except Fault as fault:
            return self._fail(turn, stop, text, fault)
        except RecursionError:
            return self._fail(turn, stop, text, Fault("too_deep"))
        return self._call(turn, stop, reading, calls)

    def _say(self, turn: Turn, stop: StopReason, text: str) -> AssistantMessage:
        """The message that is all text."""
        self._let_go(text)
        warnings = ["discarded_after_stop"] if self._discarded else []
        if self._offer and quotes_call(text, self._offer, turn.answer):
            warnings.append("possible_tool_call")
        return AssistantMessage(text=text, stop_reason=stop, warnings=tuple(warnings))

    def _call(
        self, turn: Turn, stop: StopReason, reading: Reading, found: Sequence[Found]
    ) -> AssistantMessage:
        """The message that holds calls."""
        before, after = reading.before.strip(), reading.after
        calls = tuple(
            ToolCall(id=self._new_id(), name=call.name, arguments=call.arguments) for call in found
        )
        text = f"{before}\n{after}" if before and after else before or after
        if self._gate is not None:
            released = bool(self._gate.released)
            last = ("\n" + after if after else "") if released else text
            told = len(self._gate.started)
            self.deltas = (
                *((TextDelta(last),) if last else ()),
                *(CallStarted(at, call.name) for at, call in enumerate(calls) if at >= told),
            )
        return AssistantMessage(
            text=text, calls=calls, stop_reason=stop, warnings=tuple(turn.warnings)
        )

    def _fail(self, turn: Turn, stop: StopReason, text: str, fault: Fault) -> AssistantMessage:
        """The message that begins a call and can't be read as one."""
        at = turn.tagged_at
        before = text[: at - len(PYTHON_TAG)] if at >= 0 else ""
        raw = text[at:] if at >= 0 else text
        self._let_go(before)
        invalid = InvalidCall(
            id=self._new_id(),
            raw=raw,
            code=fault.code,
            message=explain(fault, raw, self._offer),
            tagged=at >= 0,
            position=min(fault.at, len(raw)) if fault.at >= 0 else None,
        )
        return AssistantMessage(text=before, invalid=invalid, stop_reason=stop)

    def _let_go(self, text: str) -> None:
        """Tell what has not left of a text."""
        if self._gate is not None:
            rest = text[sum(map(len, self._gate.released)) :]
            self.deltas = (TextDelta(rest),) if rest else ()


class _WholeParser(OutputParser):
    """A parser whose deltas nobody reads, so that none are made."""

    _watched = False


def parse_output(
    output: str | bytes | Iterable[Piece | str | bytes],
    *,
    tools: Sequence[ToolSpec],
    stop_reason: StopReason = "unknown",
    options: ParserOptions = ParserOptions(),
    new_id: Callable[[], str] = _new_id,
) -> AssistantMessage:
    """Read a whole message. It never raises, whatever the model wrote.

    The message is one of four things:

    - accepted: `calls` in one of the ways that Llama models are taught, with the prose around them
      as `text`;
    - repaired: the same, where something that has one meaning only had to be mended; `warnings`
      says what. Under `options.strict` the first such thing is an error instead;
    - text: no call was begun; `text` is what was written, byte for byte. The warning
      `possible_tool_call` tells that it quotes a call;
    - an error: a call was begun, or `<|python_tag|>` stood before, and it can't be read or may not
      run. `invalid` has its `code`, the `position` in its `raw` text, and a `message` to show to
      the model. Of several calls none runs if one is bad, and one that was cut off never does.

    Args:
        output: What the model wrote. A string holds no control tokens, whatever it looks like; see
            `pieces_from_text` for strings that do, and `pieces_from_ids` for token ids. Bytes are
            UTF-8.
        tools: What the model was offered: only these can be called. Without any all is text.
        stop_reason: Why the model stopped; an end token among the pieces knows better. It says
            whether the last bracket was forgotten or cut off.
        options: How strictly to read.
        new_id: Makes the ids of calls.

    Returns:
        The message. The codes in it are keys of `ERROR_STAGES`, of `WARNINGS`, and members of
        `INFORMATIONAL`; `describe` says what each means.
    """
    parser = _WholeParser(tools, options=options, new_id=new_id)
    for piece in (output,) if isinstance(output, str | bytes) else output:
        parser.feed(piece)
    return parser.finish(stop_reason)
