"""Which Arrow type holds all the JSON values of one parquet column without loss."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from wb_ops.devserver.jsontext import Json

_INT64 = 2**63
_EXACT_IN_DOUBLE = 2**53
# While types are being merged, int32 stands for "integers that a double holds exactly".
_SMALL_INT = pa.int32()
_BIG_INT = pa.int64()
_ONE_TYPE: dict[type, pa.DataType] = {float: pa.float64(), str: pa.string(), bool: pa.bool_()}


class TypeConflictError(Exception):
    """Two values of one column share no Arrow type."""


class UnrepresentableError(Exception):
    """A value fits no Arrow type at all; the run stays unexported."""


def common_type(values: Sequence[Json]) -> pa.DataType:
    """The type that holds all values.

    Raises:
        TypeConflictError: there is none.
        UnrepresentableError: one value alone has none.
    """
    return _finished(_type_of_all(values))


def count_compatible(values: Sequence[Json]) -> int:
    """How many leading values share a type."""
    merged = pa.null()
    for index, value in enumerate(values):
        try:
            merged = _merge(merged, _type_of(value))
        except TypeConflictError:
            return index
    return len(values)


def _type_of(value: Json) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return _int_type(value)
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list):
        return _list_type(value)
    if not value:
        raise UnrepresentableError("an empty object")
    return pa.struct([pa.field(key, _type_of(item)) for key, item in value.items()])


def _int_type(value: int) -> pa.DataType:
    if not -_INT64 <= value < _INT64:
        raise UnrepresentableError(f"{value} is beyond int64")
    return _SMALL_INT if abs(value) <= _EXACT_IN_DOUBLE else _BIG_INT


def _list_type(values: list[Json]) -> pa.DataType:
    try:
        return pa.list_(_type_of_all(values))
    except TypeConflictError as error:
        raise UnrepresentableError("a list of mixed values") from error


def _type_of_all(values: Sequence[Json]) -> pa.DataType:
    """The types of all values, merged; values of few kinds are not looked at one by one."""
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in _ONE_TYPE:
        return _ONE_TYPE[kind]
    if int in kinds and kinds <= {int, float}:
        numbers = [value for value in values if type(value) is int]
        merged = _merge(_int_type(min(numbers)), _int_type(max(numbers)))
        return _merge(merged, pa.float64()) if float in kinds else merged
    merged = pa.null()
    for value in values:
        merged = _merge(merged, _type_of(value))
    return merged


def _merge(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    pair = {left, right}
    if pair == {_SMALL_INT, _BIG_INT}:
        return _BIG_INT
    if pair == {_SMALL_INT, pa.float64()}:
        return pa.float64()
    if pa.types.is_list(left) and pa.types.is_list(right):
        return pa.list_(_merge(left.value_type, right.value_type))
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return _merge_structs(left, right)
    raise TypeConflictError(f"{left} and {right}")


def _merge_structs(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    right_types = {field.name: field.type for field in right}
    if {field.name for field in left} != right_types.keys():
        raise TypeConflictError("objects of different keys")
    return pa.struct(
        [pa.field(field.name, _merge(field.type, right_types[field.name])) for field in left]
    )


def _finished(merged: pa.DataType) -> pa.DataType:
    if merged == _SMALL_INT:
        return pa.int64()
    if pa.types.is_list(merged):
        return pa.list_(_finished(merged.value_type))
    if pa.types.is_struct(merged):
        return pa.struct([pa.field(field.name, _finished(field.type)) for field in merged])
    return merged
