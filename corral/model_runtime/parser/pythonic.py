"""Calls as Llama 3.2 is asked to write them: `[get_weather(city='Oslo'), now()]`.

Read by hand rather than by Python's own parser, which refuses names with hyphens and parameters
that are Python's keywords, joins strings that stand side by side, and lets the last of two equal
parameters win.
"""

from __future__ import annotations

from pydantic import JsonValue

from corral.model_runtime.parser.literals import BLANKS, Fault, Scanner
from corral.model_runtime.parser.offer import (
    LONGEST_NAME,
    Found,
    Offer,
    in_name,
    is_legal_name,
)
from corral.model_runtime.parser.region import Region

__all__ = ["name_end", "read_bare", "read_lists"]


def name_end(text: str, start: int) -> int:
    """Where the tool's name that begins at `start` ends; `start` itself if none begins there."""
    pos = start
    if text[pos : pos + 1].isalnum() or text[pos : pos + 1] == "_":
        while in_name(text[pos : pos + 1]):
            pos += 1
    return pos


def read_lists(region: Region, pos: int) -> list[Found] | None:
    """Read calls in a list, or in several; None if there is none.

    Raises:
        Fault: It begins as a list of calls and goes wrong.
    """
    turn = region.turn
    calls: list[Found] = []
    end = pos
    codes: list[str] = []
    while region.text[pos : pos + 1] == "[":
        scanner = region.scanner(pos, python=True)
        found = _read_list(scanner, region)
        if found is None:
            if not calls:
                return None
            break
        region.settle(scanner, found[0].name)
        if calls:
            turn.warn([*codes, "multiple_lists"])
        for call in found:
            turn.add(calls, call)
        end = scanner.pos
        pos, codes = region.gap(end)
    if not region.tagged and region.text[end : end + 1] == "(":
        return None  # A link: [f()](https://...).
    region.finish(end, "[")
    return calls


def _read_list(scanner: Scanner, region: Region) -> list[Found] | None:
    """Read one list; the scanner stands at its `[`, and afterwards behind its `]`."""
    turn = region.turn
    scanner.pos += 1
    scanner.peek()
    # Behind a tag, a list of calls that were not offered may be code, if code can be run.
    only_offered = region.tagged and turn.offer.interpreter is not None
    name = _opening_name(scanner, turn.offer, only_offered=only_offered)
    if name is None:
        return None
    calls: list[Found] = []
    while True:
        start = scanner.pos - 1 - len(name)
        known, code = turn.offer.resolve(name)
        if code:
            scanner.warn(code)
        turn.add(calls, Found(known, _read_keywords(scanner, known), start))
        char = scanner.peek()
        if scanner.at_end and turn.stopped:
            scanner.warn("missing_closing_bracket")
            return calls
        if char == ",":
            scanner.pos += 1
            char = scanner.peek()
        elif char != "]":
            raise Fault("truncated" if scanner.at_end else "malformed_call", at=scanner.pos)
        if char == "]":
            scanner.pos += 1
            return calls
        name = _next_name(scanner, turn.offer)


def read_bare(region: Region, pos: int) -> list[Found] | None:
    """Read calls that stand by themselves: `f(x=1)`, or Llama's own `brave_search.call(query='x')`.

    They count only if there is nothing else in the region, but for prose after a tool of Llama's
    own behind a tag.

    Raises:
        Fault: A call of a tool of Llama's own goes wrong.
    """
    calls: list[Found] = []
    codes: dict[str, None] = {}
    ways: set[str] = set()
    end = pos
    while pos < len(region.text):
        start = pos
        pos = name_end(region.text, start)
        name = region.text[start:pos]
        known, way = _bare_way(region, name)
        if way is None or region.text[pos : pos + 1] != "(":
            break
        arguments = _bare_arguments(region, known, pos + 1, native=way in _NATIVE)
        if arguments is None:
            break
        ways.add(way)
        codes.update(arguments[1])
        if len(calls) <= region.turn.max_calls:  # One more says that there are too many.
            calls.append(Found(known, arguments[0], start))
        end = arguments[2]
        pos, gaps = region.gap(end)
        codes.update(dict.fromkeys(gaps) if pos < len(region.text) else {})
    native = ways == {"native"}
    if not calls or (pos < len(region.text) and not native):
        return None
    region.turn.warn([*sorted(ways - {"native"}), *codes])
    region.finish(end)
    return calls


_NATIVE = ("native", "missing_python_tag")


def _bare_way(region: Region, name: str) -> tuple[str, str | None]:
    """The tool that is meant, and as a warning code how it is called: None if it can't be."""
    offer = region.turn.offer
    if name in offer.names:
        return name, "missing_list_brackets"
    known, code = offer.resolve(name)
    if code is not None:
        return known, code
    if known in offer.names or (
        region.tagged and offer.interpreter is None and name.endswith(".call")
    ):
        return name.removesuffix(".call"), "native" if region.tagged else "missing_python_tag"
    return name, None


