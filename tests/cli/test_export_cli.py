"""`wb-ops export` beyond its first use: options, progress, failures, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from held_file import held
from three_runs import SECRET, TO, Command

from wb_ops import connect
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

LIMIT = {"RateLimit-Remaining": "300", "RateLimit-Reset": "600"}
pytestmark = pytest.mark.usefixtures("three_runs")


def test_help_is_that_of_the_export(wb_ops: Command):
    code, out, _ = wb_ops("export", "--help")
    assert code == 0
    for option in ("--to", "--csv", "--tables", "--redact-secrets", "status --to URL"):
        assert option in out


def test_usage_is_that_of_the_export(wb_ops: Command):
    code, _, err = wb_ops("export", "ann/trials", *TO, "--workers", "0")
    assert code == 64
    assert err.startswith("Usage: wb-ops export [OPTIONS] ENTITY/PROJECT\n")
    assert "Try 'wb-ops export --help'" in err


def test_options_may_stand_before_the_project(wb_ops: Command):
    code, out, _ = wb_ops("export", *TO, "--tables", "runs,system_metrics", "ann/trials")
    assert code == 0
    assert "3 runs and 0 history rows, 3 system metrics written" in out


def test_suspects_are_named_and_can_be_redacted(wb_ops: Command, tmp_path: Path):
    _, out, _ = wb_ops("export", "ann/trials", *TO)
    assert "3 values look like secrets" in out
    assert SECRET not in out
    wb_ops("export", "ann/trials", *TO, "--redact-secrets")
    held = connect(f"duckdb:///{tmp_path / 'w.duckdb'}").query("select * from runs", "ann__trials")
    assert SECRET not in str(held.to_pylist())


def test_the_json_of_a_plan_has_what_its_text_has(wb_ops: Command, server: DevServer):
    server.faults.add(Fault(Matcher(operation="Runs"), Responder(headers=LIMIT), times=None))
    tables = "runs,history,system_metrics"
    _, out, _ = wb_ops("export", "ann/trials", *TO, "--tables", tables, "--dry-run", "--json")
    plan = json.loads(out)["plan"]
    assert (plan["hidden"], plan["broken"], plan["continued"]) == (0, [], 0)
    assert (plan["histories"], plan["system_metrics"], plan["history_rows"]) == (3, 3, 15)
    assert (plan["limit_left"], 0 < plan["limit_reset_s"] <= 600) == (0.3, True)


def test_a_terminal_shows_what_is_left_of_the_limit(
    wb_ops: Command, server: DevServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    server.faults.add(Fault(Matcher(operation="Runs"), Responder(headers=LIMIT), times=None))
    _, out, _ = wb_ops("export", "ann/trials", *TO)
    assert "W&B's limit: 30 % left" in out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_gets_a_line_now_and_then(
    wb_ops: Command, server: DevServer, monkeypatch: pytest.MonkeyPatch, as_json: bool
):
    server.faults.add(Fault(Matcher(operation="Runs"), Responder(headers=LIMIT), times=None))
    options = ("--mode", "full", *(["--json"] if as_json else []))
    assert wb_ops("export", "ann/trials", *TO, *options)[2] == "", "it is over too soon"
    monkeypatch.setattr("wb_ops.cli.progress.SECONDS_BETWEEN_LINES", 0)
    code, out, err = wb_ops("export", "ann/trials", *TO, *options)
    assert (code, "rows/s" in out) == (0, False)
    if as_json:
        assert err == ""
    else:
        assert re.fullmatch(
            r"3/3 runs  15 rows  [\d,]+ rows/s  \d+\.\d MB/s  W&B's limit: 30 % left  "
            r"0:00:\d\d gone, 0:00:00 left",
            err.splitlines()[-1],
        )


class TestIncomplete:
    @pytest.fixture(autouse=True)
    def one_file_is_cut(self, server: DevServer) -> None:
        server.faults.add(Fault(Matcher(origin="storage", nth=1), Responder.truncated(50)))

    def test_the_receipts_are_printed_before_the_error(self, wb_ops: Command):
        code, out, err = wb_ops("export", "ann/trials", *TO, "--on-incomplete", "fail")
        assert code == 75
        assert "receipts of ann__trials" in out
        assert "1 complete, 1 failed, 1 growing" in out
        assert "ExportIncomplete: 1 of 3 receipts" in err

    def test_json_has_the_report_too(self, wb_ops: Command):
        code, out, err = wb_ops("export", "ann/trials", *TO, "--on-incomplete=fail", "--json")
        assert code == 75, err
        plan, report = (json.loads(line) for line in out.splitlines())
        assert plan["plan"]["to_write"] == 3
        assert report["report"]["statuses"] == {"complete": 1, "failed": 1, "growing": 1}

    def test_what_gives_the_same_twice_is_said_to_wait_for_the_reconcile(
        self, wb_ops: Command, server: DevServer
    ):
        wb_ops("export", "ann/trials", *TO)
        server.seed_run("ann", "trials", "odd", history=[{"_step": 0}, {"_step": 1}], parquet="off")
        one_row = {"data": {"project": {"run": {"history": ['{"_step": 0, "loss": 1.0}']}}}}
        page = Matcher(operation="HistoryPage")
        server.faults.add(Fault(page, Responder(status=200, body=json.dumps(one_row)), times=None))
        first, second, third = (wb_ops("export", "ann/trials", *TO)[1] for _ in range(3))
        assert first.endswith("1 receipts do not add up: their runs are read again next time\n")
        assert second.endswith("read again next time, 1 of them by the next reconcile\n")
        assert "0 to write" in third


def test_texts_of_others_are_no_markup(
    wb_ops: Command, server: DevServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "300")
    server.seed_run("ann", "trials", "torn", history=[{"_step": 0, "loss": 1.0}])
    gone = Responder(status=200, body='{"errors": [{"message": "no [/shard] of [blue] here"}]}')
    server.faults.add(Fault(Matcher(operation="RunParquetHistory"), gone, times=None))
    for arguments in (("ann/trials",), ("status",)):
        _, out, err = wb_ops("export", *arguments, *TO)
        assert "no [/shard] of [blue] here" in out, (out, err)


def test_a_newer_schema_is_refused_before_anything_is_read(
    wb_ops: Command, server: DevServer, tmp_path: Path
):
    wb_ops("export", "ann/trials", *TO)
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("update ann__trials._wb_state set schema_version = 99")
    server.requests.clear()
    code, _, err = wb_ops("export", "ann/trials", *TO)
    assert code == 73
    assert "newer wb_ops" in err
    assert server.requests.operations() == []


class TestAWarehouseThatIsNotOpen:
    """What is wrong with it is told before W&B is asked for anything."""

    @pytest.fixture(autouse=True)
    def nothing_is_asked(self, server: DevServer) -> Iterator[None]:
        yield
        assert server.requests.operations() == []

    def test_a_folder(self, wb_ops: Command, tmp_path: Path):
        code, _, err = wb_ops("export", "ann/trials", "--to", f"duckdb:///{tmp_path}")
        assert code == 73
        assert "It is a folder: give a file in it." in err
        assert err.endswith("Try again: no, it would fail again\n")

    def test_a_file_that_may_not_be_written(
        self, wb_ops: Command, open_folder: Path, protect: Callable[[Path], None]
    ):
        path = open_folder / "x.duckdb"
        duckdb.connect(str(path)).close()
        protect(path)
        code, _, err = wb_ops("export", "ann/trials", "--to", f"duckdb:///{path}")
        assert code == 73
        assert "Permission denied. Let this user write there, or choose another place.\n" in err
        assert err.endswith("Try again: no, it would fail again\n")

    def test_a_file_that_another_process_holds(
        self, wb_ops: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        # The command waits for two minutes, and has no option for it.
        monkeypatch.setitem(connect.__kwdefaults__, "lock_timeout_s", 0.2)
        with held(tmp_path / "w.duckdb"):
            code, _, err = wb_ops("export", "ann/trials", *TO)
        assert code == 75
        assert "duckdb:///w.duckdb is held by another writer for longer than 0.2 s" in err
        assert err.endswith("Try again: after 15 s\n")


def test_a_filter_that_cannot_match_is_refused_before_anything_is_written(
    wb_ops: Command, tmp_path: Path
):
    code, _, err = wb_ops("export", "ann/trials", *TO, "--filters", '{"config.lr": {"$near": 1}}')
    assert code == 64
    assert "$near" in err
    assert not (tmp_path / "w.duckdb").exists()
