"""A run that still logs is continued where it stopped, and replaced once it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.devserver import DevServer

Ask = Callable[[str], list[dict[str, Any]]]
LIVE = ("ann", "trials", "live")
COUNT = "select count(*) as n, count(distinct _step) as steps, max(loss) as top from history"


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"_step": step, "loss": float(step)} for step in range(start, start + count)]


@pytest.fixture(params=["files", "windows"])
def live(server: DevServer, request: pytest.FixtureRequest) -> DevServer:
    server.seed_run(
        *LIVE, state="running", history=rows(50), parquet=40 if request.param == "files" else "off"
    )
    return server


def steps_asked_for(server: DevServer) -> list[int]:
    pages = [one for one in server.requests if one.operation == "HistoryPage"]
    return [int(str(one.variables["minStep"])) for one in pages]


@pytest.mark.usefixtures("live")
class TestTail:
    def test_only_the_end_is_read_and_nothing_is_doubled(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.append_history(*LIVE, rows(30, start=50))
        server.requests.clear()
        plan, report = export()
        assert [run.tail_from for run in plan.runs] == [49]
        assert "1 histories (1 continued) with 30 rows" in str(plan)
        assert min(steps_asked_for(server)) == 49
        assert report.history_rows == 31
        assert ask(COUNT) == [{"n": 80, "steps": 80, "top": 79.0}]
        receipt = report.receipts[0]
        assert (receipt.status, receipt.rows_read, receipt.distinct_steps) == ("growing", 80, 80)
        assert (receipt.first_step, receipt.last_step) == (0, 79)
        assert export()[0].runs == ()

    def test_a_row_logged_again_at_the_last_step_is_taken(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.append_history(*LIVE, [{"_step": 49, "loss": -1.0, "late": 7}, *rows(2, start=50)])
        export()
        assert ask("select loss, late from history where _step = 49") == [{"loss": -1, "late": 7}]
        assert ask(COUNT) == [{"n": 52, "steps": 52, "top": 51.0}]
        server.append_history(*LIVE, rows(1, start=52))
        export()
        assert ask(COUNT) == [{"n": 53, "steps": 53, "top": 52.0}]

    def test_it_is_replaced_once_when_it_ends(self, server: DevServer, export: Any, ask: Ask):
        export()
        server.append_history(*LIVE, rows(10, start=50))
        export()
        server.append_history(*LIVE, rows(5, start=60))
        server.finish_run(*LIVE)
        plan, report = export()
        assert [(run.reason, run.tail_from) for run in plan.runs] == [("finished", None)]
        assert report.statuses == {"complete": 1}
        assert report.history_rows == 65
        assert ask(COUNT) == [{"n": 65, "steps": 65, "top": 64.0}]
        assert export()[0].runs == ()

    def test_it_is_replaced_when_its_counters_go_back(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.delete_run(*LIVE)
        server.seed_run(*LIVE, state="running", history=rows(20, start=5))
        plan, _ = export()
        assert [run.tail_from for run in plan.runs] == [None]
        assert ask(COUNT) == [{"n": 20, "steps": 20, "top": 24.0}]

    def test_more_metrics_are_read_from_the_start(self, server: DevServer, export: Any, ask: Ask):
        export(keys=("loss",))
        server.append_history(*LIVE, [{"_step": 50, "loss": 50.0, "other": 1.0}])
        plan, _ = export()
        assert [run.tail_from for run in plan.runs] == [None]
        assert ask("select count(other) as n from history") == [{"n": 1}]


def test_a_run_that_has_logged_nothing_is_read_when_it_does(
    server: DevServer, export: Any, ask: Ask
):
    server.seed_run(*LIVE, state="running")
    export()
    server.append_history(*LIVE, rows(3))
    export()
    assert ask(COUNT) == [{"n": 3, "steps": 3, "top": 2.0}]
