"""JSON values that survive a warehouse: special floats, big integers, unstorable characters.

A warehouse's JSON type takes strict JSON in valid UTF-8 without NUL. W&B's documents are not
that: they hold bare `NaN` and `Infinity`, and logged strings may hold NUL or lone surrogates.
`encode_document` turns any such document into strict JSON and `decode_document` turns it back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

FLOAT_NAMES = frozenset({"NaN", "Infinity", "-Infinity"})

_DECODER = json.JSONDecoder(strict=False)
_ESCAPE = "\N{SYMBOL FOR ESCAPE}"
_UNSTORABLE = re.compile(f"[\x00\ud800-\udfff{_ESCAPE}]")
# orjson rounds integers beyond 64 bits: they have 19 digits or more
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * 19
_BEFORE_INTEGER = b":[,- \t\r\n"
_ESCAPED = re.compile(f"{_ESCAPE}([0-9A-F]{{4}})")


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """Strict JSON text and what is needed to read it back.

    Attributes:
        text: JSON in valid UTF-8, with special floats as the strings of `FLOAT_NAMES`.
        floats: RFC 6901 pointers of those strings, in document order. A pointer names the keys
            as they stand in `text`, that is escaped.
        escaped: how many characters were escaped.
    """

    text: str
    floats: tuple[str, ...]
    escaped: int


def parse_json(text: str) -> object:
    """Parse JSON as W&B writes it.

    Bare `NaN`, `Infinity` and raw control characters are accepted, integers are exact, and of
    a key that occurs twice the last value wins.

    Raises:
        ValueError: the text is not JSON, is nested deeper than Python's recursion limit, or holds
            an integer of more than 4,300 digits.

    Source: W&B's SDK parses these fields with `json.loads`, then again with `strict=False`.
    """
    return parse_document(text)[0]


def parse_document(text: object) -> tuple[object, bool]:
    """Parse JSON as `parse_json`; also tell whether it is known to hold plain values only.

    Plain are values without special floats, integers beyond 64 bits and lone surrogates: what
    `encode_document` and the content hash of a run need no second look at. An answer may hold
    anything where a text belongs: that is a ValueError too.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"JSON text is expected, not a value of type {type(text).__name__}")
    try:
        data = text.encode() if isinstance(text, str) else text
        if not _may_hold_big_integer(data):
            return orjson.loads(data), True
    except ValueError:
        pass  # not strict JSON: the slower parser knows the rest, or says what is wrong
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return _DECODER.decode(text), False
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def parse_lines(texts: Sequence[str]) -> list[object]:
    """Parse JSON texts, each as `parse_json` does.

    Raises:
        ValueError: a text is not JSON; see `parse_json`.
    """
    try:
        data = ("[" + ",".join(texts) + "]").encode()
        if not _may_hold_big_integer(data):
            values: list[object] = orjson.loads(data)
            # texts that are no JSON each may be together, such as `1, 2`
            if len(values) == len(texts):
                return values
    except ValueError:
        pass
    return [parse_json(text) for text in texts]


def _may_hold_big_integer(data: bytes) -> bool:
    """Whether JSON text may hold an integer beyond 64 bits; commit hashes are no such thing."""
    digits = data.translate(_DIGITS_ALIKE)
    at = digits.find(_MANY_DIGITS)
    while at >= 0:
        if digits[at - 1 : at] in _BEFORE_INTEGER:  # empty at the beginning: contained as well
            return True
        at = digits.find(_MANY_DIGITS, at + len(_MANY_DIGITS))
    return False


def is_media(value: object) -> bool:
    """Tell whether a value is one of W&B's typed objects (histogram, image, table, ...)."""
    return isinstance(value, Mapping) and "_type" in value


def escape_text(text: str) -> tuple[str, int]:
    """Replace what a warehouse cannot store, reversibly, and count the replacements.

    NUL, lone surrogates and U+241B itself become U+241B and four upper-case hex digits.
    """
    if text.isascii() and "\0" not in text:
        return text, 0
    return _UNSTORABLE.subn(lambda match: f"{_ESCAPE}{ord(match[0]):04X}", text)


