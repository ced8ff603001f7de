"""The end of a plan that was executed in shards: what they staged goes into the warehouse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from wb_ops.client.api import Api
from wb_ops.client.local_files import temporary_folder
from wb_ops.client.source import Node, RunSource
from wb_ops.errors import Advice, CommError, InvalidRequest
from wb_ops.export.commit import Committer
from wb_ops.export.decide import PlannedRun, cleaned
from wb_ops.export.execute import Meter, raise_if_incomplete
from wb_ops.export.folder import Folder, open_folder
from wb_ops.export.parts import chunked
from wb_ops.export.planned import PLAN, ExportPlan, load_plan
from wb_ops.export.receipts import receipts_of_load
from wb_ops.export.report import ExportReport, Progress, new_report
from wb_ops.export.sealed import (
    MAX_RUNS_PER_BATCH,
    BatchSize,
    Sealed,
    SealedBatch,
    marked_last,
    most_telling,
    unread,
)
from wb_ops.export.shards import DONE, Shard, read_result, read_stored
from wb_ops.export.stored import StoredRun, load_stored
from wb_ops.tables.fingerprints import fingerprint
from wb_ops.warehouse import Warehouse
from wb_ops.warehouse.urls import without_secrets

# There from the moment on when a commit is known to raise nothing.
COMMITTED = "committed.json"


def commit_plan(
    plan_uri: str,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExportReport:
    """Commit what the shards of a plan have staged; then empty the plan's folder.

    Of a folder whose commit raises no error stay only `plan.json` and small marks, of the shards
    and of the commit: by them a repeated shard or commit sees that there is nothing to do.
    After ExportIncomplete the staged rows alone are deleted.

    A run that another export has written, or that changed on the server since it was read, is not
    written: the next export reads it. One that only went on logging is written as far as it was
    read. Safe to repeat: a plan that is committed is not committed again: its report has the runs,
    rows, requests, bytes, deletions and receipts that the warehouse tells of, and its
    ExportIncomplete is raised again; one that was killed half way is finished. One request for 200
    runs.

    Raises:
        NotFound: there is no such plan (retry: never).
        InvalidRequest: shards are missing, or the plan is of another server (retry: never).
        ExportIncomplete: as `execute_export`.
        CommError, WarehouseError: by the table in `errors`.
    """
    plan = load_plan(plan_uri)
    if plan.base_url != api.transport.settings.base_url:
        raise InvalidRequest(
            f"The plan is of {plan.base_url}, this Api of {api.transport.settings.base_url}."
        )
    folder = open_folder(plan_uri)
    request = plan.request
    warehouse.check(request.dataset_name, request.owner)
    report = new_report(plan, warehouse.url)
    if (finished := _finished(report, plan, folder, warehouse)) is not None:
        report = finished
    else:
        shards = _complete_shards(plan, folder)
        for result in filter(None, (read_result(folder, shard) for shard in shards)):
            report.requests += result.requests
            report.size_bytes += result.size_bytes
        _Commit(plan, shards, folder, api, warehouse, report, on_progress).run()
    if folder.read(COMMITTED) is None:
        if report.unsound:
            report.facts = most_telling(run.facts for run in _staged(folder) if run.facts)
        _delete(folder, lambda name: name.startswith("shards/") and name.endswith("parquet"))
        raise_if_incomplete(plan, report)
        # Who comes after a kill while the folder is emptied has nothing left to judge by.
        folder.write(COMMITTED, b"{}")
    _delete(folder, lambda name: not _stays(name))
    return report


def _stays(name: str) -> bool:
    return name in (PLAN, COMMITTED) or name.endswith(f"/{DONE}")


def _delete(folder: Folder, is_over: Callable[[str], bool]) -> None:
    folder.delete(name for name in folder.list_names() if is_over(name))


def _finished(
    report: ExportReport, plan: ExportPlan, folder: Folder, warehouse: Warehouse
) -> ExportReport | None:
    """The report of this plan's load as the warehouse tells it, if it has ended."""
    tables = warehouse.read_tables(plan.request.dataset_name, ["_wb_loads", "_wb_receipts"])
    for load in tables["_wb_loads"].to_pylist():
        if load["load_id"] == plan.load_id and load["status"] in ("complete", "incomplete"):
            names = ("runs", "history_rows", "requests", "size_bytes")
            receipts = receipts_of_load(tables["_wb_receipts"], plan.load_id)
            told = [one for one in receipts if one.table_name == "history" or not one.is_sound]
            numbers = {name: load[name] for name in names}
            return replace(
                report,
                **numbers,
                deleted=len(plan.deleted),
                receipts=told,
                advices=_advices(folder),
            )
    return None


def _advices(folder: Folder) -> list[Advice]:
    """What the shards' failures advise, as long as they are there."""
    return [advice for run in _staged(folder) for advice in run.advices]


def _staged(folder: Folder) -> Iterator[StoredRun]:
    for name in folder.list_names():
        if "/batch-" in name and (data := folder.read(name)) is not None:
            yield from load_stored(data)


