"""Logged rows beside stored ones, in the warehouse itself, and the SQL that compares them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
from opened_warehouses import Opened

Select = str
_LABELS = ("display_name", "state", "run_group", "job_type", "sweep", "notes", "commit", "username")


class Difference(NamedTuple):
    """How many rows are logged and stored, how many of them only there, and some of those.

    An example ends in how many times more often it is logged than stored.
    """

    logged: int
    stored: int
    missing: int
    surplus: int
    examples: list[tuple[Any, ...]]


def put_logged(place: Opened, tables: Mapping[str, pa.Table]) -> None:
    """Put what was logged beside what is stored: a table each in the schema `logged`."""
    place.run("create schema logged")
    for name, rows in tables.items():
        place.put(name, rows)


def differences(place: Opened, *, with_view: bool) -> dict[str, Difference]:
    """Compare every kind of value: how many there are, and then each, in both directions.

    `with_view`: also `history_tall`, which takes as long again as the tables that it is over.
    """
    pairs = {**_of_history(place), **_of_documents(place), **_of_flat(place), **_of_others(place)}
    if not with_view:
        del pairs["history_tall"]
    return {name: _difference(place, *pair) for name, pair in pairs.items()}


def unequal(found: Mapping[str, Difference]) -> dict[str, Difference]:
    """Those kinds whose counts or values differ."""
    return {
        name: one
        for name, one in found.items()
        if one.logged != one.stored or one.missing or one.surplus
    }


def _difference(place: Opened, logged: Select, stored: Select) -> Difference:
    place.run(f"create temporary table logged_rows as {logged}")
    place.run(f"create temporary table stored_rows as {stored}")
    columns = place.ask(
        "select column_name from information_schema.columns where table_name = 'logged_rows'"
    )
    names = ", ".join(name for (name,) in columns)
    # What EXCEPT ALL tells in both directions, in one go: how much more often a row is logged.
    place.run(
        f"create temporary table unequal as select {names}, sum(side) as times from ("
        f"select {names}, 1 as side from logged_rows"
        f" union all select {names}, -1 from stored_rows) as both_sides"
        f" group by {names} having sum(side) <> 0"
    )
    (counted,) = place.ask(
        "select (select count(*) from logged_rows), (select count(*) from stored_rows),"
        " cast(coalesce(sum(times) filter (where times > 0), 0) as bigint),"
        " cast(coalesce(-sum(times) filter (where times < 0), 0) as bigint) from unequal"
    )
    examples = place.ask(f"select {names}, cast(times as bigint) from unequal order by 1 limit 4")
    for name in ("logged_rows", "stored_rows", "unequal"):
        place.run(f"drop table {name}")
    return Difference(*counted, examples)


def _of_history(place: Opened) -> dict[str, tuple[Select, Select]]:
    """The tables `history` and `history_long`, and the view over both."""
    own = place.dataset
    number, columns = place.bits("value"), _columns(place, "history", "double precision")
    wide = place.unpivoted("history", ("run_id", "_step"), columns)
    logged = f"select run_id, step, key, {number} as value from logged.numbers"
    return {
        "steps and times": (
            "select run_id, step, logged_at_us from logged.steps",
            f"select run_id, _step as step, {place.microseconds('logged_at')} as logged_at_us"
            f" from {own}.history",
        ),
        "numbers": (
            logged,
            f"select run_id, _step as step, coalesce(original_key, column_name) as key,"
            f" {number} as value from ({wide}) as cells {_with_keys(place, 'history')}"
            f" union all select run_id, _step, key, {number} from {own}.history_long",
        ),
        "history_tall": (
            f"{logged} where key not in ('_timestamp', '_runtime')",
            f"select run_id, _step as step, key, {number} as value from {own}.history_tall",
        ),
    }


def _of_documents(place: Opened) -> dict[str, tuple[Select, Select]]:
    """`_extra`, config and summary by their members, and what their `_floats` point to."""
    own = place.dataset
    step = "cast(_step as varchar)"
    logged = "select run_id, place, document from logged.documents where place"
    pairs = {
        name: (
            place.members(f"{logged} = '{name}'", is_typed=True),
            place.members(
                f"select run_id, '{name}' as place, {name} as document from {own}.runs",
                is_typed=True,
            ),
        )
        for name in ("config", "summary")
    }
    # A list with integers and doubles is one of doubles in W&B's files.
    pairs["_extra"] = (
        place.members(f"{logged} not in ('config', 'summary')", is_typed=False),
        place.members(
            f"select run_id, {step} as place, _extra as document from {own}.history"
            " where _extra is not null",
            is_typed=False,
        ),
    )
    pairs["_floats"] = (
        "select run_id, case when place in ('config', 'summary') then 'run' else place end"
        " as place, pointer from logged.floats",
        f"select run_id, {step} as place, {place.pointers('_floats')} as pointer"
        f" from {own}.history where _floats is not null union all"
        f" select run_id, 'run', {place.pointers('_floats')} from {own}.runs"
        " where _floats is not null",
    )
    return pairs


def _of_flat(place: Opened) -> dict[str, tuple[Select, Select]]:
    """`runs_flat`: the leaves that have a column there."""
    pairs = {}
    for logged, type_ in (("number", "double precision"), ("text", "text")):
        columns = _columns(place, "runs_flat", type_)
        listed = ", ".join(f"'{name}'" for name in columns)
        value = place.bits if logged == "number" else str
        pairs[f"{logged}s of runs_flat"] = (
            f"select run_id, key, {value(logged)} as value from logged.leaves"
            f" where {logged} is not null and key in (select original_key from"
            f" {place.dataset}._wb_columns where table_name = 'runs_flat'"
            f" and column_name in ({listed}))",
            f"select run_id, original_key as key, {value('value')} as value from"
            f" ({place.unpivoted('runs_flat', ('run_id',), columns)}) as cells"
            f" {_with_keys(place, 'runs_flat')}",
        )
    return pairs


def _of_others(place: Opened) -> dict[str, tuple[Select, Select]]:
    """`system_metrics`, and what else a row of `runs` says."""
    own = place.dataset
    labels = [(name, f'"{name}"') for name in _LABELS]
    labels += [("tags", "nullif(array_to_string(tags, '|'), '')")]
    return {
        "system metrics": (
            f"select run_id, at_us, key, {place.bits('value')} as value from logged.system",
            f"select run_id, {place.microseconds('timestamp')} as at_us, key,"
            f" {place.bits('value')} as value from {own}.system_metrics where sampled",
        ),
        "labels": (
            "select run_id, name, value from logged.labels",
            " union all ".join(
                f"select run_id, '{name}' as name, {value} as value from {own}.runs"
                f" where {value} is not null"
                for name, value in labels
            ),
        ),
    }


def _with_keys(place: Opened, table: str) -> str:
    return (
        f"left join (select column_name, original_key from {place.dataset}._wb_columns"
        f" where table_name = '{table}') as keys using (column_name)"
    )


def _columns(place: Opened, table: str, type_: str) -> list[str]:
    """The columns of metrics or leaves, as the warehouse itself lists them."""
    found = place.ask(
        "select column_name, lower(data_type) from information_schema.columns"
        f" where table_schema = '{place.dataset}' and table_name = '{table}'"
        " and column_name not in ('run_id', '_load_id')"
    )
    names = {"double precision": {"double", "double precision"}, "text": {"varchar", "text"}}
    return [name for name, of in found if of in names[type_]]
