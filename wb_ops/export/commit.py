"""Commits batches of sealed runs. The warehouse is open only inside a commit.

Two exports of one dataset may run at once: a run that another load has written since this one
was planned is left as that one wrote it, and the next export looks at it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.source import Node
from wb_ops.export.conflicts import deleted, marked
from wb_ops.export.decide import is_marked
from wb_ops.export.planned import ExportPlan
from wb_ops.export.receipts import Receipt, receipts_table, runs_receipt
from wb_ops.export.report import ExportReport
from wb_ops.export.sealed import Sealed, SealedBatch
from wb_ops.export.state import Marks, Receipts, marks_of, receipts_by_table
from wb_ops.tables.flat import flat_table
from wb_ops.tables.runs import runs_table
from wb_ops.tables.schemas import LOADS, SCHEMA_VERSION, STATE
from wb_ops.tables.secrets import suspect_paths
from wb_ops.warehouse import Batch, Warehouse
from wb_ops.warehouse.base import Read, staged_name, staged_text

log = logging.getLogger("wb_ops")

# Clocks of two machines differ; a load that ended before this one was planned cannot matter.
CLOCKS_DIFFER_BY = timedelta(hours=1)


@dataclass(slots=True)
class Committer:
    """Writes one plan's runs; committing the same ones again replaces them by themselves.

    `measure` brings the report's requests, bytes and seconds up to date.
    """

    plan: ExportPlan
    warehouse: Warehouse
    report: ExportReport
    measure: Callable[[], None]

    def commit_each(
        self,
        batches: Generator[SealedBatch, None, None],
        on_committed: Callable[[SealedBatch], None],
    ) -> None:
        """Commit each batch, and discard its rows, while the next one is made ready.

        Raises:
            CommError: what stopped the reading, after what was read before is committed.
            WarehouseError: of a commit; the one after it is not begun.
        """
        # Whatever is raised here: first the reading ends, then a commit that is under way.
        with ThreadPoolExecutor(1, "wb_ops-commit") as writer, closing(batches):
            under_way: Future[SealedBatch] | None = None
            for batch in batches:
                if under_way is not None:
                    on_committed(under_way.result())
                under_way = writer.submit(self._committed, batch)
            if under_way is None:
                return
            last = under_way.result()
            on_committed(last)
            if last.stopped is not None:
                raise last.stopped

    def _committed(self, batch: SealedBatch) -> SealedBatch:
        self._commit(batch.runs, batch.changed, final=batch.is_last)
        batch.discard()
        return batch

    def _commit(self, runs: Sequence[Sealed], changed: Sequence[Sealed], *, final: bool) -> None:
        committed = self.warehouse.commit_made(
            self.plan.request.dataset_name, partial(self._made, runs, changed, final)
        )
        self.report.runs += committed.runs
        self.report.history_rows += committed.history_rows
        self.report.system_rows += committed.system_rows
        self.report.new_columns += committed.new_columns
        self.report.deleted += len(self.plan.deleted) if final else 0

    def _made(
        self, runs: Sequence[Sealed], changed: Sequence[Sealed], final: bool, read: Read
    ) -> Batch:
        """The batch for what the warehouse holds at the moment; the report tells of it."""
        tables = read(["_wb_loads", "_wb_state"])
        marks = marks_of(tables["_wb_state"], self.plan.request.scope)
        others = {} if self._is_alone(tables["_wb_loads"]) else self._receipts(read)
        stale = [one for one in runs if others and self._is_newer(others["runs"], one)]
        skipped = {one.run_id for one in stale}
        fresh = [one for one in runs if one.run_id not in skipped]
        gone = [one.run_id for one in fresh if one.node is None]
        gone += self.plan.deleted if final else ()
        held = others or (self._receipts(read) if changed or gone else {})
        notes = marked([*stale, *changed], held, self.plan.request)
        rows, of_runs = self._rows([one.node for one in fresh if one.node is not None])
        of_rows = list(chain.from_iterable(one.receipts for one in fresh))
        # The last word: what is held of a run that went while it was read, not what was read.
        receipts = [*notes, *of_runs, *of_rows, *deleted(gone, held, self.plan.request)]
        # What is told of is what was read, and what could not be.
        told = [one for one in of_rows if one.table_name == "history" or not one.is_sound]
        self.report.receipts += [*told, *(one for one in of_runs if not one.is_sound)]
        self.report.changed += len(skipped) + len(changed)
        load = self._load_row(final, rows.num_rows, sum(one.rows for one in fresh if one.node))
        stopped = [self._stopped(tables["_wb_loads"])] if final else []
        after = self.plan.after if final else self.plan.before
        meta = {
            "_wb_receipts": receipts_table(receipts, self.plan.load_id, datetime.now(UTC)),
            "_wb_loads": pa.concat_tables([load, *stopped]),
            # The owner is on record from the first batch on; the marks move at the end.
            "_wb_state": self._state_row(after.latest(marks)),
        }
        return self._batch(fresh, rows, gone, meta, partial(self._known_leaves, read))

    def _batch(
        self,
        runs: Sequence[Sealed],
        rows: pa.Table,
        gone: Sequence[str],
        meta: Mapping[str, pa.Table],
        known: Callable[[], set[str]],
    ) -> Batch:
        plan, request = self.plan, self.plan.request
        # A run that is gone leaves its rows; what was read of it is no longer asked for.
        read = [one for one in runs if one.node is not None]
        whole = [one for one in read if one.history is not None and one.tail_from is None]
        systems = [one for one in read if one.system is not None]
        return Batch(
            dataset=request.dataset_name,
            owner=request.owner,
            load_id=plan.load_id,
            runs=rows,
            flat=flat_table(rows, staged_name, staged_text, known=known),
            history=[staged.content for one in read for staged in one.history or ()],
            replaced=[one.run_id for one in whole],
            tails={one.run_id: one.tail_from for one in read if one.tail_from is not None},
            system_metrics=[staged.content for one in systems for staged in one.system or ()],
            replaced_system=[one.run_id for one in systems],
            deleted=gone,
            meta=meta,
        )

    def _is_alone(self, loads: pa.Table) -> bool:
        """Whether no other load can have written a run since this one was planned."""
        since = self.plan.planned_at - CLOCKS_DIFFER_BY
        return all(
            load["load_id"] == self.plan.load_id
            or (load["finished_at"] is not None and load["finished_at"] < since)
            for load in loads.select(["load_id", "finished_at"]).to_pylist()
        )

    def _stopped(self, loads: pa.Table) -> pa.Table:
        """Earlier loads of this scope that never ended; one that still runs will say so again."""
        rows = [
            {**load, "status": "stopped", "finished_at": datetime.now(UTC)}
            for load in loads.filter(pc.is_null(loads["finished_at"])).to_pylist()
            if load["scope"] == self.plan.request.scope
            and load["load_id"] != self.plan.load_id
            and load["started_at"] < self.plan.planned_at
        ]
        return pa.Table.from_pylist(rows, schema=LOADS)

    def _receipts(self, read: Read) -> Mapping[str, Receipts]:
        receipts = read(["_wb_receipts"])["_wb_receipts"]
        return receipts_by_table(receipts, {"runs", "history", "system_metrics"})

    def _known_leaves(self, read: Read) -> set[str]:
        """Leaves of config and summary that have a column in `runs_flat`."""
        columns = read(["_wb_columns"])["_wb_columns"]
        of_flat = columns.filter(pc.equal(columns["table_name"], "runs_flat"))
        return {key for key in of_flat["original_key"].to_pylist() if key is not None}

    def _is_newer(self, of_runs: Receipts, one: Sealed) -> bool:
        """Whether another load has written the run since the plan looked."""
        by = of_runs.load_id(one.run_id)
        if by == self.plan.load_id:
            # Where an earlier attempt at this commit left it alone, it did no more than say so.
            return is_marked(of_runs, one.run_id)
        return by != one.written_by

    def _rows(self, nodes: Sequence[Node]) -> tuple[pa.Table, list[Receipt]]:
        """Rows of `runs` with their receipts; a run that is unreadable has only the latter."""
        owner, load_id = self.plan.request.owner, self.plan.load_id
        to_table = partial(runs_table, entity=owner.entity, project=owner.project, load_id=load_id)
        failed: list[Receipt] = []
        try:
            rows = to_table(nodes)
        except ValueError:
            good = []
            for node in nodes:
                try:
                    to_table([node])
                    good.append(node)
                except ValueError as exc:
                    log.warning("run %s: %s", node["name"], exc)
                    failed.append(Receipt(node["name"], "failed", note=str(exc), table_name="runs"))
            nodes, rows = good, to_table(good)
        return rows, [*failed, *self._runs_receipts(nodes, rows)]

    def _runs_receipts(self, nodes: Sequence[Node], rows: pa.Table) -> list[Receipt]:
        columns = (rows[name].to_pylist() for name in ("run_id", "state", "content_hash"))
        receipts = []
        for node, (run_id, state, content_hash) in zip(
            nodes, zip(*columns, strict=True), strict=True
        ):
            suspects = suspect_paths(node.get("config"), "/config")
            suspects += suspect_paths(node.get("summaryMetrics"), "/summary")
            self.report.suspects += [f"{run_id}{path}" for path in suspects]
            note = f"looks like a secret: {', '.join(suspects)}" if suspects else None
            receipts.append(runs_receipt(run_id, state, content_hash, note))
        return receipts

    def _state_row(self, marks: Marks) -> pa.Table:
        request = self.plan.request
        row = {
            "scope": request.scope,
            "entity": request.entity,
            "project": request.project,
            "watermark": marks.watermark,
            "reconciled_at": marks.reconciled_at,
            "schema_version": SCHEMA_VERSION,
            "load_id": self.plan.load_id,
            "updated_at": marks.checked_at,
        }
        return pa.Table.from_pylist([row], schema=STATE)

    def _load_row(self, final: bool, runs: int, history_rows: int) -> pa.Table:
        """The load so far, with the runs and rows that are written in the same transaction."""
        self.measure()
        plan, report = self.plan, self.report
        status = "incomplete" if report.unsound else "complete"
        row = {
            "load_id": plan.load_id,
            "plan_id": plan.plan_id,
            "scope": plan.request.scope,
            "mode": plan.mode,
            "started_at": plan.planned_at,
            "finished_at": datetime.now(UTC) if final else None,
            "runs": report.runs + runs,
            "history_rows": report.history_rows + history_rows,
            "requests": report.requests,
            "size_bytes": report.size_bytes,
            "status": status if final else "running",
            "note": f"{plan.hidden} runs counted but not listed" if plan.hidden else None,
        }
        return pa.Table.from_pylist([row], schema=LOADS)
