"""Calls as JSON objects: `{"name": "get_weather", "parameters": {"city": "Oslo"}}`.

`shape_call` tells calls from the other objects that a model may write, such as an answer that
happens to have a `name`. `Draft` keeps what could be read of an object that is broken, so that a
broken call is told from broken prose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

from corral.model_runtime.parser.literals import Fault, Scanner, decode_json
from corral.model_runtime.parser.offer import Found, Offer, is_legal_name
from corral.model_runtime.parser.region import Region

__all__ = ["read_object_lists", "read_objects"]

_ARGUMENTS = ("parameters", "arguments")
_CALL_KEYS = frozenset({"name", "type", "function", *_ARGUMENTS})


@dataclass(slots=True)
class Draft:
    """What is known of an object that may never be finished."""

    fields: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    key: str | None = None
    """The key whose value is being read."""
    start: int = 0
    """Where that value begins."""
    bare: str = ""
    """A key without quotes, at which reading stopped."""
    inner: Draft | None = None
    """The object under `function`, as OpenAI nests it."""


def read_draft(scanner: Scanner, draft: Draft, *, may_close: bool, depth: int = 1) -> None:
    """Read the object at `scanner.pos` into `draft`.

    Args:
        scanner: Stands at the opening brace; afterwards behind the closing one.
        draft: Filled as far as reading goes, even when it stops with a `Fault`.
        may_close: Whether a missing closing brace may be added at the end of the text: only if the
            model stopped by itself. Only the envelope's, never one that belongs to the arguments.
        depth: How many brackets are open with this one.

    Raises:
        Fault: The text can't be read on.
    """
    scanner.pos += 1
    if scanner.peek() == "}":
        scanner.pos += 1
        return
    while True:
        _read_key(scanner, draft)
        if draft.key == "function" and scanner.text[scanner.pos] == "{" and depth < 4:
            draft.inner = Draft()
            read_draft(scanner, draft.inner, may_close=may_close, depth=depth + 1)
            item: JsonValue = draft.inner.fields
        else:
            item = scanner.value(depth + 1)
        scanner.put(draft.fields, draft.key or "", item)
        draft.key = None
        scanner.peek()
        if scanner.at_end and may_close and _has_arguments(draft.fields):
            scanner.warn("missing_closing_brace")
            return
        if scanner.closes("}"):
            return


def _read_key(scanner: Scanner, draft: Draft) -> None:
    char = scanner.peek()
    if char.isalpha():
        end = scanner.pos
        while scanner.text[end].isalnum() or scanner.text[end] == "_":
            end += 1
        draft.bare = scanner.text[scanner.pos : end] if scanner.text[end] == ":" else ""
    draft.key = scanner.key()
    draft.start = scanner.pos


def _has_arguments(fields: dict[str, JsonValue]) -> bool:
    """Whether the arguments have been read to their end, so that only the envelope is open."""
    inner = fields.get("function")
    if isinstance(inner, dict) and "name" not in fields:
        fields = inner
    return "name" in fields and any(key in fields for key in _ARGUMENTS)


def looks_like_call(draft: Draft, region: Region) -> bool:
    """Whether an object that could not be read to its end was going to be a call."""
    offer = region.turn.offer
    if draft.bare in _CALL_KEYS:
        return True
    fields = draft.fields
    arguments = draft.key in _ARGUMENTS or any(key in fields for key in _ARGUMENTS)
    name = fields.get("name", fields.get("function"))
    if isinstance(name, str):
        known = name.strip() in offer.names
        return known or (is_legal_name(name) and arguments) or fields.get("type") == "function"
    if fields.get("type") == "function":
        return True
    if draft.inner is not None:
        return looks_like_call(draft.inner, region)
    if draft.key == "name":
        begun = region.text[draft.start + 1 :]
        return bool(begun) and any(name.startswith(begun) for name in offer.names)
    return arguments and region.quotes_a_name


def shape_call(
    fields: dict[str, JsonValue], offer: Offer, warnings: dict[str, None], *, tagged: bool
) -> Found | None:
    """Make a call of an object, or None if the object is something else.

    Args:
        fields: The object.
        offer: What was offered.
        warnings: Gains the codes of what had to be mended, if it is a call.
        tagged: Whether `<|python_tag|>` stood before it, so that nothing but a call is due.

    Raises:
        Fault: The object is a call, and a bad one.
    """
    inner = fields.get("function")
    if not isinstance(inner, dict) or "name" in fields:
        return _shape_flat(fields, offer, warnings, marked=tagged)
    if _is_definition(inner):
        return None
    call = _shape_flat(inner, offer, warnings, marked=True)
    if call is not None:
        warnings["openai_nested"] = None
        _note_rest(fields, {"type", "function"}, warnings)
    return call


def _is_definition(fields: dict[str, JsonValue]) -> bool:
    """Whether an object describes a tool, instead of calling one."""
    parameters = fields.get("parameters")
    return (
        "description" in fields
        and isinstance(parameters, dict)
        and (parameters.get("type") == "object" or "properties" in parameters)
    )


def _note_rest(fields: dict[str, JsonValue], expected: set[str], warnings: dict[str, None]) -> None:
    if fields.get("type", "function") != "function":
        warnings["unexpected_type"] = None
    if not fields.keys() <= expected:
        warnings["extra_keys"] = None


def _shape_flat(
    fields: dict[str, JsonValue], offer: Offer, warnings: dict[str, None], *, marked: bool
) -> Found | None:
    marked = marked or fields.get("type") == "function"
    label = "name" if "name" in fields else "function"
    name = fields.get(label)
    keys = [key for key in _ARGUMENTS if key in fields]
    if not isinstance(name, str):
        if fields.get("type") == "function" and keys:
            raise Fault("malformed_call", "The object gives no tool's name.")
        return None
    offered = name in offer.names
    if not offered and name.strip() in offer.names:
        offered, name = True, name.strip()
    known = offered or marked
    if not known and (not is_legal_name(name) or _is_definition(fields)):
        return None
    if not keys and not (known and fields.keys() <= {label, "type"}):
        return None
    if len(keys) == 2:
        raise Fault("ambiguous_arguments", f"In the call of {name!r}:")
    notes: dict[str, None] = {}
    arguments = _arguments(fields[keys[0]], notes) if keys else {}
    if arguments is None:
        if not known:
            return None
        raise Fault("arguments_not_object", f"In the call of {name!r}:")
    if not keys:
        notes["missing_arguments_key"] = None
    if label != "name":
        notes["name_key_function"] = None
    if name != fields[label]:
        notes["name_whitespace"] = None
    _note_rest(fields, {label, "type", *keys}, notes)
    warnings.update(notes)
    return Found(name, arguments)


def _arguments(value: JsonValue, warnings: dict[str, None]) -> dict[str, JsonValue] | None:
    """The arguments as an object, None if they can't be made one."""
    if isinstance(value, dict):
        return value
    if value is None:
        warnings["null_arguments"] = None
        return {}
    if value == []:
        warnings["empty_list_arguments"] = None
        return {}
    return _unstring(value, warnings) if isinstance(value, str) else None


