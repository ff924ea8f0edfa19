"""From what a Llama model writes to text and tool calls.

    message = parse_output("[get_weather(city='Oslo')]", tools=tools)

Llama models write calls in half a dozen ways, whatever they were asked for. Every way that has one
meaning only is read, with what had to be mended told in the message's `warnings`; of what has none
or two, nothing runs, and the message's `invalid` says in words what is wrong. What is no call is
text, byte for byte.

The parser never raises, evaluates nothing, and takes time in proportion to the text. The codes of
its errors and warnings are in `ERROR_STAGES`, `WARNINGS` and `INFORMATIONAL`, and `describe` says
what each means. Its parts: `pieces` and `intake` make characters and control tokens of what a
server sends; `output` takes them and makes messages; `gate` lets text through while the model
speaks; `reader` reads a whole message with the help of `envelope` (JSON), `pythonic` and
`functags`, all three of which read values with `literals`; `checking` compares calls to the tools
that were offered, and `arguments` their arguments to the tools' schemas.
"""

from corral.model_runtime.parser.arguments import ArgumentError, check_arguments
from corral.model_runtime.parser.codes import ERROR_STAGES, INFORMATIONAL, WARNINGS, describe
from corral.model_runtime.parser.deltas import ArgumentsDelta, CallStarted, Delta, TextDelta
from corral.model_runtime.parser.output import (
    OutputParser,
    ParserOptions,
    parse_output,
)
from corral.model_runtime.parser.pieces import pieces_from_ids, pieces_from_text

__all__ = [
    "ERROR_STAGES",
    "INFORMATIONAL",
    "WARNINGS",
    "ArgumentError",
    "ArgumentsDelta",
    "CallStarted",
    "Delta",
    "OutputParser",
    "ParserOptions",
    "TextDelta",
    "check_arguments",
    "describe",
    "parse_output",
    "pieces_from_ids",
    "pieces_from_text",
]
