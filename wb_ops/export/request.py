"""What to export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import NoneType
from typing import Any, Literal, get_args

from wb_ops.client.filters.names import STATES
from wb_ops.client.texts import check_type
from wb_ops.errors import InvalidRequest
from wb_ops.tables.times import to_utc
from wb_ops.warehouse import Owner, chosen_dataset

Mode = Literal["incremental", "reconcile", "full"]
OnIncomplete = Literal["mark", "fail"]

TABLE_NAMES = ("runs", "history", "system_metrics")
DEFAULT_TABLES = ("runs", "history")
_MOMENTS = ("since", "until")
_NAME_LISTS = ("keys", "tables", "states", "run_ids")
_NAMES = ((list, tuple, NoneType), "a tuple of names, or None for all")
_MOMENT = ((datetime, NoneType), "a datetime in UTC, or None")
# field -> its types, and what to give; the values of the others are checked one by one
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "entity": ((str,), "a name"),
    "project": ((str,), "a name"),
    "dataset": ((str, NoneType), "a name, or None for the rule"),
    "filters": ((Mapping,), "a dict, such as {'state': 'finished'}"),
    "keys": _NAMES,
    "tables": ((list, tuple), "a tuple of names"),
    "states": _NAMES,
    "run_ids": _NAMES,
    "since": _MOMENT,
    "until": _MOMENT,
    "reconcile_every_h": ((int, float), "hours, such as 24"),
    "max_workers": ((int,), "a whole number"),
    "max_cells": ((int,), "a whole number"),
    "redact_secrets": ((bool,), "True or False"),
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One W&B project, which of its runs, and how thorough to be.

    Attributes:
        entity, project: the W&B project.
        dataset: the warehouse schema; by default named by rule from entity and project.
        mode: "incremental" asks for what may have changed since the watermark, by `updatedAt`
            too where the server filters on it, which finds late edits; "reconcile" compares the
            whole listing and finds all late edits and deletions; "full" reads every history again.
        filters: a MongoDB-style dict; it makes a scope with a watermark of its own.
        keys: metrics to export; rows that hold any of them. None: all.
        since, until: created time (UTC): a reconcile inside this window that moves no watermark.
        reconcile_every_h: hours after which an incremental export reconciles by itself.
        on_incomplete: "mark" records runs that failed or do not add up; "fail" also raises
            ExportIncomplete, after everything else is committed.
        max_workers: histories read at the same time.
        max_cells: values (rows x columns) committed at once; bounds the memory: rows that wait for
            their commit take up to 20 bytes for each, the others are in temporary files.
        tables: any of "runs", "history", "system_metrics"; `runs` and `runs_flat` are always
            written.
        states: only runs in these states, such as ("finished", "failed"); others than W&B is
            known to have can be asked for by `filters` alone.
        run_ids: only these runs: a reconcile of them that moves no watermark.
        redact_secrets: store values that look like keys or tokens as "[redacted]".
    """

    entity: str
    project: str
    dataset: str | None = None
    mode: Mode = "incremental"
    filters: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    reconcile_every_h: float = 24.0
    on_incomplete: OnIncomplete = "mark"
    max_workers: int = 8
    max_cells: int = 20_000_000
    tables: tuple[str, ...] = DEFAULT_TABLES
    states: tuple[str, ...] | None = None
    run_ids: tuple[str, ...] | None = None
    redact_secrets: bool = False

    def __post_init__(self) -> None:
        for name, (types, wanted) in _TYPES.items():
            check_type(name, getattr(self, name), types, wanted)
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("on_incomplete", self.on_incomplete, get_args(OnIncomplete))
        for name in ("entity", "project"):
            if not getattr(self, name) or "/" in getattr(self, name):
                raise InvalidRequest(f"{name}={getattr(self, name)!r}: give one name, without '/'.")
        for name in _NAME_LISTS:
            _check_names(name, getattr(self, name))
        for name in self.tables:
            _check_choice("tables", name, TABLE_NAMES)
        _check_states(self.states)
        for name in _MOMENTS:
            _check_moment(name, getattr(self, name))
        if self.since and self.until and self.since >= self.until:
            raise InvalidRequest(f"since={self.since} is not before until={self.until}.")
        for name in ("max_workers", "max_cells"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name}={getattr(self, name)}: give 1 or more.")
        if not self.reconcile_every_h >= 0:  # nor NaN, which would never be due
            raise InvalidRequest(f"reconcile_every_h={self.reconcile_every_h}: give 0 or more.")

    @property
    def owner(self) -> Owner:
        """The project as the warehouse records it."""
        return Owner(self.entity, self.project)

    @property
    def dataset_name(self) -> str:
        """The warehouse schema that is written."""
        return chosen_dataset(self.dataset, self.entity, self.project)

    @property
    def scope(self) -> str:
        """A hash of what is asked for; each scope has its own watermark."""
        asked: dict[str, Any] = {
            "filters": self.filters,
            "keys": sorted(self.keys) if self.keys else None,
        }
        # Left out where they ask for nothing, so that scopes of earlier versions go on.
        if self.states:
            asked["states"] = sorted(self.states)
        if set(self.tables) - {"runs"} != {"history"}:
            asked["tables"] = sorted(self.tables)
        if self.redact_secrets:
            asked["redact_secrets"] = True
        text = json.dumps(asked, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_partial(self) -> bool:
        """Whether only named runs, or those created inside a window, are looked at."""
        return self.since is not None or self.until is not None or self.run_ids is not None

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values, as a plan keeps it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        moments = {name: values[name] and values[name].isoformat() for name in _MOMENTS}
        return {**values, "filters": dict(self.filters), **moments}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ExportRequest:
        """Read what `to_json` gave."""
        moments = {name: values[name] and datetime.fromisoformat(values[name]) for name in _MOMENTS}
        names = {
            name: None if values[name] is None else tuple(values[name]) for name in _NAME_LISTS
        }
        return cls(**{**values, **moments, **names})


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(f"{name}={value!r}: give one of {', '.join(choices)}.")


def _check_states(states: Iterable[str] | None) -> None:
    if unknown := [state for state in states or () if state not in STATES]:
        raise InvalidRequest(
            f"states={unknown[0]!r}: W&B has {', '.join(sorted(STATES))}; for another one give "
            f"filters={{'state': {unknown[0]!r}}}."
        )


def _check_moment(name: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if moment.tzinfo is None:
        raise InvalidRequest(f"{name}={moment} has no time zone: give it in UTC.")
    try:
        to_utc(moment)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}: give a year from 1 to 9999.") from error


def _check_names(field_name: str, names: Iterable[str] | None) -> None:
    if names is None:
        return
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidRequest(f"{field_name}={names!r}: give a tuple of names.")
    if not names and field_name != "tables":
        raise InvalidRequest(f"{field_name}=() names nothing: give names, or None for all.")
