"""What to export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from wb_ops.errors import InvalidRequest
from wb_ops.warehouse import Owner, dataset_name

Mode = Literal["incremental", "reconcile", "full"]
OnIncomplete = Literal["mark", "fail"]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One W&B project, which of its runs, and how thorough to be.

    Attributes:
        entity, project: the W&B project.
        dataset: the warehouse schema; by default named by rule from entity and project.
        mode: "incremental" asks for what may have changed since the watermark; "reconcile"
            compares the whole listing and finds late edits and deletions; "full" reads every
            history again.
        filters: a MongoDB-style dict; it makes a scope with a watermark of its own.
        keys: metrics to export; rows that hold any of them. None: all.
        since, until: created time (UTC): a reconcile inside this window that moves no watermark.
        reconcile_every_h: hours after which an incremental export reconciles by itself.
        on_incomplete: "mark" records runs that failed or do not add up; "fail" also raises
            ExportIncomplete, after everything else is committed.
        max_workers: histories read at the same time.
        max_cells: values (rows x columns) held and committed at once; bounds the memory.
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

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("on_incomplete", self.on_incomplete, get_args(OnIncomplete))
        for name in ("entity", "project"):
            if not getattr(self, name) or "/" in getattr(self, name):
                raise InvalidRequest(f"{name}={getattr(self, name)!r}: give one name, without '/'.")
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise InvalidRequest(f"{name}={moment} has no time zone: give it in UTC.")
        if self.since and self.until and self.since >= self.until:
            raise InvalidRequest(f"since={self.since} is not before until={self.until}.")
        for name in ("max_workers", "max_cells"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name}={getattr(self, name)}: give 1 or more.")

    @property
    def owner(self) -> Owner:
        """The project as the warehouse records it."""
        return Owner(self.entity, self.project)

    @property
    def dataset_name(self) -> str:
        """The warehouse schema that is written."""
        # Lower case: warehouses disagree about whether case tells names apart.
        return (self.dataset or dataset_name(self.entity, self.project)).lower()

    @property
    def scope(self) -> str:
        """A hash of what is asked for; each scope has its own watermark."""
        asked = {"filters": self.filters, "keys": sorted(self.keys) if self.keys else None}
        text = json.dumps(asked, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_window(self) -> bool:
        """Whether only runs created inside a window are looked at."""
        return self.since is not None or self.until is not None


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(f"{name}={value!r}: give one of {', '.join(choices)}.")
