"""Values as models write them: JSON, and Python's literals.

`decode_json` is the fast way: the standard library's decoder, refusing what it would let through
(a key twice, NaN, numbers without end, half characters, deep nests). `Scanner` is the slow and
patient way, one pass with no backtracking over JSON or Python text. It mends what has one meaning
only and notes it in `warnings`. It raises `Fault` where the text can't be read on; what is
readable but wrong it keeps in `fault`, since only its reader knows whether the text is a call.

Nothing is ever evaluated, and depth is bounded.
"""

from __future__ import annotations

import json

from pydantic import JsonValue

__all__ = ["BLANKS", "MAX_DEPTH", "MAX_DIGITS", "Fault", "Scanner", "decode_json"]

BLANKS = " \t\r\n"
"""The characters that separate and mean nothing else."""

MAX_DEPTH = 64
"""How many brackets may be open at once."""

MAX_DIGITS = 400
"""How long a number may be, in characters; Python itself refuses integers from 4,301 digits."""

_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")
_AFTER_NUMBER = frozenset(",)]} \t\r\n")
_PLAIN_DIGITS = 20
"""Up to so many digits need no second thought."""
_FLOAT = frozenset("0123456789.eE+-")
_JSON_ESCAPES = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_PYTHON_ESCAPES = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "\n": "",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_JSON_WORDS: dict[str, JsonValue] = {"true": True, "false": False, "null": None}
_PYTHON_WORDS: dict[str, JsonValue] = {"True": True, "False": False, "None": None}
_NOT_FINITE = frozenset({"NaN", "nan", "Infinity", "inf"})


class Fault(Exception):
    """What is wrong with a text: an error code, words that say in what, and where.

    Attributes:
        code: The error code.
        words: Such as 'In the call of f:', if there are any.
        at: Where in the text reading stopped, -1 if that is not known or says nothing.
    """

    def __init__(self, code: str, words: str = "", *, at: int = -1) -> None:
        """See the class."""
        super().__init__(code)
        self.code = code
        self.words = words
        self.at = at


class _Refused(ValueError):
    """The fast way met something for the slow way to judge."""


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused
    return found


def _refuse(constant: str) -> JsonValue:
    raise _Refused


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if len(digits) > MAX_DIGITS or value in (float("inf"), float("-inf")):
        raise _Refused
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer, parse_float=_number
)