def _unstring(text: str, warnings: dict[str, None]) -> dict[str, JsonValue] | None:
    """The object that a string holds: some models encode the arguments twice."""
    scanner = Scanner(text.strip())
    if not scanner.text.startswith("{"):
        return None
    fast = decode_json(scanner.text, 0)
    if fast is not None:
        value, scanner.pos = fast
    else:
        try:
            value = scanner.mapping(2)
            if scanner.fault is not None:
                raise scanner.fault
        except Fault as fault:
            fault.at = -1  # It counts from the beginning of the string.
            raise
    if not scanner.at_end or not isinstance(value, dict):
        return None
    warnings["stringified_arguments"] = None
    warnings.update(scanner.warnings)
    return value


def read_objects(region: Region, pos: int) -> list[Found] | None:
    """Read calls that are written as objects, one after the other; None if there is none.

    Raises:
        Fault: One of them is a call, and a bad one.
    """
    calls: list[Found] = []
    end = pos
    codes: list[str] = []
    while region.text[pos : pos + 1] == "{":
        call, stop = _read_object(region, pos, later=bool(calls))
        if call is None:
            if not calls:
                region.resume = stop
                return None
            break
        call.at = pos
        region.turn.warn(codes)
        region.turn.add(calls, call)
        end = stop
        pos, codes = region.gap(end)
    region.finish(end, "{")
    return calls


