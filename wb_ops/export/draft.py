"""A plan while it is made: page by page, on disk if it has a folder, to be continued after a kill.

A folder below `staging` holds a plan: `listing.json` from its first moment, a parquet file for
each page, and `plan.json` at its end.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from wb_ops.client.pacing import Quota
from wb_ops.export.decide import PlannedRun
from wb_ops.export.folder import Folder, open_folder
from wb_ops.export.parts import Listed, read_listed, read_planned, write_part
from wb_ops.export.planned import (
    ExportPlan,
    Totals,
    marks_from_json,
    marks_to_json,
    write_plan,
)
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import Marks
from wb_ops.tables.times import parse_server_time

LISTING = "listing.json"
# An older listing has missed too much: it is made anew.
CONTINUED_FOR = timedelta(hours=24)


@dataclass(slots=True)
class Draft:
    """What has been listed and decided so far."""

    request: ExportRequest
    base_url: str
    plan_id: str
    mode: Mode
    before: Marks
    planned_at: datetime
    folder: Folder | None
    seen: set[str] = field(default_factory=set)
    last_created: datetime | None = None
    count: int = 0
    _watermark: datetime | None = None
    _totals: Totals = field(default_factory=Totals)
    _runs: list[PlannedRun] = field(default_factory=list)
    _listed: int = 0

    @classmethod
    def start(
        cls,
        request: ExportRequest,
        base_url: str,
        mode: Mode,
        before: Marks,
        now: datetime,
        staging: Folder | None,
    ) -> Draft:
        """Begin a plan, or go on with one of the same request that was not finished."""
        plan_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        new = cls(request, base_url, plan_id, mode, before, now, None, _watermark=before.watermark)
        if staging is None:
            return new
        pointer = f"unfinished-{_digest(request, base_url)}.json"
        if (found := _unfinished(new, staging, pointer)) is not None:
            return found
        new.folder = open_folder(f"{staging.uri}/{plan_id}")
        # The listing first: what the pointer names is there.
        new.folder.write(LISTING, json.dumps(new._header()).encode())
        staging.write(pointer, json.dumps({"plan_id": plan_id}).encode())
        return new

    @property
    def listed(self) -> int:
        """How many runs were looked at."""
        return self._listed

    def add(self, page: Sequence[Listed], count: int) -> None:
        """Keep a page; `count` is the server's count of the whole listing."""
        if not page:
            return
        self.count = max(self.count, count)
        for one in page:
            self._note(one.node)
            if one.planned is not None:
                self._totals.add(one.planned)
                if self.folder is None:
                    self._runs.append(one.planned)
        if self.folder is not None:
            # Of two processes that continue one plan, both pages are kept.
            name = f"{self._listed:08}-{uuid.uuid4().hex[:8]}"
            write_part(self.folder, name, page, self.count)

    def finish(
        self,
        *,
        deleted: tuple[str, ...],
        hidden: int,
        broken: tuple[str, ...],
        seconds_per_request: float,
        wait_s: float,
        quota: Quota | None,
    ) -> ExportPlan:
        """Close the plan; what is on disk is complete from here on."""
        plan = ExportPlan(
            request=self.request,
            plan_id=self.plan_id,
            base_url=self.base_url,
            mode=self.mode,
            deleted=deleted,
            listed=self._listed,
            hidden=hidden,
            broken=broken,
            before=self.before,
            after=self._marks_after(),
            planned_at=self.planned_at,
            totals=self._totals,
            seconds_per_request=seconds_per_request,
            wait_s=wait_s,
            limit_left=None if quota is None else quota.left,
            limit_reset_s=None if quota is None else quota.reset_s,
            uri=None if self.folder is None else self.folder.uri,
            in_memory=None if self.folder is not None else tuple(self._runs),
        )
        if self.folder is not None:
            write_plan(plan, self.folder)
        return plan

    def _marks_after(self) -> Marks:
        if self.request.is_partial:
            return self.before
        reconciled_at = self.before.reconciled_at if self.mode == "incremental" else self.planned_at
        return Marks(self._watermark, reconciled_at, self.planned_at)

    def _note(self, node: dict[str, Any]) -> None:
        self._listed += 1
        self.seen.add(node["name"])
        for name in ("createdAt", "heartbeatAt"):
            if text := node.get(name):
                # A run with a clock of its own must not carry the watermark past what was
                # looked at, nor past the start of a listing that was continued.
                moment = min(parse_server_time(text), self.planned_at)
                self._watermark = max(self._watermark or moment, moment)
        if text := node.get("createdAt"):
            created = parse_server_time(text)
            self.last_created = max(self.last_created or created, created)

    def _header(self) -> dict[str, Any]:
        return {
            "plan_id": self.plan_id,
            "base_url": self.base_url,
            "request": self.request.to_json(),
            "mode": self.mode,
            "before": marks_to_json(self.before),
            "planned_at": self.planned_at.isoformat(),
        }

    def _resume(self, folder: Folder) -> None:
        """Take up what the pages on disk say."""
        rows, self.count = read_listed(folder)
        for row in {row["run_id"]: row for row in rows}.values():
            self._note(
                {
                    "name": row["run_id"],
                    "createdAt": row["created_at"],
                    "heartbeatAt": row["heartbeat_at"],
                }
            )
        for planned in read_planned(folder):
            self._totals.add(planned)
        self.folder = folder


def _unfinished(new: Draft, staging: Folder, pointer: str) -> Draft | None:
    """The plan of the same request that a killed process left, if it is young enough."""
    named = staging.read(pointer)
    if named is None:
        return None
    folder = open_folder(f"{staging.uri}/{json.loads(named)['plan_id']}")
    header = folder.read(LISTING)
    if header is None or folder.read("plan.json") is not None:
        return None
    known = json.loads(header)
    planned_at = datetime.fromisoformat(known["planned_at"])
    is_same = known["request"] == json.loads(json.dumps(new.request.to_json()))
    if not is_same or new.planned_at - planned_at > CONTINUED_FOR:
        return None
    before = marks_from_json(known["before"])
    found = Draft(
        new.request, new.base_url, known["plan_id"], known["mode"], before, planned_at, None,
        _watermark=before.watermark,
    )  # fmt: skip
    found._resume(folder)
    return found


def _digest(request: ExportRequest, base_url: str) -> str:
    asked = json.dumps([base_url, request.to_json()], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]
