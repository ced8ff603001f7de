"""Changes members of a JSON document and keeps every other member's text as it was.

The server replaces summary and config whole. Dumping a parsed document again would change the
members of others: 1.0 becomes 1, 1e400 becomes Infinity, an escaped character becomes another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from wb_ops.errors import MalformedResponse

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder(strict=False)


def split_members(text: str | None) -> dict[str, str]:
    """Return the members of a JSON object as name -> raw text, in order.

    None and an empty text are an empty object: W&B answers so for a run that logged nothing.

    Raises:
        MalformedResponse: the text is not a JSON object (retry: backoff).
    """
    if not text or not text.strip() or text.strip() == "null":
        return {}
    try:
        return _split(text)
    except (ValueError, IndexError, RecursionError) as exc:
        raise MalformedResponse("A run's document is not a JSON object.", exc) from exc


def splice(text: str | None, changes: Mapping[str, str], removed: Collection[str] = ()) -> str:
    """Return the document with `changes` (name -> JSON text) set and `removed` taken out."""
    members = split_members(text)
    members.update(changes)
    for name in removed:
        members.pop(name, None)
    return "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in members.items()) + "}"


def renew(held: dict[str, Any], read: Mapping[str, Any]) -> None:
    """Bring a document to what was read, in place; a dict or list that is the same stays."""
    kept = {
        name: held[name] if name in held and _is_same(held[name], value) else value
        for name, value in read.items()
    }
    held.clear()
    held.update(kept)


def dump_value(value: Any) -> str:
    """Return the JSON text of a value; special floats as W&B writes them (NaN, Infinity)."""
    return json.dumps(_plain(value))


def _is_same(held: object, read: object) -> bool:
    try:
        return isinstance(held, dict | list) and json.dumps(held) == json.dumps(read)
    except TypeError:  # what was written had another form
        return False


def _plain(value: Any) -> Any:
    """Unwrap numpy and arrow scalars, which people's functions return, into JSON's own types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Decimal):
        # SQL's literals and sums: 0.5 is a decimal there, and sum(1) one without fraction.
        is_whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if is_whole else float(value)
    for unwrap in ("tolist", "as_py", "isoformat"):
        if callable(method := getattr(value, unwrap, None)):
            return _plain(method())
    raise TypeError(f"{type(value).__name__} has no JSON form: give a number, text, list or dict")


def _split(text: str) -> dict[str, str]:
    members: dict[str, str] = {}
    at = _skip(text, 0)
    if text[at] != "{":
        raise ValueError("not an object")
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(name, str) or text[at] != ":":
            raise ValueError("not a member")
        start = _skip(text, at + 1)
        _, end = _decoder.raw_decode(text, start)
        members[name] = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