def _bare_arguments(
    region: Region, name: str, pos: int, *, native: bool
) -> tuple[dict[str, JsonValue], dict[str, None], int] | None:
    """A bare call's arguments, what had to be mended in them, and where the call ends."""
    scanner = region.scanner(pos, python=True)
    try:
        arguments = _read_keywords(scanner, name)
        if scanner.fault is not None:
            raise scanner.fault
    except Fault:
        if native and name in region.turn.offer.names:
            raise
        return None
    return arguments, scanner.warnings, scanner.pos


def _opening_name(scanner: Scanner, offer: Offer, *, only_offered: bool) -> str | None:
    """The first call's name, if the list begins with a call; the scanner then stands behind `(`."""
    text, start = scanner.text, scanner.pos
    pos = text.find("(", start, start + LONGEST_NAME)
    name = text[start:pos]
    # The common case, without a look at every character.
    if pos > 0 and name in offer.names and is_legal_name(name):
        scanner.pos = pos + 1
        return name
    pos = name_end(text, start)
    name = text[start:pos]
    known = offer.resolve(name)[0] in offer.names
    while known and text[pos] in BLANKS:
        pos += 1
    if not name or text[pos] != "(":
        return None
    if not known and (
        only_offered or not is_legal_name(name) or not _begins_keywords(text, pos + 1)
    ):
        return None
    scanner.pos = pos + 1
    return name


def _begins_keywords(text: str, pos: int) -> bool:
    """Whether what follows `(` is `)` or `name=`, rather than the prose of `[f(x)]`."""
    while text[pos] in BLANKS:
        pos += 1
    if text[pos] == ")":
        return True
    end = _keyword_end(text, pos)
    while end > pos and text[end] in BLANKS:
        end += 1
    return end > pos and text[end] == "=" and text[end + 1] != "="


def _next_name(scanner: Scanner, offer: Offer) -> str:
    """The name of a list's next call; the scanner then stands behind its `(`."""
    start = scanner.pos
    paren = scanner.text.find("(", start, start + LONGEST_NAME)
    name = scanner.text[start:paren]
    if paren > 0 and name in offer.names and is_legal_name(name):
        scanner.pos = paren + 1
        return name
    scanner.pos = name_end(scanner.text, start)
    name = scanner.text[start : scanner.pos]
    char = scanner.peek()
    if scanner.at_end:
        raise scanner.cut()
    if not name or char != "(":
        raise Fault("mixed_list", at=start)
    scanner.pos += 1
    return name


def _read_keywords(scanner: Scanner, name: str) -> dict[str, JsonValue]:
    """Read the arguments of a call of `name`, from behind its opening parenthesis.

    Raises:
        Fault: They can't be read, or one is given twice or without its name.
    """
    found: dict[str, JsonValue] = {}
    if scanner.peek() == ")":
        scanner.pos += 1
        return found
    while True:
        start = scanner.pos
        key = _keyword(scanner, name)
        try:
            value = scanner.value()
            closed = scanner.closes(")")
        except Fault as fault:
            fault.words = fault.words or f"In the call of {name!r}, parameter {key!r}:"
            raise
        if key in found:
            where = f"In the call of {name!r}, parameter {key!r}:"
            raise Fault("duplicate_argument", where, at=start)
        found[key] = value
        if closed:
            return found


def _keyword(scanner: Scanner, name: str) -> str:
    """Read a parameter's name and its `=`, up to where the value begins."""
    text = scanner.text
    char = text[scanner.pos]
    if char in BLANKS:
        char = scanner.peek()
    start = scanner.pos
    sign = text.find("=", start, start + LONGEST_NAME)
    key = text[start:sign]
    if sign > 0 and key.isidentifier() and key.isascii():
        scanner.pos = sign + 1
        if text[sign + 1] in BLANKS:
            scanner.peek()
        return key
    scanner.pos = _keyword_end(text, start)
    key = text[start : scanner.pos]
    after = scanner.peek()
    where = f"In the call of {name!r}:"
    if scanner.at_end:
        raise Fault("truncated", where, at=scanner.pos)
    if key and after == "=":
        scanner.pos += 1
        scanner.peek()
        return key
    unnamed = after != ":" if key else char not in ",:=]};"
    raise Fault("positional_arguments" if unnamed else "malformed_call", where, at=start)


def _keyword_end(text: str, pos: int) -> int:
    """Where a parameter's name ends; hyphens are no Python, but JSON Schema allows them."""
    if not (text[pos].isalpha() or text[pos] == "_"):
        return pos
    while text[pos].isalnum() or text[pos] in "_-":
        pos += 1
    return pos
