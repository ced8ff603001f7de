"""`wb-ops export` beyond its first use: tables, states, CSV files, and what a warehouse holds."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from wb_ops import connect
from wb_ops.cli.failures import run
from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

Command = Callable[..., tuple[int, str, str]]
SECRET = "hf_" + "aB" * 17
TO = ("--to", "duckdb:///w.duckdb")
LIMIT = {"RateLimit-Remaining": "300", "RateLimit-Reset": "600"}


@pytest.fixture
def wb_ops(
    server: DevServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs the command line in this process; exit code, stdout, stderr."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = run(cli, list(arguments))
        except SystemExit as exit_:
            code = int(str(exit_.code))
        return code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def project(server: DevServer) -> DevServer:
    for index, state in enumerate(["finished", "failed", "running"]):
        server.seed_run(
            "ann", "trials", f"r{index}", state=state, display_name=f"run {index}",
            history=[{"_step": step, "loss": 1.0 * step} for step in range(5)],
            config={"lr": index / 10, "_internal": 1, "hub_token": SECRET},
            summary={"loss": index}, events=[{"_timestamp": 1.0, "system.cpu": 1}],
        )  # fmt: skip
    return server


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


class TestCsv:
    def read(self, path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def test_a_file_has_the_runs(self, wb_ops: Command, tmp_path: Path):
        code, out, _ = wb_ops("export", "ann/trials", "--csv", "runs.csv", "--states", "finished")
        assert (code, out) == (0, "1 runs written to runs.csv\n")
        row = self.read(tmp_path / "runs.csv")[0]
        assert row["name"] == "run 0"
        assert json.loads(row["config"]) == {"lr": 0.0, "hub_token": SECRET}
        assert json.loads(row["summary"]) == {"loss": 0}

    def test_a_folder_has_the_histories_too(self, wb_ops: Command, tmp_path: Path):
        code, _, _ = wb_ops("export", "ann/trials", "--csv", "out", "--redact-secrets")
        assert code == 0
        assert len(self.read(tmp_path / "out" / "runs.csv")) == 3
        assert SECRET not in (tmp_path / "out" / "runs.csv").read_text()
        assert [row["loss"] for row in self.read(tmp_path / "out" / "history" / "r1.csv")] == [
            "0.0", "1.0", "2.0", "3.0", "4.0",
        ]  # fmt: skip

    def test_a_run_whose_id_is_runs_takes_nobodys_place(
        self, wb_ops: Command, server: DevServer, tmp_path: Path
    ):
        server.seed_run("ann", "trials", "runs", history=[{"_step": 0, "loss": 7.0}])
        code, _, err = wb_ops("export", "ann/trials", "--csv", "out")
        assert code == 0, err
        assert len(self.read(tmp_path / "out" / "runs.csv")) == 4
        assert self.read(tmp_path / "out" / "history" / "runs.csv")[0]["loss"] == "7.0"

    def test_the_suffix_may_have_any_case(self, wb_ops: Command, tmp_path: Path):
        code, _, err = wb_ops("export", "ann/trials", "--csv", "RUNS.CSV")
        assert code == 0, err
        assert len(self.read(tmp_path / "RUNS.CSV")) == 3

    def test_metrics_are_chosen_for_histories_only(self, wb_ops: Command, tmp_path: Path):
        code, _, err = wb_ops("export", "ann/trials", "--csv", "runs.csv", "--keys", "loss")
        assert code == 64
        assert "--keys" in err
        assert "a name without .csv" in err
        assert not list(tmp_path.iterdir())
        assert wb_ops("export", "ann/trials", "--csv", "out", "--keys", "loss")[0] == 0
        assert list(self.read(tmp_path / "out" / "history" / "r0.csv")[0]) == ["_step", "loss"]

    def test_a_terminal_shows_how_far_the_histories_are(
        self, wb_ops: Command, monkeypatch: pytest.MonkeyPatch
    ):
        assert "3/3" not in wb_ops("export", "ann/trials", "--csv", "out")[1]
        monkeypatch.setenv("FORCE_COLOR", "1")
        out = wb_ops("export", "ann/trials", "--csv", "out")[1]
        assert "histories" in out
        assert "3/3" in out

    def test_a_history_is_redacted_too(self, wb_ops: Command, server: DevServer, tmp_path: Path):
        history = [{"_step": 0, "note": f"use {SECRET}", "deep": {"said": [SECRET]}, "loss": 1.0}]
        server.seed_run("ann", "trials", "told", history=history)
        code, _, err = wb_ops("export", "ann/trials", "--csv", "out", "--redact-secrets")
        assert code == 0, err
        text = (tmp_path / "out" / "history" / "told.csv").read_text()
        assert SECRET not in text
        assert "[redacted]" in text

    @pytest.mark.parametrize("option", ["--dry-run", "--json", "--mode=full", "--tables=runs"])
    def test_an_option_that_it_would_pass_over_is_refused(
        self, wb_ops: Command, tmp_path: Path, option: str
    ):
        (tmp_path / "runs.csv").write_text("mine")
        code, _, err = wb_ops("export", "ann/trials", "--csv", "runs.csv", option)
        assert code == 64
        assert option.partition("=")[0] in err
        assert (tmp_path / "runs.csv").read_text() == "mine"

    def test_a_file_that_is_there_stays_until_the_new_one_is_complete(
        self, wb_ops: Command, server: DevServer, tmp_path: Path
    ):
        (tmp_path / "runs.csv").write_text("mine")
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(401), times=None))
        code, _, _ = wb_ops("export", "ann/trials", "--csv", "runs.csv")
        assert code == 77
        assert (tmp_path / "runs.csv").read_text() == "mine"
        assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]

    def test_one_destination_is_needed(self, wb_ops: Command):
        for arguments in ((), ("--csv", "x.csv", *TO)):
            code, _, err = wb_ops("export", "ann/trials", *arguments)
            assert code == 64
            assert "--to WAREHOUSE or --csv FILE" in err

    def test_a_place_that_cannot_be_written_is_refused(self, wb_ops: Command):
        for place in ("no/such/folder/x.csv", "/proc/x.csv"):
            code, _, err = wb_ops("export", "ann/trials", "--csv", place)
            assert code == 73
            assert f"--csv {place} cannot be written: No such file or directory.\n" in err


class TestStatus:
    def test_it_tells_what_is_held_without_asking_wandb(self, wb_ops: Command, server: DevServer):
        storage = Fault(Matcher(origin="storage", nth=1), Responder.truncated(50))
        server.faults.add(storage)
        assert wb_ops("export", "ann/trials", *TO)[0] == 0, "incomplete runs are marked"
        server.requests.clear()
        code, out, _ = wb_ops("export", "status", *TO)
        assert code == 0
        assert "ann__trials: ann/trials" in out
        assert "3 runs, 10 history rows" in out
        assert "1 complete, 1 failed, 1 growing" in out
        assert "MalformedResponse" in out
        assert server.requests.operations() == []

    def test_it_speaks_json(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO)
        _, out, _ = wb_ops("export", "status", "ann/trials", *TO, "--json")
        status: dict[str, Any] = json.loads(out)
        assert (status["runs"], status["history_rows"], status["incomplete"]) == (3, 15, [])
        assert status["last_load"]["status"] == "complete"
        assert status["lag_s"] >= 0

    @pytest.mark.parametrize("kind", ["parquet", "delta", "postgresql"])
    def test_every_warehouse_tells_the_same(
        self, wb_ops: Command, tmp_path: Path, kind: str, request: pytest.FixtureRequest
    ):
        url = f"{kind}:///{tmp_path / 'lake'}"
        if kind == "postgresql":
            url = request.getfixturevalue("new_database")()
        wb_ops("export", "ann/trials", "--to", url)
        for path in ([], ["ann/trials"]):
            code, out, err = wb_ops("export", "status", *path, "--to", url, "--json")
            assert code == 0, err
            status: dict[str, Any] = json.loads(out)
            assert (status["projects"], status["runs"]) == (["ann/trials"], 3)
            assert status["histories"] == {"complete": 2, "growing": 1}
            assert status["checked_at"] == status["scopes"][0]["checked_at"]
            assert status["lag_s"] >= 0
        code, out, err = wb_ops("export", "status", "--to", url)
        assert "runs, history: listed " in out, err

    def test_a_part_that_was_listed_does_not_hide_that_the_whole_was_not(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO)
        wb_ops("export", "ann/trials", *TO, "--filters", '{"state": "finished"}')
        status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
        whole, part = status["scopes"]
        assert (whole["tables"], part["tables"]) == (["runs", "history"], None)
        assert whole["checked_at"] < part["checked_at"]
        assert status["checked_at"] == whole["checked_at"]
        out = wb_ops("export", "status", *TO)[1]
        assert "runs, history: listed " in out
        assert f"some runs, metrics or states ({part['scope']}): listed " in out

    def test_the_table_that_is_furthest_behind_counts(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO)
        wb_ops("export", "ann/trials", *TO, "--tables", "runs")
        status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
        listed = {tuple(one["tables"]): one["checked_at"] for one in status["scopes"]}
        assert listed["runs",] > listed["runs", "history"] == status["checked_at"]
        wb_ops("export", "ann/trials", *TO, "--tables", "runs,history,system_metrics")
        status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
        assert status["checked_at"] == max(one["checked_at"] for one in status["scopes"])

    def test_windows_alone_are_no_listing_and_have_their_last_load(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO, "--since", "2020-01-01")
        status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
        assert (status["lag_s"], status["scopes"][0]["lag_s"]) == (None, None)
        assert status["scopes"][0]["loaded_at"] == status["last_load"]["finished_at"]
        out = wb_ops("export", "status", *TO)[1]
        assert re.search(r"runs, history: only windows or single runs, the last \d+ s ago", out)

    def test_a_warehouse_that_is_not_there_is_named(self, wb_ops: Command):
        code, _, err = wb_ops("export", "status", "ann/trials", *TO)
        assert code == 73
        assert "does not exist: export into it first" in err

    def test_a_warehouse_without_a_project_is_no_error(self, wb_ops: Command, tmp_path: Path):
        duckdb.connect(str(tmp_path / "w.duckdb")).close()
        code, out, err = wb_ops("export", "status", *TO)
        assert code == 0, err
        assert "holds no project yet" in out

    def test_a_project_may_be_named_by_the_address_of_its_page(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO)
        code, out, err = wb_ops("export", "status", "https://wandb.ai/ann/trials/workspace", *TO)
        assert code == 0, err
        assert "ann__trials: ann/trials" in out

    def test_a_project_that_is_not_there_is_named(self, wb_ops: Command):
        wb_ops("export", "ann/trials", *TO)
        code, _, err = wb_ops("export", "status", "ann/trails", *TO)
        assert code == 64
        assert "no dataset ann__trails" in err
        assert "holds ann__trials" in err


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

    def test_a_folder(self, wb_ops: Command, server: DevServer, tmp_path: Path):
        code, _, err = wb_ops("export", "ann/trials", "--to", f"duckdb:///{tmp_path}")
        assert code == 73
        assert "It is a folder: give a file in it." in err
        assert err.endswith("Try again: no, it would fail again\n")
        assert server.requests.operations() == []

    def test_a_file_that_may_not_be_written(
        self, wb_ops: Command, server: DevServer, open_folder: Path, protect: Callable[[Path], None]
    ):
        path = open_folder / "x.duckdb"
        duckdb.connect(str(path)).close()
        protect(path)
        code, _, err = wb_ops("export", "ann/trials", "--to", f"duckdb:///{path}")
        assert code == 73
        assert "Permission denied. Let this user write there, or choose another place.\n" in err
        assert err.endswith("Try again: no, it would fail again\n")
        assert server.requests.operations() == []

    def test_a_file_that_another_process_holds(
        self, wb_ops: Command, server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(connect.__kwdefaults__, "lock_timeout_s", 0.2)
        hold = "import duckdb; c = duckdb.connect('w.duckdb'); print('held', flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, **pipes) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            code, _, err = wb_ops("export", "ann/trials", *TO)
            holder.communicate(b"\n")
        assert code == 75
        assert "duckdb:///w.duckdb is held by another writer for longer than 0.2 s" in err
        assert err.endswith("Try again: after 15 s\n")
        assert server.requests.operations() == []
        assert wb_ops("export", "ann/trials", *TO)[0] == 0


def test_a_filter_that_cannot_match_is_refused_before_anything_is_written(
    wb_ops: Command, tmp_path: Path
):
    code, _, err = wb_ops("export", "ann/trials", *TO, "--filters", '{"config.lr": {"$near": 1}}')
    assert code == 64
    assert "$near" in err
    assert not (tmp_path / "w.duckdb").exists()
