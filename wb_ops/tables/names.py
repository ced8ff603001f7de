"""One rule that turns a logged key into a column name, the same for every warehouse.

`train/loss` becomes `train__loss`; a name that does not say its key without doubt gets eight hex
digits of the key's SHA-256 behind it. A name once given is never changed, so the names of a table
depend on the order in which its keys were first seen, and are kept in `_wb_columns`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

MAX_NAME_BYTES = 60

_HASH_DIGITS = 8
_OTHER_SIGN = re.compile(r"[^a-z0-9_/.]")
_SEPARATOR = re.compile(r"[/.]")


def assign_names(
    keys: Iterable[str], taken: Mapping[str, str], reserved: Collection[str]
) -> dict[str, str]:
    """Name the keys that have no column yet.

    Names are lower-case ASCII of at most 60 bytes: `/` and `.` become `__`, any other sign `_`.
    A hash suffix follows where the key's case, non-ASCII letters or end are lost, where it holds
    `__` already or nothing but signs, and where the name is reserved or taken. Keys are named in
    sorted order, those first that are their own name. Names differ from each other even where a
    warehouse ignores case (DuckDB does).

    Args:
        keys: logged keys, in any order; those in `taken` are skipped.
        taken: key -> column name, of the columns that the table has.
        reserved: the table's fixed columns.

    Returns:
        key -> column name, of the new keys only.
    """
    used = {name.lower() for name in (*taken.values(), *reserved)}
    assigned: dict[str, str] = {}
    for key in sorted(set(keys) - set(taken), key=lambda key: (_plain_name(key) != key, key)):
        assigned[key] = _free_name(key, used)
        used.add(assigned[key])
    return assigned


def _free_name(key: str, used: Collection[str]) -> str:
    plain = _plain_name(key)
    if not _is_ambiguous(key, plain) and plain not in used:
        return plain
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    # a key can be named like another key's hashed name: then more digits tell them apart
    for digits in range(_HASH_DIGITS, MAX_NAME_BYTES - 1):
        name = f"{_stem(plain, digits)}_{digest[:digits]}"
        if name not in used:
            return name
    raise ValueError(f"no free column name for the key {key!r}")


def _plain_name(key: str) -> str:
    return _SEPARATOR.sub("__", _OTHER_SIGN.sub("_", key.lower()))


def _is_ambiguous(key: str, plain: str) -> bool:
    return (
        not key.isascii()
        or key != key.lower()
        or "__" in _OTHER_SIGN.sub("_", key)
        or len(plain) > MAX_NAME_BYTES
        or not plain.strip("_")
    )


def _stem(plain: str, digits: int) -> str:
    return (plain if plain.strip("_") else "key")[: MAX_NAME_BYTES - digits - 1]