def decode_json(text: str, start: int) -> tuple[JsonValue, int] | None:
    """Read the JSON value that begins at `start`: the value and where it ends.

    None means that there is something to look at more closely, not what.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    brackets = text.count("{", start, end) + text.count("[", start, end)
    surrogates = text.find("\\ud", start, end) >= 0 or text.find("\\uD", start, end) >= 0
    if (brackets > MAX_DEPTH or surrogates) and not _sound(value):
        return None
    return value, end


def _sound(value: JsonValue) -> bool:
    """Whether a value is within the depth limit and its strings are whole characters."""
    level: list[JsonValue] = [value]
    for depth in range(MAX_DEPTH + 1):
        deeper: list[JsonValue] = []
        nested = False
        for item in level:
            if isinstance(item, dict):
                nested = True
                deeper += item.keys()
                deeper += item.values()
            elif isinstance(item, list):
                nested = True
                deeper += item
            elif isinstance(item, str) and not _whole(item):
                return False
        if not nested or depth == MAX_DEPTH:
            return not nested
        level = deeper
    return False


def _whole(text: str) -> bool:
    """Whether text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Scanner:
    """Reads values from `text`, from `pos` on.

    Args:
        text: The text.
        pos: Where to begin.
        python: Whether the text is Python (the values of `f(x=1)`) or JSON.
    """

    def __init__(self, text: str, pos: int = 0, *, python: bool = False) -> None:
        """See the class."""
        # With a sentinel, looking at the next character needs no test for the end.
        self.text = text + "\0"
        self.end = len(text)
        self.pos = pos
        self.python = python
        self.warnings: dict[str, None] = {}
        self.fault: Fault | None = None

    # -- what readers of calls use, too

    def peek(self) -> str:
        """Pass over blanks; the character that follows, a null character at the end."""
        text, pos = self.text, self.pos
        while text[pos] in BLANKS:
            pos += 1
        self.pos = pos
        return text[pos]

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.pos >= self.end

    def warn(self, code: str) -> None:
        """Note what had to be mended."""
        self.warnings[code] = None

    def soft(self, code: str, words: str = "") -> None:
        """Note what is wrong yet doesn't hinder reading on; the first such fault counts."""
        if self.fault is None:
            self.fault = Fault(code, words, at=self.pos)

    def cut(self) -> Fault:
        """The fault of a text that ends where it should go on."""
        return Fault("truncated", at=self.end)

    def unexpected(self) -> Fault:
        """The fault of meeting the character at `pos`."""
        if self.at_end:
            return self.cut()
        if not self.python:
            return Fault("invalid_json", at=self.pos)
        last = self.pos - 1
        while last >= 0 and self.text[last] in BLANKS:
            last -= 1
        if self.text[self.pos] in "\"'" and last >= 0 and self.text[last] in "\"'":
            return Fault("ambiguous_string", at=self.pos)
        return Fault("non_literal", at=self.pos)

    def closes(self, bracket: str) -> bool:
        """After an item: step past the comma or the closing bracket; True if it was the bracket.

        Behind a comma, blanks are passed over too.
        """
        char = self.text[self.pos]
        if char in BLANKS:
            char = self.peek()
        if char == ",":
            self.pos += 1
            if self.peek() != bracket:
                return False
            if not self.python:
                self.warn("trailing_comma")
        elif char != bracket:
            raise self.unexpected()
        self.pos += 1
        return True

    # -- values

    def value(self, depth: int = 1) -> JsonValue:
        """Read the value at `pos`, where no blank may stand; it opens bracket number `depth`."""
        char = self.text[self.pos]
        if char in "\"'":
            return self.string()
        if char == "{":
            return self.mapping(depth)
        if char == "[":
            return self.sequence("]", depth)
        if char == "(" and self.python:
            return self._group(depth)
        if char in "-+.0123456789":
            return self._numeral()
        return self._word()

    def mapping(self, depth: int = 1) -> dict[str, JsonValue]:
        """Read the object or dictionary whose brace stands at `pos`."""
        self._open(depth)
        found: dict[str, JsonValue] = {}
        if self.peek() == "}":
            self.pos += 1
            return found
        while True:
            key = self.key()
            item = self.value(depth + 1)
            self.put(found, key, item)
            if self.closes("}"):
                return found

    def put(self, found: dict[str, JsonValue], key: str, item: JsonValue) -> None:
        """Add to an object, unless the key is there already."""
        if key in found:
            self.soft("duplicate_key", f"The key {key[:60]!r} is given twice. Give it once.")
        else:
            found[key] = item

    def key(self) -> str:
        """Read a quoted key and its colon, up to where the value begins."""
        if self.peek() not in "\"'":
            raise self.unexpected()
        key = self.string()
        if self.peek() != ":":
            raise self.unexpected()
        self.pos += 1
        self.peek()
        return key

    def sequence(self, bracket: str, depth: int) -> list[JsonValue]:
        """Read the list whose opening bracket stands at `pos`, and that `bracket` closes."""
        self._open(depth)
        found: list[JsonValue] = []
        if self.peek() == bracket:
            self.pos += 1
            return found
        while True:
            found.append(self.value(depth + 1))
            if self.closes(bracket):
                return found

    def _open(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Fault("too_deep", at=self.pos)
        self.pos += 1

    def _group(self, depth: int) -> JsonValue:
        """Parentheses: a tuple, or around one value nothing at all."""
        found = self.sequence(")", depth)
        last = self.pos - 2
        while self.text[last] in BLANKS:
            last -= 1
        if len(found) == 1 and self.text[last] != ",":
            return found[0]
        self.warn("tuple_as_list")
        return found

    def _word(self) -> JsonValue:
        start = pos = self.pos
        text = self.text
        while text[pos].isalnum() or text[pos] == "_":
            pos += 1
        word = text[start:pos]
        if pos >= self.end:
            raise self.cut()
        if self.python and word in ("r", "R", "u", "U") and text[pos] in "\"'":
            self.pos = pos
            return self.string(raw=word in "rR")
        native, foreign = (
            (_PYTHON_WORDS, _JSON_WORDS) if self.python else (_JSON_WORDS, _PYTHON_WORDS)
        )
        if word in _NOT_FINITE:
            self.soft("non_finite_number")
        elif word in foreign:
            self.warn("json_literal" if self.python else "python_literal")
        elif word not in native:
            raise self.unexpected()
        self.pos = pos
        return native.get(word, foreign.get(word))

    # -- numbers

    def _numeral(self) -> JsonValue:
        start = pos = self.pos
        text = self.text
        if text[pos] == "-":
            pos += 1
        first = pos
        while text[pos] in _DIGITS:
            pos += 1
        if 0 < pos - first < _PLAIN_DIGITS and text[pos] in _AFTER_NUMBER and text[first] != "0":
            self.pos = pos
            return int(text[start:pos])
        pos = start
        if text[pos] in "+-":
            pos += 1
        while (
            text[pos].isalnum()
            or text[pos] in "._"
            or (text[pos] in "+-" and text[pos - 1] in "eE")
        ):
            pos += 1
        token = text[start:pos]
        value = self._convert(token)
        if value is None:
            if pos >= self.end:
                raise self.cut()
            raise self.unexpected()
        self.pos = pos
        return value

    def _convert(self, token: str) -> int | float | None:
        """The number that a token spells, None if it spells none."""
        body = token.lstrip("+-") if token[0] in "+-" else token
        if not token.isascii() or len(token) - len(body) > 1:
            return None
        if body in _NOT_FINITE:
            self.soft("non_finite_number")
            return 0
        if len(token) > MAX_DIGITS:
            self.soft("number_too_long")
            return 0
        if token[0] == "+" and not self.python:
            self.warn("python_literal")
        if body.isdigit():
            return int(token) if body[0] != "0" or len(body) == 1 else None
        if all(char in _FLOAT for char in token):
            return self._decimal(token, body)
        return self._python_integer(token, body)

    def _decimal(self, token: str, body: str) -> float | None:
        try:
            value = float(token)
        except ValueError:
            return None
        whole, _, fraction = body.partition(".")
        if not self.python and "." in body and not (whole and fraction[:1].isdigit()):
            self.warn("python_literal")
        if value in (float("inf"), float("-inf")):
            self.soft("non_finite_number")
            return 0.0
        return value

    def _python_integer(self, token: str, body: str) -> int | None:
        """`0xff`, `1_000`: integers in Python only."""
        if not self.python or not body[0].isdigit():
            return None
        try:
            return int(token, 0)
        except ValueError:
            return None

    # -- strings

    def string(self, *, raw: bool = False) -> str:
        """Read the string whose quote stands at `pos`."""
        text, quote = self.text, self.text[self.pos]
        start = self.pos + 1
        if self.python and text.startswith(quote * 3, self.pos):
            quote *= 3
            start += 2
        close = text.find(quote, start)
        if close < 0:
            raise self.cut()
        if quote == "'" and not self.python:
            self.warn("python_literal")
        if text.find("\\", start, close) < 0:
            chunk = text[start:close]
            self.pos = close + len(quote)
        else:
            chunk = self._escaped(quote, start, raw=raw)
        if len(quote) == 1 and not chunk.isprintable():
            self._controls(text[start : self.pos - 1])
        return chunk

    def _controls(self, source: str) -> None:
        """Note control characters that stand in a string as they are.

        JSON allows none, Python all but the ends of lines.
        """
        if self.python:
            found = "\n" in source or "\r" in source
        else:
            found = any(char < " " for char in source)
        if found:
            self.warn("control_char_in_string")

    def _escaped(self, quote: str, start: int, *, raw: bool) -> str:
        """Read on from `start` to the closing quote, undoing escapes."""
        text = self.text
        parts: list[str] = []
        pos = start
        close = text.find(quote, pos)
        while True:
            slash = text.find("\\", pos, close)
            if slash < 0:
                parts.append(text[pos:close])
                self.pos = close + len(quote)
                return "".join(parts)
            parts.append(text[pos:slash])
            if slash + 1 >= self.end:
                raise self.cut()
            if raw:
                parts.append(text[slash : slash + 2])
                pos = slash + 2
            else:
                char, pos = self._escape(slash + 1, quote)
                parts.append(char)
            if pos > close:
                close = text.find(quote, pos)
                if close < 0:
                    raise self.cut()

    def _escape(self, pos: int, quote: str) -> tuple[str, int]:
        """What the escape whose letter stands at `pos` means, and where it ends."""
        char = self.text[pos]
        python = self.python or quote == "'"
        plain = (_PYTHON_ESCAPES if python else _JSON_ESCAPES).get(char)
        if plain is not None:
            return plain, pos + 1
        if char == "u":
            return self._unicode(pos)
        if not python:
            if char == "'":
                self.warn("invalid_escape")
            else:
                self.soft("invalid_escape")
            return char, pos + 1
        if char in "xU":
            return self._codepoint(pos, 2 if char == "x" else 8)
        if char in "01234567":
            stop = pos + 1
            while stop < pos + 3 and self.text[stop] in "01234567":
                stop += 1
            return chr(int(self.text[pos:stop], 8)), stop
        if char == "N":
            self.soft("invalid_escape")
        if char == "/" and not self.python:
            return "/", pos + 1
        # Python keeps the backslash of an escape that it doesn't know, as in the pattern '\d+'.
        self.warn("invalid_escape")
        return "\\" + char, pos + 1

    def _hex(self, pos: int, length: int) -> int | None:
        digits = self.text[pos : pos + length]
        if len(digits) < length or not _HEX.issuperset(digits):
            return None
        return int(digits, 16)

    def _codepoint(self, pos: int, length: int) -> tuple[str, int]:
        code = self._hex(pos + 1, length)
        if code is None or code > 0x10FFFF:
            self.soft("invalid_escape")
            return "", pos + 1
        if 0xD800 <= code < 0xE000:
            self.soft("invalid_unicode")
            code = 0xFFFD
        return chr(code), pos + 1 + length

    def _unicode(self, pos: int) -> tuple[str, int]:
        """An escape by four digits, or two of them that make one character between them."""
        code = self._hex(pos + 1, 4)
        if code is not None and 0xD800 <= code < 0xDC00 and self.text[pos + 5 : pos + 7] == "\\u":
            low = self._hex(pos + 7, 4)
            if low is not None and 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), pos + 11
        return self._codepoint(pos, 4)