def _read_object(region: Region, pos: int, *, later: bool) -> tuple[Found | None, int]:
    """The call that an object makes, None if it makes none; and where the object ends, if known."""
    turn = region.turn
    tagged = region.tagged and not later
    fast = region.decode(pos)
    if fast is not None:
        value, end = fast
        fields = value if isinstance(value, dict) else {}
        call = _shape(fields, region, pos, tagged=tagged)
        if call is None and not later:
            turn.answer = fields
        return _not_half(call, fields, pos, later=later), end
    scanner = region.scanner(pos, python=False)
    draft = Draft()
    try:
        read_draft(scanner, draft, may_close=turn.stopped)
    except Fault as fault:
        if looks_like_call(draft, region) or (later and fault.code == "truncated"):
            raise _named(fault, draft) from None
        region.fault = fault
        return None, pos if later else 0
    call = _shape(draft.fields, region, pos, tagged=tagged)
    if call is not None:
        region.settle(scanner, call.name)
    return _not_half(call, draft.fields, pos, later=later), scanner.pos


def _shape(
    fields: dict[str, JsonValue], region: Region, pos: int, *, tagged: bool = False
) -> Found | None:
    """`shape_call` of an object that begins at `pos`."""
    try:
        return shape_call(fields, region.turn.offer, region.turn.warnings, tagged=tagged)
    except Fault as fault:
        fault.at = pos
        raise


def _not_half(
    call: Found | None, fields: dict[str, JsonValue], pos: int, *, later: bool
) -> Found | None:
    """After a call, an object with arguments and no tool is half a call rather than prose."""
    if call is None and later and any(key in fields for key in _ARGUMENTS):
        raise Fault("malformed_call", at=pos)
    return call


def _named(fault: Fault, draft: Draft) -> Fault:
    name = draft.fields.get("name")
    if isinstance(name, str) and not fault.words:
        fault.words = f"In the call of {name!r}:"
    return fault


def read_object_lists(region: Region, pos: int) -> list[Found] | None:
    """Read calls that are written as objects in a list, or in several; None if there is none.

    Raises:
        Fault: One of them is a call, and a bad one, or something else stands among them.
    """
    calls: list[Found] = []
    end = pos
    codes: list[str] = []
    while region.text[pos : pos + 1] == "[":
        found, stop = _read_object_list(region, pos, later=bool(calls))
        if found is None:
            if not calls:
                region.resume = stop
                return None
            break
        if calls:
            region.turn.warn([*codes, "multiple_lists"])
        for call in found:
            region.turn.add(calls, call)
        end = stop
        pos, codes = region.gap(end)
    region.finish(end, "[")
    return calls


def _read_object_list(region: Region, pos: int, *, later: bool) -> tuple[list[Found] | None, int]:
    fast = region.decode(pos)
    if fast is not None:
        value, end = fast
        items = value if isinstance(value, list) else []
        shaped = (_shape(item, region, pos) for item in items if isinstance(item, dict))
        found = [call for call in shaped if call is not None]
        count = len(items)
    else:
        scanner = region.scanner(pos, python=False)
        reading = _ListReading(region, pos)
        try:
            count = reading.read(scanner)
        except Fault as fault:
            if (later and fault.code == "truncated") or reading.likely:
                raise
            region.fault = fault
            return None, 0
        found, end = reading.found, scanner.pos
        if found:
            region.settle(scanner, found[0].name)
    if not found:
        return None, end
    if len(found) < count:
        raise Fault("mixed_list", at=pos)
    for call in found:
        call.at = pos
    return found, end


class _ListReading:
    """The slow reading of one list, of which nothing is kept but its calls.

    Attributes:
        found: The calls read so far.
        likely: Whether any of its objects is a call, or was going to be one.
    """

    def __init__(self, region: Region, pos: int) -> None:
        self.found: list[Found] = []
        self.likely = False
        self._region = region
        self._pos = pos

    def read(self, scanner: Scanner) -> int:
        """Read the list at the scanner: how many items it has."""
        stopped = self._region.turn.stopped
        scanner.pos += 1
        count = 0
        while True:
            if scanner.peek() == "{":
                self._object(scanner, may_close=stopped)
            else:
                scanner.value(2)
            count += 1
            scanner.peek()
            if scanner.at_end and stopped:
                scanner.warn("missing_closing_brace")
                return count
            if scanner.closes("]"):
                return count

    def _object(self, scanner: Scanner, *, may_close: bool) -> None:
        draft = Draft()
        try:
            read_draft(scanner, draft, may_close=may_close, depth=2)
        except Fault:
            self.likely = self.likely or looks_like_call(draft, self._region)
            raise
        call = _shape(draft.fields, self._region, self._pos)
        self.likely = self.likely or call is not None or looks_like_call(draft, self._region)
        if call is not None:
            self._region.turn.add(self.found, call)
