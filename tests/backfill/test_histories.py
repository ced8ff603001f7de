"""A value is a fact only where it comes of the whole history; many histories cost few requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    ExportRequest,
    Warehouse,
    execute_export,
    plan_backfill,
    plan_export,
    write_backfill,
)
from wb_ops.backfill import best
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.errors import InvalidRequest

HISTORY = [{"_step": step, "acc": step / 4, "loss": 1.0} for step in range(4)]
RUNS = 45
REQUEST = BackfillRequest("ann", "trials", compute=best("acc"))


def by_table(run: Any) -> dict[str, Any]:
    return {"best_acc": max(run.history_table()["acc"].to_pylist())}


def by_rows(run: Any) -> dict[str, Any]:
    return {"best_acc": max(row["acc"] for row in run.scan_history(keys=["acc"]))}


@pytest.fixture
def server(server: DevServer) -> DevServer:
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index:02}", "summary": "{}",
         "history": HISTORY}
        for index in range(RUNS)
    )  # fmt: skip
    return server


def serves(server: DevServer, rows: list[dict[str, Any]]) -> None:
    """A run of four rows up to step 3, of which the server gives these."""
    server.seed_run("ann", "trials", "odd", summary="{}", history=HISTORY, parquet="off")
    history = [json.dumps(row) for row in rows]
    body = json.dumps({"data": {"project": {"run": {"history": history}}}})
    page = Matcher(operation="HistoryPage")
    server.faults.add(Fault(page, Responder(status=200, body=body), times=None))


@pytest.mark.parametrize(
    "compute", [best("acc"), by_table, by_rows], ids=["recipe", "table", "rows"]
)
@pytest.mark.parametrize(
    "rows",
    [HISTORY[:3], [{"_step": 0, "acc": 9.0}, *HISTORY[:3]]],
    ids=["one is missing", "as many, but not the last"],
)
def test_a_run_whose_rows_do_not_add_up_is_skipped_unless_accepted(
    api: Api, warehouse: Warehouse, server: DevServer, compute: Any, rows: list[dict[str, Any]]
):
    serves(server, rows)
    request = replace(REQUEST, compute=compute, filters={"name": {"$in": ["odd", "r00"]}})
    plan = plan_backfill(request, api, warehouse)
    odd = {value.reason for value in plan.values if value.run_id == "odd"}
    assert odd == {"history incomplete"}
    assert {value.run_id for value in plan.to_set} == {"r00"}
    accepted = plan_backfill(replace(request, include_incomplete=True), api, warehouse)
    assert {value.run_id for value in accepted.to_set} == {"odd", "r00"}


def test_a_running_run_that_is_asked_for_is_taken_as_it_is(
    api: Api, warehouse: Warehouse, server: DevServer
):
    serves(server, HISTORY[:3])
    server.set_state("ann", "trials", "odd", "running")
    request = replace(REQUEST, include_running=True, filters={"name": "odd"})
    assert plan_backfill(request, api, warehouse).counts == {"set": 2}


def reads_twice(run: Any) -> dict[str, Any]:
    last = run.history_table(keys=["loss"]).num_rows
    return {**by_table(run), "last": last}


@pytest.mark.parametrize(
    ("compute", "files"), [(best("acc"), RUNS), (by_table, RUNS), (reads_twice, 2 * RUNS)]
)
def test_the_sources_of_twenty_histories_come_in_one_request(
    api: Api, warehouse: Warehouse, server: DevServer, compute: Any, files: int
):
    plan = plan_backfill(replace(REQUEST, compute=compute), api, warehouse)
    assert len({value.run_id for value in plan.to_set}) == RUNS
    assert Counter(server.requests.operations()) == {"Runs": 1, "RunParquetHistory": 3}
    assert sum(record.origin == "storage" for record in server.requests) == files


def test_a_function_that_reads_no_history_costs_the_listing(
    api: Api, warehouse: Warehouse, server: DevServer
):
    plan_backfill(replace(REQUEST, compute=lambda run: {"a": run.name}), api, warehouse)
    assert server.requests.operations() == ["Runs"]


def test_an_error_of_a_function_names_the_run(api: Api, warehouse: Warehouse) -> None:
    def fails(run: Any) -> dict[str, Any]:
        return {"a": {}["acc"]}

    request = replace(REQUEST, compute=fails, filters={"name": "r03"})
    with pytest.raises(KeyError) as caught:
        plan_backfill(request, api, warehouse)
    assert "run r03" in " ".join(caught.value.__notes__)


def test_a_function_must_return_a_dict(api: Api, warehouse: Warehouse) -> None:
    forgets: Any = lambda run: None  # noqa: E731 - what a user's function may be
    with pytest.raises(InvalidRequest, match=r"Run r03: the function returned None: .*dict"):
        plan_backfill(replace(REQUEST, compute=forgets, filters={"name": "r03"}), api, warehouse)


@pytest.mark.parametrize(("name", "value"), [("max_workers", 0), ("max_changes", -1)])
def test_a_number_that_means_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}={value}: give"):
        replace(REQUEST, **{name: value})


class TestSql:
    REQUEST = replace(
        REQUEST, compute=None, sql="select run_id, max(acc) as best_acc from history group by 1"
    )

    @pytest.fixture(autouse=True)
    def exported(self, api: Api, warehouse: Warehouse, server: DevServer) -> None:
        export = ExportRequest("ann", "trials")
        execute_export(plan_export(export, api, warehouse), api, warehouse)

    def skipped(self, api: Api, warehouse: Warehouse) -> dict[str, str]:
        plan = plan_backfill(self.REQUEST, api, warehouse)
        assert len(plan.values) == RUNS
        return {value.run_id: value.reason for value in plan.values if value.action == "skipped"}

    def test_a_run_that_was_made_anew_with_as_many_rows_is_another_one(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        server.delete_run("ann", "trials", "r03")
        server.seed_run("ann", "trials", "r03", summary="{}", history=HISTORY)
        assert self.skipped(api, warehouse) == {"r03": "history older than the run"}

    def test_a_run_that_has_reported_since_is_newer_than_its_rows(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        server.edit_run("ann", "trials", "r04", heartbeat_at="2031-01-01T00:00:00")
        assert self.skipped(api, warehouse) == {"r04": "history older than the run"}

    def test_what_a_backfill_wrote_makes_no_history_old(self, api: Api, warehouse: Warehouse):
        assert len(write_backfill(self.REQUEST, api, warehouse).written) == RUNS
        assert plan_backfill(self.REQUEST, api, warehouse).counts == {"unchanged": RUNS}


def test_sql_on_a_dataset_without_any_history_is_of_other_data(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: Callable[..., Any]
):
    export = ExportRequest("ann", "trials", tables=("runs",))
    execute_export(plan_export(export, api, warehouse), api, warehouse)
    request = BackfillRequest("ann", "trials", sql="select run_id, 1 as score from runs")
    assert len(write_backfill(request, api, warehouse).written) == RUNS
    assert text_of("r07") == '{"score": 1}'
