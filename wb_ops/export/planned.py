"""A finished plan: it prints, is stored as a folder, and splits into shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wb_ops.client.source import IDS_PER_REQUEST
from wb_ops.errors import InvalidRequest, NotFound
from wb_ops.export.decide import PlannedRun
from wb_ops.export.folder import Folder, open_folder
from wb_ops.export.parts import Listed, chunked, read_planned, write_part
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import Marks
from wb_ops.warehouse.urls import without_secrets

if TYPE_CHECKING:
    from wb_ops.export.shards import Shard

PLAN = "plan.json"
VERSION = 1
RUNS_PER_PART = 1000
# About one request for a file or window of a history, and one for the sources of 20.
REQUESTS_PER_HISTORY = 1.05


@dataclass(slots=True)
class Totals:
    """Counts over the planned runs."""

    runs: int = 0
    histories: int = 0
    tails: int = 0
    systems: int = 0
    history_rows: int = 0
    readers: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, run: PlannedRun) -> None:
        """Count one run."""
        self.runs += 1
        self.histories += run.reads_history
        self.tails += run.tail_from is not None
        self.systems += run.reads_system
        self.history_rows += run.history_rows
        self.readers += run.reads_rows
        self.reasons[run.reason] = self.reasons.get(run.reason, 0) + 1


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do; `str(plan)` is for people.

    Executing the same plan twice gives the same tables. `hidden` is how many more runs the server
    counts than it listed: runs that came or went meanwhile, or that this key may not see;
    `broken` are those of them that the server could not give. `limit_left` is the part of W&B's
    request limit that was left after planning, 0 to 1, and `limit_reset_s` the seconds after which
    all of it was there again; None where W&B did not say. `uri` is where it is stored; a plan
    without one lives in memory until `save`.
    """

    request: ExportRequest
    plan_id: str
    base_url: str
    mode: Mode
    deleted: tuple[str, ...]
    listed: int
    hidden: int
    broken: tuple[str, ...]
    before: Marks
    after: Marks
    planned_at: datetime
    totals: Totals
    seconds_per_request: float = 0.0
    wait_s: float = 0.0
    limit_left: float | None = None
    limit_reset_s: float | None = None
    uri: str | None = None
    in_memory: tuple[PlannedRun, ...] | None = field(default=None, repr=False)

    @cached_property
    def runs(self) -> tuple[PlannedRun, ...]:
        """The runs to write, all in memory; `iter_runs` holds one page at a time."""
        return tuple(self.iter_runs())

    def iter_runs(self) -> Iterator[PlannedRun]:
        """Yield the runs to write, from the folder if it has one."""
        if self.in_memory is not None:
            yield from self.in_memory
        elif self.uri is not None:
            yield from read_planned(open_folder(self.uri))

    @property
    def load_id(self) -> str:
        """The load that executes this plan."""
        return f"load-{self.plan_id}"

    @property
    def unchanged(self) -> int:
        """Listed runs of which nothing has to be written."""
        return self.listed - self.totals.runs

    @property
    def history_rows(self) -> int:
        """Rows that the server counts in what is to be read."""
        return self.totals.history_rows

    @property
    def requests(self) -> int:
        """About how many requests the execution takes."""
        histories = self.totals.histories
        per_run = REQUESTS_PER_HISTORY * histories + self.totals.systems
        return round(per_run) + -(-max(histories, self.totals.systems) // IDS_PER_REQUEST)

    @property
    def minutes(self) -> float:
        """About how long the execution takes: requests as quick as those of the plan were, so
        many at a time, after the wait that W&B's request limit asks for now.

        Only a limit that is spent counts. How much of it a request takes W&B does not say, so one
        that will be spent on the way makes it longer: look at `limit_left`.
        """
        busy_s = self.requests * self.seconds_per_request / self.request.max_workers
        return (self.wait_s + busy_s) / 60

    def save(self, url: str) -> str:
        """Store the plan as the folder `url/plan_id` and return that folder's URI.

        Raises:
            InvalidRequest: the storage needs a package that is missing (retry: never).
            WarehouseError: the folder cannot be written.
        """
        folder = open_folder(f"{url.rstrip('/')}/{self.plan_id}")
        listed = (Listed(run.node, run) for run in self.iter_runs())
        for number, page in enumerate(chunked(listed, RUNS_PER_PART)):
            write_part(folder, f"{number:08}", page, 0)
        write_plan(self, folder)
        return folder.uri

    def shards(self, n: int) -> tuple[Shard, ...]:
        """Split what is read from W&B into at most `n` independent parts of about equal size.

        Each is executed with `execute_shard(plan_uri, shard, api)`, anywhere and in any order.
        An empty tuple where nothing is read: `commit_plan` does the rest.
        """
        from wb_ops.export.shards import Shard

        if n < 1:
            raise InvalidRequest(f"shards({n}): give 1 or more.")
        count = min(n, self.totals.readers)
        return tuple(Shard(index, count) for index in range(count))

    def __str__(self) -> str:
        totals = self.totals
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(totals.reasons.items()))
        gone = f", {len(self.deleted)} deleted" if self.deleted else ""
        gone += f", {self.hidden} counted but not listed" if self.hidden else ""
        gone += f" (the server cannot give {', '.join(self.broken)})" if self.broken else ""
        tails = f" ({totals.tails} continued)" if totals.tails else ""
        systems = f", system metrics of {totals.systems}" if totals.systems else ""
        return (
            f"{self.mode} export of {self.request.owner} into {self.request.dataset_name}: "
            f"{self.listed} runs listed, {self.unchanged} unchanged{gone}; "
            f"{totals.runs} to write ({why or 'none'}), "
            f"{totals.histories} histories{tails} with {totals.history_rows:,} rows{systems}, "
            f"about {self.requests} requests, {self.minutes:.1f} min at the current limit"
            f"{self._limit}"
        )

    @property
    def _limit(self) -> str:
        if self.limit_left is None or self.limit_reset_s is None:
            return ""
        return f" ({100 * self.limit_left:.3g} % of it left for {self.limit_reset_s:.0f} s)"


