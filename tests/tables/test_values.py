"""Documents survive the way into strict JSON and back, whatever they hold."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.values import (
    decode_document,
    encode_document,
    escape_text,
    is_media,
    parse_document,
    parse_json,
    parse_lines,
    pointers_text,
    unescape_text,
)

texts = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\u241b/~0D"), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just("NaN")
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=15
)


def reject(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@given(documents, st.sampled_from(["", "/config", "/_extra"]))
def test_decoding_gives_back_the_document_in_order_and_type(value: object, prefix: str) -> None:
    document = encode_document(value, prefix)
    decoded = decode_document(document.text, document.floats, prefix)
    assert json.dumps(decoded) == json.dumps(value)  # json.dumps tells types, NaN and order apart


@given(documents)
def test_the_text_is_strict_json_in_utf8_without_nul(value: object) -> None:
    text = encode_document(value).text
    json.loads(text, parse_constant=reject)
    assert b"\\u0000" not in text.encode("utf-8").replace(b"\\\\", b"")


@given(texts)
def test_escaping_is_reversible_and_counts(text: str) -> None:
    escaped, count = escape_text(text)
    assert unescape_text(escaped) == text
    assert count == sum(c in "\x00\u241b" or "\ud800" <= c <= "\udfff" for c in text)
    escaped.encode("utf-8")


def test_pointers_name_special_floats_and_leave_the_string_nan_alone() -> None:
    document = encode_document({"a/b": {"~": [1.0, -math.inf]}, "s": "NaN"}, "/config")
    assert document.text == '{"a/b":{"~":[1.0,"-Infinity"]},"s":"NaN"}'
    assert document.floats == ("/config/a~1b/~0/1",)


def test_a_key_that_looks_like_a_pointer_escape_is_found_again() -> None:
    document = encode_document({"~1": math.inf, "/": "Infinity"})
    assert document.floats == ("/~01",)
    assert decode_document(document.text, document.floats) == {"~1": math.inf, "/": "Infinity"}


def test_pointers_of_other_documents_are_skipped() -> None:
    assert decode_document('{"a":"NaN"}', ["/summary/a", "/configs/a"], "/config") == {"a": "NaN"}


def test_a_document_can_be_a_single_special_float() -> None:
    document = encode_document(math.inf, "/_extra")
    assert decode_document(document.text, document.floats, "/_extra") == math.inf


def test_a_pointer_into_nothing_is_an_error() -> None:
    with pytest.raises(LookupError):
        decode_document('{"a":1}', ["/a/b"])


def test_escapes_in_keys_and_strings_are_counted() -> None:
    assert encode_document({"k\x00": "\ud800x", "n": [math.nan, "\u241b"]}).escaped == 3


def test_parsing_accepts_what_wandb_writes() -> None:
    text = '{"a": NaN, "b": -Infinity, "c": "x\ty", "d": 1152921504606846977, "d2": 1, "d2": 2}'
    value = parse_json(text)
    assert isinstance(value, dict)
    assert math.isnan(value.pop("a"))
    assert value == {"b": -math.inf, "c": "x\ty", "d": 2**60 + 1, "d2": 2}


BIG = 12345678901234567890123


@pytest.mark.parametrize("indent", [None, 0, 1])
@pytest.mark.parametrize(
    "value", [BIG, -BIG, [BIG], [1, BIG, -BIG], {"a": BIG, "b": [-BIG]}, [str(BIG) * 2, BIG]]
)
def test_integers_of_any_size_are_exact(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert parse_document(text) == parse_document(text.encode()) == (value, False)
    assert parse_lines([text, "1"]) == [value, 1]


@pytest.mark.parametrize(
    "value", [{"commit": f"a{BIG}"}, {"id": str(BIG)}, [0.00012345678901234567, f"{BIG}{BIG}{BIG}"]]
)
def test_digits_in_words_and_fractions_are_no_big_integers(value: object) -> None:
    assert parse_document(json.dumps(value)) == (value, True)


@pytest.mark.parametrize("text", ["", "{", "nan", "[" * 100_000])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_media_are_the_objects_with_a_type() -> None:
    assert is_media({"_type": "histogram"})
    assert not is_media({"type": "histogram"})
    assert not is_media("_type")


@given(documents)
def test_a_floats_cell_is_read_with_plain_json(value: object) -> None:
    document = encode_document(value)
    cell = pointers_text(document.floats)
    assert json.loads(cell or "[]") == list(document.floats)
    assert cell is None or cell.encode("utf-8")
