"""One export into a temporary lake, from where dlt takes the rows: memory holds a part of them."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.client.api import Api
from wb_ops.dlt.after_load import Expected, refuse_second_source, tell_after_load
from wb_ops.dlt.loaded import Loaded, read_loaded, read_moments, read_runs
from wb_ops.dlt.pipelines import package_id, selected_steps
from wb_ops.dlt.proof import ROW_COUNTS, count_rows
from wb_ops.errors import CommError, ExportIncomplete, InvalidRequest
from wb_ops.export.execute import execute_export
from wb_ops.export.plan import plan_export
from wb_ops.export.planned import ExportPlan
from wb_ops.export.request import ExportRequest
from wb_ops.tables.schemas import RUNS, TEXT
from wb_ops.warehouse import Batch
from wb_ops.warehouse.lake.changes import CELLS
from wb_ops.warehouse.lake.connect import connect_lake
from wb_ops.warehouse.lake.warehouse import LakeWarehouse

log = logging.getLogger("wb_ops")

# Without them no later load could tell what is hurt.
_TELLING = {ROW_COUNTS.name, "_wb_receipts"}


class StagedExport:
    """Exports at the first question for rows; all tables of one source share it."""

    def __init__(self, request: ExportRequest, api: Api | None) -> None:
        self._request = request
        self._api = api
        self._package: str | None = None
        self._files: dict[str, list[str]] | None = None
        self._load_id = ""
        self._known: list[dict[str, str]] = []
        self._holds_receipts = False
        self._loaded = Loaded()

    def batches(self, table_name: str) -> Iterator[pa.Table]:
        """Give the new rows of a table; dlt's package is the load that they name."""
        if self._files is None or self._package != package_id():
            self._files = self._export()
        for path in self._files.get(table_name, ()):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(max(1, CELLS // len(file.schema_arrow))):
                    rows = self._of_this_load(table_name, pa.Table.from_batches([batch]))
                    if rows.num_rows:
                        yield rows

    def _export(self) -> dict[str, list[str]]:
        refuse_second_source()
        selected = selected_steps()
        _refuse_changes(selected)
        is_counted = selected.keys() >= _TELLING
        self._package = package_id()
        folder = tempfile.mkdtemp(prefix="wb_ops-dlt-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        lake = _lake(Path(folder))
        self._recall(lake, is_counted)
        error: Exception | None = None
        with Api() if self._api is None else nullcontext(self._api) as api:
            plan = plan_export(self._request, api, lake)
            self._load_id = plan.load_id
            self._warn_of_damage(plan)
            try:
                execute_export(plan, api, lake)
            except (CommError, ExportIncomplete) as exc:
                error = exc
        self._mark_deletions(lake)
        files = lake.files(self._request.dataset_name)
        gives_rows = False
        if is_counted:
            number = self._loaded.next_number
            counts = count_rows(files, selected.keys(), self._load_id, number)
            gives_rows = counts.num_rows > 0
            files = {**files, ROW_COUNTS.name: [str(Path(folder) / f"{ROW_COUNTS.name}.parquet")]}
            pq.write_table(counts, files[ROW_COUNTS.name][0])
        # What was read is whole: it is loaded first.
        loaded = self._loaded
        tell_after_load(Expected(error, gives_rows, loaded.damaged, loaded.finished))
        return files

    def _recall(self, lake: LakeWarehouse, is_counted: bool) -> None:
        """Let the empty lake know what the destination holds."""
        self._loaded = read_loaded(self._request.tables, is_counted)
        loaded = dict(self._loaded.tables)
        receipts = loaded["_wb_receipts"]
        self._holds_receipts = receipts.num_rows > 0
        # Without a last step no run is continued: dlt's merge replaces whole runs.
        index = receipts.schema.get_field_index("last_step")
        steps = pa.nulls(receipts.num_rows, pa.int64())
        loaded["_wb_receipts"] = receipts.set_column(index, receipts.schema.field(index), steps)
        self._known = loaded["_wb_columns"].select(["table_name", "column_name"]).to_pylist()
        if any(table.num_rows for table in loaded.values()):
            request = self._request
            is_window = (request.since or request.until) and self._holds_receipts
            runs = read_moments() if is_window else RUNS.empty_table()
            lake.commit(Batch(request.dataset_name, request.owner, "", runs, meta=loaded))

    def _warn_of_damage(self, plan: ExportPlan) -> None:
        names = {"runs", *self._request.tables}
        hurt = {run_id for run_id, name in self._loaded.damaged if name in names}
        if again := sum(run.run_id in hurt for run in plan.iter_runs()):
            log.warning(
                "%d runs are read again: what was loaded of them is not in the dataset as it was "
                "given. Two loads at the same time do that, or one that was cut: load one at a "
                "time.",
                again,
            )

    def _mark_deletions(self, lake: LakeWarehouse) -> None:
        """Mark the destination's rows of runs that this export found to be gone."""
        request = self._request
        receipts = lake.read_tables(request.dataset_name, ["_wb_receipts"])["_wb_receipts"]
        new = {"load_id": self._load_id, "table_name": "runs", "status": "deleted"}
        for name, value in new.items():
            receipts = receipts.filter(pc.equal(receipts[name], value))
        gone = receipts["run_id"].to_pylist()
        # A destination that holds nothing may not be one that can be read.
        if not gone or not self._holds_receipts:
            return
        rows = read_runs(gone, self._loaded.places)
        now = pa.scalar(datetime.now(UTC), RUNS.field("deleted_at").type)
        marks = {
            "deleted_at": pc.coalesce(rows["deleted_at"], now),
            "_load_id": pa.array([self._load_id] * rows.num_rows, TEXT),
        }
        for name, values in marks.items():
            index = RUNS.get_field_index(name)
            rows = rows.set_column(index, RUNS.field(name), values)
        lake.commit(Batch(request.dataset_name, request.owner, self._load_id, rows))

    def _of_this_load(self, table_name: str, rows: pa.Table) -> pa.Table:
        """The rows that this export wrote, under the id of dlt's package."""
        if table_name == "_wb_columns":
            known = {(one["table_name"], one["column_name"]) for one in self._known}
            pairs = zip(
                rows["table_name"].to_pylist(), rows["column_name"].to_pylist(), strict=True
            )
            return rows.filter(pa.array([pair not in known for pair in pairs], pa.bool_()))
        # A metric may be called load_id: a table of rows has our column beside it.
        name = "_load_id" if "_load_id" in rows.schema.names else "load_id"
        rows = rows.filter(pc.equal(rows[name], self._load_id))
        index = rows.schema.get_field_index(name)
        ids = pa.repeat(pa.scalar(self._package or self._load_id, TEXT), rows.num_rows)
        return rows.set_column(index, rows.schema.field(index), ids)


def _refuse_changes(steps: Mapping[str, int]) -> None:
    changed = sorted(name for name, count in steps.items() if count > 1)
    if changed:
        raise InvalidRequest(
            f"The resources {', '.join(changed)} are mapped, filtered or limited: receipts would "
            "not be true of such rows. Take away the steps; filters=, keys=, tables= and since= "
            "say what is read, and views in the destination can change it."
        )


def _lake(folder: Path) -> LakeWarehouse:
    return connect_lake(urlsplit(f"parquet:///{folder / 'lake'}"), lock_timeout_s=10)
