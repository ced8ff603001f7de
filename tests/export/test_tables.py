"""Which tables are written, of which runs, and what is kept out of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from wb_ops import Api, ExportRequest, InvalidRequest, Warehouse, plan_export
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

Ask = Callable[[str], list[dict[str, Any]]]
ALL = ("runs", "history", "system_metrics")
SECRET = "hf_" + "aB" * 17
REDACTED = ExportRequest("ann", "trials", redact_secrets=True)


def events(count: int, start: int = 0) -> list[dict[str, Any]]:
    ticks = range(start, start + count)
    return [{"_timestamp": 15.0 * tick, "_runtime": tick, "system.cpu": tick} for tick in ticks]


@pytest.fixture
def project(server: DevServer) -> DevServer:
    for index, state in enumerate(["finished", "failed", "running"]):
        server.seed_run(
            "ann", "trials", f"r{index}", state=state, config={"lr": index / 10},
            history=[{"_step": step, "loss": float(step)} for step in range(4)], events=events(5),
        )  # fmt: skip
    return server


@pytest.mark.usefixtures("project")
class TestTables:
    def test_runs_alone_read_no_history(self, server: DevServer, export: Any, ask: Ask):
        server.requests.clear()
        _, report = export(tables=("runs",))
        assert {one for one in server.requests.operations() if one} == {"Runs"}
        assert (report.runs, report.history_rows) == (3, 0)
        assert ask("select config__lr from runs_flat order by 1") == [
            {"config__lr": 0.0}, {"config__lr": 0.1}, {"config__lr": 0.2},
        ]  # fmt: skip
        assert [run.run_id for run in export(tables=("runs",))[0].runs] == []
        _, later = export()
        assert later.history_rows == 12

    def test_a_run_that_ends_without_a_sign_is_seen(self, server: DevServer, export: Any, ask: Ask):
        export(tables=("runs",))
        server.edit_run("ann", "trials", "r2", state="crashed")
        export(tables=("runs",))
        assert ask("select state from runs where run_id = 'r2'") == [{"state": "crashed"}]

    def test_system_metrics_are_labelled_and_replaced(
        self, server: DevServer, export: Any, ask: Ask
    ):
        _, report = export(tables=ALL)
        assert report.system_rows == 15
        assert ask("select distinct key, sampled from system_metrics") == [
            {"key": "system.cpu", "sampled": True}
        ]
        receipts = "select run_id, status, rows_read, source from _wb_receipts where table_name = "
        assert ask(f"{receipts} 'system_metrics' and run_id <> 'r1' order by 1") == [
            {"run_id": "r0", "status": "complete", "rows_read": 5, "source": "sampled"},
            {"run_id": "r2", "status": "growing", "rows_read": 5, "source": "sampled"},
        ]
        assert export(tables=ALL)[0].runs == ()
        server.append_history("ann", "trials", "r2", [{"_step": 4, "loss": 4.0}])
        assert export(tables=ALL)[1].system_rows == 5
        assert ask("select count(*) as n from system_metrics") == [{"n": 15}]

    def test_system_metrics_that_fail_keep_the_history(
        self, server: DevServer, export: Any, ask: Ask
    ):
        broken = Responder(status=200, body=json.dumps({"data": {"project": None}}))
        server.faults.add(Fault(Matcher(operation="RunEvents"), broken))
        _, report = export(tables=ALL)
        assert report.history_rows == 12
        assert [(one.table_name, one.status) for one in report.unsound] == [
            ("system_metrics", "failed")
        ]
        assert [run.reason for run in export(tables=ALL)[0].runs] == ["system metrics"]

    def test_states_are_a_scope(self, export: Any, ask: Ask):
        export(states=("finished", "failed"))
        assert ask("select run_id from runs order by 1") == [{"run_id": "r0"}, {"run_id": "r1"}]
        assert [run.run_id for run in export()[0].runs] == ["r2"]
        assert len(ask("select scope from _wb_state")) == 2

    def test_single_runs_leave_no_marks(self, server: DevServer, export: Any, ask: Ask):
        for index in range(3):
            export(run_ids=(f"r{index}",))
        assert ask("select watermark, reconciled_at from _wb_state") == [
            {"watermark": None, "reconciled_at": None}
        ]
        assert ask("select count(*) as n from history") == [{"n": 12}]
        assert export(run_ids=("r0", "r1"))[0].runs == ()
        server.delete_run("ann", "trials", "r1")
        assert export(run_ids=("r1", "nobody"))[1].deleted == 1
        assert ask("select run_id from runs where deleted_at is not null") == [{"run_id": "r1"}]


class TestSecrets:
    @pytest.fixture(autouse=True)
    def leaky(self, server: DevServer) -> None:
        server.seed_run(
            "ann", "trials", "leaky", config={"hub": {"token": SECRET}, "lr": 1},
            summary={"url": "https://ann:" + "pass1@example.com/x"},
            history=[{"_step": 0, "note": f"logged in with {SECRET}", "loss": 1.0}],
        )  # fmt: skip

    def test_are_named_and_never_told(self, export: Any, ask: Ask):
        _, report = export()
        assert report.suspects == ["leaky/config/hub/value/token", "leaky/summary/url"]
        assert SECRET not in str(report)
        note = ask("select note from _wb_receipts where table_name = 'runs'")[0]["note"]
        assert note == "looks like a secret: /config/hub/value/token, /summary/url"

    def test_are_taken_out_on_request(
        self, server: DevServer, api: Api, warehouse: Warehouse, export: Any, ask: Ask,
        tmp_path: Path,
    ):  # fmt: skip
        export()
        _, report = export(redact_secrets=True)
        assert report.suspects == []
        plan_export(REDACTED, api, warehouse, str(tmp_path / "plans"))
        for table in ("runs", "runs_flat", "history"):
            held = str(ask(f"select * from {table}"))
            assert SECRET not in held
            assert "pass1" not in held
            assert "[redacted]" in held
        assert ask("select config__lr as lr, loss from runs_flat, history") == [
            {"lr": 1.0, "loss": 1.0}
        ]
        assert export(redact_secrets=True)[0].runs == ()

    def test_are_in_no_plan_that_leaves_them_out(
        self, server: DevServer, api: Api, warehouse: Warehouse, tmp_path: Path
    ):
        plan = plan_export(REDACTED, api, warehouse, str(tmp_path / "plans"))
        assert plan.uri is not None
        texts = [str(pq.read_table(path).to_pylist()) for path in tmp_path.rglob("*.parquet")]
        texts += [path.read_text() for path in tmp_path.rglob("*.json")]
        assert len(texts) >= 4
        for text in texts:
            assert SECRET not in text
            assert server.api_key not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tables": ("runs", "files")}, "tables='files'"),
        ({"tables": "runs"}, "tables='runs'"),
        ({"run_ids": ()}, "run_ids=\\(\\)"),
        ({"states": "finished"}, "states='finished'"),
        ({"keys": (1,)}, "keys=\\(1,\\)"),
    ],
)
def test_a_bad_choice_names_field_and_value(changes: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        replace(REDACTED, **changes)


def test_a_leaf_with_a_column_keeps_it_among_many_others(
    server: DevServer, export: Any, ask: Callable[[str], list[dict[str, Any]]]
):
    server.seed_run("ann", "trials", "r1", config={"zz": 1})
    export()
    many = {f"a{index:03}": 1 for index in range(510)}
    server.seed_run("ann", "trials", "r2", config={**many, "zz": 2})
    export()
    assert ask("select config__zz as zz from runs_flat order by run_id") == [
        {"zz": 1.0},
        {"zz": 2.0},
    ]
