"""Every value that the real SDK logged is in DuckDB, through files, windows, and while it runs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from logged_rows import same

from wb_ops import Api, ExportRequest, NotFound, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import sdk_writer  # noqa: E402 - the program that logs is also the truth

sys.path.pop(0)

REQUEST = ExportRequest(sdk_writer.ENTITY, sdk_writer.PROJECT)
DATASET = REQUEST.dataset_name


@pytest.fixture(scope="module")
def started_at() -> float:
    return time.time()


@pytest.fixture(scope="module")
def logged(started_at: float, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """A server to which the SDK has logged two runs and still logs a third."""
    folder = tmp_path_factory.mktemp("sdk")
    hold = folder / "finish-now"
    with DevServer(parquet_rows_per_file=2_000) as server:
        environ = {
            **{name: value for name, value in os.environ.items() if "WANDB" not in name},
            "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.api_key,
            "WANDB_DIR": str(folder), "WANDB_SILENT": "true", "HOME": str(folder),
        }  # fmt: skip
        writer = subprocess.Popen(
            [sys.executable, str(HERE / "sdk_writer.py"), str(hold)], env=environ
        )
        try:
            wait_for_rows(server, writer, "running", len(sdk_writer.odd_rows()))
            yield server
        finally:
            hold.touch()
            assert writer.wait(60) == 0


def wait_for_rows(server: DevServer, writer: subprocess.Popen, run_id: str, count: int) -> None:
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        for _ in range(600):
            assert writer.poll() is None, "the SDK's process has ended"
            try:
                if api.run(f"ann/trials/{run_id}").history_line_count == count:
                    return
            except NotFound:
                pass
            time.sleep(0.2)
    raise AssertionError(f"{run_id} did not come to {count} rows")


@pytest.fixture(params=["files", "windows"])
def exported(request: pytest.FixtureRequest, logged: DevServer, tmp_path: Path) -> Warehouse:
    warehouse = connect(f"duckdb:///{tmp_path / 'w.duckdb'}")
    with Api({"base_url": logged.url}, api_key=logged.api_key) as api:
        api.reader.has_parquet = request.param == "files"
        report = execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    assert report.statuses == {"complete": 2, "growing": 1}
    sources = {one.run_id: one.source for one in report.receipts}
    assert sources["long"] == ("parquet" if request.param == "files" else "paged")
    assert sources["running"] == "paged"
    return warehouse


def rows_of(warehouse: Warehouse, run_id: str) -> list[dict[str, Any]]:
    """Rows of `history` under the keys that were logged, the typed values of `_extra` included."""
    names = {
        row["column_name"]: row["original_key"]
        for row in warehouse.query("select * from _wb_columns", DATASET).to_pylist()
    }
    sql = f"select * from history where run_id = '{run_id}' order by _step"
    rows = []
    for row in warehouse.query(sql, DATASET).to_pylist():
        values = {names[name]: value for name, value in row.items() if name in names}
        values |= json.loads(row["_extra"] or "{}")
        rows.append({"_step": row["_step"], **{k: v for k, v in values.items() if v is not None}})
    return rows


def assert_rows(found: list[dict[str, Any]], logged: list[dict[str, Any]]) -> None:
    assert len(found) == len(logged)
    for got, want in zip(found, logged, strict=True):
        assert got.keys() == want.keys()
        for key, value in want.items():
            if key == "hist":
                assert (got[key]["_type"], got[key]["values"]) == ("histogram", [1, 2])
                assert got[key]["bins"] == value
            else:
                assert same(got[key], value, is_loose=True), (want["_step"], key)


@pytest.mark.parametrize("run_id", ["odd", "running"])
def test_every_type_of_value(exported: Warehouse, run_id: str):
    assert_rows(rows_of(exported, run_id), sdk_writer.odd_rows())


def test_times_are_those_of_the_log(exported: Warehouse, started_at: float):
    sql = "select _timestamp, epoch(logged_at) as epoch, _runtime from history where run_id = 'odd'"
    rows = exported.query(sql, DATASET).to_pylist()
    assert len(rows) == 5
    for row in rows:
        assert started_at <= row["_timestamp"] <= time.time()
        assert row["epoch"] == pytest.approx(row["_timestamp"], abs=1e-5)
        assert 0 <= row["_runtime"] < 600


def test_five_thousand_rows(exported: Warehouse):
    assert_rows(rows_of(exported, "long"), sdk_writer.long_rows())


def test_keys_that_differ_in_case_or_signs_are_columns_of_their_own(exported: Warehouse):
    rows = exported.query("select original_key from _wb_columns", DATASET).to_pylist()
    assert {"loss", "Loss", "val/acc", "val.acc"} <= {row["original_key"] for row in rows}


def test_the_row_of_the_run(exported: Warehouse):
    sql = "select * from runs where run_id = 'odd'"
    row = exported.query(sql, DATASET).to_pylist()[0]
    assert json.loads(row["config"]) == sdk_writer.CONFIG
    summary = json.loads(row["summary"])
    assert summary["best"] == {"loss": 0.1}
    assert (summary["worst"], summary["gone"]) == ("Infinity", "NaN")
    assert set(json.loads(row["_floats"])) == {"/summary/worst", "/summary/gone", "/summary/up"}
    assert summary["_step"] == 10**9
    plain = {name: row[name] for name in ("display_name", "state", "run_group", "job_type")}
    assert plain == {
        "display_name": "name of odd", "state": "finished", "run_group": "g", "job_type": "train",
    }  # fmt: skip
    assert (row["tags"], row["notes"], row["history_rows"]) == (["one", "two"], "a note", 5)


def test_a_backfill_is_read_by_the_sdk(logged: DevServer, exported: Warehouse):
    from wb_ops import BackfillRequest, execute_backfill, plan_backfill

    request = BackfillRequest(
        sdk_writer.ENTITY, sdk_writer.PROJECT,
        compute=lambda run: {"rows": run.history_table().num_rows, "nan": math.nan},
    )  # fmt: skip
    with Api({"base_url": logged.url}, api_key=logged.api_key) as api:
        report = execute_backfill(plan_backfill(request, api, exported), api, exported)
        assert not report.conflicts
        summary = dict(api.run("ann/trials/odd").summary)
    assert summary["rows"] == 5
    code = (
        "import wandb; s = wandb.Api().run('ann/trials/odd').summary;"
        "print(s['rows'], s['nan'], s['best'], s['loss'])"
    )
    environ = {**os.environ, "WANDB_BASE_URL": logged.url, "WANDB_API_KEY": logged.api_key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:2] == ["5", "nan"]
    assert "0.33333" in done.stdout