def load_plan(plan_uri: str) -> ExportPlan:
    """Open a stored plan; its runs stay where they are until they are asked for.

    Raises:
        NotFound: there is no finished plan (retry: never).
        InvalidRequest: it was written by a newer wb_ops (retry: never).
    """
    folder = open_folder(plan_uri)
    text = folder.read(PLAN)
    if text is None:
        raise NotFound(f"No finished plan in {without_secrets(plan_uri)}: plan the export again.")
    values = json.loads(text)
    if values.pop("version") > VERSION:
        raise InvalidRequest(
            f"The plan {without_secrets(plan_uri)} was written by a newer wb_ops: upgrade it."
        )
    totals = values.pop("totals")
    return ExportPlan(
        **{
            **values,
            "request": ExportRequest.from_json(values["request"]),
            "deleted": tuple(values["deleted"]),
            "broken": tuple(values["broken"]),
            "before": marks_from_json(values["before"]),
            "after": marks_from_json(values["after"]),
            "planned_at": datetime.fromisoformat(values["planned_at"]),
            "totals": Totals(**totals),
        },
        uri=folder.uri,
    )


def write_plan(plan: ExportPlan, folder: Folder) -> None:
    """Store `plan.json`: small, and without any secret."""
    values = {
        "version": VERSION,
        "plan_id": plan.plan_id,
        "base_url": plan.base_url,
        "request": plan.request.to_json(),
        "mode": plan.mode,
        "deleted": plan.deleted,
        "listed": plan.listed,
        "hidden": plan.hidden,
        "broken": plan.broken,
        "before": marks_to_json(plan.before),
        "after": marks_to_json(plan.after),
        "planned_at": plan.planned_at.isoformat(),
        "totals": asdict(plan.totals),
        "seconds_per_request": plan.seconds_per_request,
        "wait_s": plan.wait_s,
        "limit_left": plan.limit_left,
        "limit_reset_s": plan.limit_reset_s,
    }
    folder.write(PLAN, json.dumps(values, indent=1).encode())


def marks_to_json(marks: Marks) -> dict[str, str | None]:
    """Times as ISO texts."""
    return {name: moment and moment.isoformat() for name, moment in asdict(marks).items()}


def marks_from_json(values: dict[str, Any]) -> Marks:
    """Read what `marks_to_json` gave."""
    return Marks(**{name: text and datetime.fromisoformat(text) for name, text in values.items()})