def unescape_text(text: str) -> str:
    """Undo `escape_text`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def encode_document(value: object, prefix: str = "", *, is_plain: bool = False) -> EncodedDocument:
    """Write a JSON value as strict JSON that `decode_document` reads back exactly.

    Key order is kept, integers are exact, floats are the shortest text that reads back the same.

    Args:
        value: what `parse_json` returns: dicts with string keys, lists, scalars.
        prefix: a JSON pointer put in front of every pointer in `floats`.
        is_plain: `parse_document` says so.

    Raises:
        TypeError: the value holds something that JSON has no form for.
    """
    text = _storable_or_none(orjson.dumps(value).decode()) if is_plain else _plain_dumps(value)
    if text is not None:
        return EncodedDocument(text, (), 0)
    encoder = _Encoder()
    storable = encoder.storable(value, prefix)
    return EncodedDocument(_dumps(storable), tuple(encoder.floats), encoder.escaped)


def pointers_text(pointers: Iterable[str]) -> str | None:
    """Write pointers of special floats as a `_floats` cell: a JSON list, None when there are none.

    Pointers name escaped keys, so they are storable as they are; `json.loads` reads the cell.
    """
    listed = list(pointers)
    return _dumps(listed) if listed else None


def decode_document(text: str, floats: Iterable[str], prefix: str = "") -> object:
    """Read a document that `encode_document` wrote.

    Args:
        text: the document.
        floats: its pointers; those outside `prefix` belong to other documents and are skipped.
        prefix: the prefix that was given to `encode_document`.

    Raises:
        ValueError: the text is not JSON.
        LookupError: a pointer leads nowhere in the document.
    """
    root = [json.loads(text)]
    for pointer in floats:
        if pointer == prefix or pointer.startswith(prefix + "/"):
            _restore_float(root, pointer[len(prefix) :])
    return _unescaped(root[0]) if _ESCAPE in text else root[0]


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _plain_dumps(value: object) -> str | None:
    """The JSON text of a value that needs no help, else None; most documents are of this kind."""
    try:
        return _storable_or_none(_dumps(value))
    except ValueError:
        return None


def _storable_or_none(text: str) -> str | None:
    # NUL is written as \u0000; a surrogate or U+241B stands in the text as itself
    is_storable = "\\u0000" not in text and (text.isascii() or not _UNSTORABLE.search(text))
    return text if is_storable else None


class _Encoder:
    """One walk over a document, collecting pointers of special floats and counting escapes."""

    def __init__(self) -> None:
        self.floats: list[str] = []
        self.escaped = 0

    def storable(self, value: object, pointer: str) -> object:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, float) and not math.isfinite(value):
            self.floats.append(pointer)
            return float_name(value)
        if isinstance(value, dict):
            return {
                key: self.storable(v, f"{pointer}/{pointer_token(key)}")
                for key, v in self._items(value)
            }
        if isinstance(value, (list, tuple)):
            return [self.storable(v, f"{pointer}/{i}") for i, v in enumerate(value)]
        return value

    def _items(self, value: dict[str, object]) -> list[tuple[str, object]]:
        return [(self._text(key), member) for key, member in value.items()]

    def _text(self, text: str) -> str:
        escaped, count = escape_text(text)
        self.escaped += count
        return escaped


def float_name(value: float) -> str:
    """Name a special float as JavaScript and W&B's server do."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def number_or_none(value: object) -> float | None:
    """Return a number as a double; None for anything else and for integers beyond all doubles."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def row_step(row: object) -> int | None:
    """Return the `_step` of a parsed history row, None where it is no number that can be one."""
    step = row.get("_step") if isinstance(row, dict) else None
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not math.isfinite(step):
        return None
    return int(step)


def pointer_token(key: str) -> str:
    """Return a member's name as a JSON pointer has it (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _restore_float(root: list[object], pointer: str) -> None:
    """Turn the string at a pointer below `root[0]` back into a float, in place."""
    parent: object = root
    *path, last = ["0", *(_key(token) for token in pointer.split("/")[1:])]
    for token in path:
        parent = _member(parent, token)
    number = float(str(_member(parent, last)))
    if isinstance(parent, list):
        parent[int(last)] = number
    elif isinstance(parent, dict):
        parent[last] = number


def _member(parent: object, token: str) -> object:
    if isinstance(parent, list):
        return parent[int(token)]
    if isinstance(parent, dict):
        return parent[token]
    raise LookupError(f"a float pointer leads through a scalar at {token!r}")


def _key(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _unescaped(value: object) -> object:
    if isinstance(value, str):
        return unescape_text(value)
    if isinstance(value, dict):
        return {unescape_text(key): _unescaped(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_unescaped(member) for member in value]
    return value