def _complete_shards(plan: ExportPlan, folder: Folder) -> list[Shard]:
    """The shards of one splitting of the plan, all of them done.

    Raises:
        InvalidRequest: some are missing; it names them (retry: never).
    """
    if not plan.totals.readers:
        return []
    done: Counter[int] = Counter()
    markers = {name for name in folder.list_names() if name.endswith(f"/{DONE}")}
    for name in markers:
        done[int(name.split("/")[1].split("-of-")[1])] += 1
    for count, found in done.items():
        if found == count:
            return [Shard(index, count) for index in range(count)]
    where = without_secrets(folder.uri)
    if not done:
        raise InvalidRequest(f"No shard of the plan {where} is done: execute them first.")
    count = max(done, key=lambda count: done[count] / count)
    every = (Shard(index, count) for index in range(count))
    missing = [str(one) for one in every if one.folder + DONE not in markers]
    raise InvalidRequest(
        f"{len(missing)} of {count} shards of the plan {where} are missing: "
        f"{', '.join(missing)}. Execute them, then commit again; nothing was written."
    )


@dataclass(slots=True)
class _Commit:
    plan: ExportPlan
    shards: Sequence[Shard]
    folder: Folder
    api: Api
    warehouse: Warehouse
    report: ExportReport
    on_progress: Callable[[Progress], None] | None
    runs_done: int = 0

    def run(self) -> None:
        measure = Meter(self.api, self.report)
        committer = Committer(self.plan, self.warehouse, self.report, measure)
        source = self.api.source(str(self.plan.request.owner))
        with temporary_folder("wb_ops-commit-") as local:
            committer.commit_each(self._batches(source, local), self._tell)
        measure()

    def _tell(self, committed: SealedBatch) -> None:
        self.runs_done += len(committed.runs) + len(committed.changed)
        if self.on_progress is not None:
            report = self.report
            self.on_progress(
                Progress(
                    self.runs_done,
                    self.plan.totals.runs,
                    report.history_rows,
                    self.plan.history_rows,
                    report.size_bytes,
                    report.seconds,
                )
            )

    def _batches(self, source: RunSource, local: Path) -> Generator[SealedBatch, None, None]:
        is_last = False
        # What is the last is known before its rows are fetched.
        groups: Iterator[Sequence[PlannedRun | StoredRun]] = chain(self._edited(), self._stored())
        for some, is_last in marked_last(groups):
            nodes = self._nodes(source, {run.run_id: run.node for run in some})
            yield self._sealed(some, nodes, local, is_last=is_last)
        if not is_last:
            yield SealedBatch(is_last=True)

    def _sealed(
        self,
        some: Sequence[PlannedRun | StoredRun],
        nodes: Mapping[str, Node],
        local: Path,
        *,
        is_last: bool,
    ) -> SealedBatch:
        """What to commit together: runs as they were read, and runs that have changed since."""
        runs: list[Sealed] = []
        changed: list[Sealed] = []
        for run in some:
            node = nodes.get(run.run_id)
            if isinstance(run, PlannedRun):
                runs.append(replace(unread(run), node=node))
                continue
            sealed = run.fetched(self.folder, local, node)
            if node is None:
                # Deleted since: what was proved then is of no use.
                sealed = replace(sealed, receipts=())
            (changed if _has_changed(run, node) else runs).append(sealed)
            self.report.advices += run.advices
        return SealedBatch(runs, changed, is_last=is_last)

    def _edited(self) -> Iterator[list[PlannedRun]]:
        edited = (run for run in self.plan.iter_runs() if not run.reads_rows)
        return chunked(edited, MAX_RUNS_PER_BATCH)

    def _nodes(self, source: RunSource, known: Mapping[str, Node | None]) -> dict[str, Node]:
        broken: dict[str, CommError] = {}
        found = source.fetch_nodes(list(known), on_broken=broken.__setitem__)
        # A run that the server cannot give is not deleted: what is known of it is older.
        found |= {run_id: node for run_id in broken if (node := known[run_id]) is not None}
        return {run_id: cleaned(self.plan.request, node) for run_id, node in found.items()}

    def _stored(self) -> Iterator[list[StoredRun]]:
        batch: list[StoredRun] = []
        size = BatchSize(self.plan.request.max_cells)
        for shard in self.shards:
            for run in read_stored(self.folder, shard):
                if not size.takes(run.rows, run.columns):
                    yield batch
                    batch, size = [], BatchSize(self.plan.request.max_cells)
                    size.takes(run.rows, run.columns)
                batch.append(run)
        if batch:
            yield batch


def _has_changed(stored: StoredRun, node: Node | None) -> bool:
    """Whether the rows that were read are no longer those of the run."""
    if stored.node is None:
        return node is not None
    if node is None or stored.history is None:
        return False
    then, now = fingerprint(stored.node, stored.keys), fingerprint(node, stored.keys)
    # Of a run that goes on logging the next export reads the rest.
    return now != then and not then.is_continued_by(now)
