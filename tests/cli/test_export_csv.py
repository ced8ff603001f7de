"""`wb-ops export --csv`: the runs as one file, or with their histories as a folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from three_runs import SECRET, TO, Command

from wb_ops.devserver import DevServer, Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("three_runs")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_has_the_runs(wb_ops: Command, tmp_path: Path):
    code, out, _ = wb_ops("export", "ann/trials", "--csv", "runs.csv", "--states", "finished")
    assert (code, out) == (0, "1 runs written to runs.csv\n")
    row = read(tmp_path / "runs.csv")[0]
    assert row["name"] == "run 0"
    assert json.loads(row["config"]) == {"lr": 0.0, "hub_token": SECRET}
    assert json.loads(row["summary"]) == {"loss": 0}


def test_a_folder_has_the_histories_too(wb_ops: Command, tmp_path: Path):
    code, _, _ = wb_ops("export", "ann/trials", "--csv", "out", "--redact-secrets")
    assert code == 0
    assert len(read(tmp_path / "out" / "runs.csv")) == 3
    assert SECRET not in (tmp_path / "out" / "runs.csv").read_text()
    assert [row["loss"] for row in read(tmp_path / "out" / "history" / "r1.csv")] == [
        "0.0", "1.0", "2.0", "3.0", "4.0",
    ]  # fmt: skip


def test_a_run_whose_id_is_runs_takes_nobodys_place(
    wb_ops: Command, server: DevServer, tmp_path: Path
):
    server.seed_run("ann", "trials", "runs", history=[{"_step": 0, "loss": 7.0}])
    code, _, err = wb_ops("export", "ann/trials", "--csv", "out")
    assert code == 0, err
    assert len(read(tmp_path / "out" / "runs.csv")) == 4
    assert read(tmp_path / "out" / "history" / "runs.csv")[0]["loss"] == "7.0"


def test_the_suffix_may_have_any_case(wb_ops: Command, tmp_path: Path):
    code, _, err = wb_ops("export", "ann/trials", "--csv", "RUNS.CSV")
    assert code == 0, err
    assert len(read(tmp_path / "RUNS.CSV")) == 3


def test_metrics_are_chosen_for_histories_only(wb_ops: Command, tmp_path: Path):
    code, _, err = wb_ops("export", "ann/trials", "--csv", "runs.csv", "--keys", "loss")
    assert code == 64
    assert "--keys" in err
    assert "a name without .csv" in err
    assert not list(tmp_path.iterdir())
    assert wb_ops("export", "ann/trials", "--csv", "out", "--keys", "loss")[0] == 0
    assert list(read(tmp_path / "out" / "history" / "r0.csv")[0]) == ["_step", "loss"]


def test_a_terminal_shows_how_far_the_histories_are(
    wb_ops: Command, monkeypatch: pytest.MonkeyPatch
):
    assert "3/3" not in wb_ops("export", "ann/trials", "--csv", "out")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = wb_ops("export", "ann/trials", "--csv", "out")[1]
    assert "histories" in out
    assert "3/3" in out


def test_a_history_is_redacted_too(wb_ops: Command, server: DevServer, tmp_path: Path):
    history = [{"_step": 0, "note": f"use {SECRET}", "deep": {"said": [SECRET]}, "loss": 1.0}]
    server.seed_run("ann", "trials", "told", history=history)
    code, _, err = wb_ops("export", "ann/trials", "--csv", "out", "--redact-secrets")
    assert code == 0, err
    text = (tmp_path / "out" / "history" / "told.csv").read_text()
    assert SECRET not in text
    assert "[redacted]" in text


@pytest.mark.parametrize("option", ["--dry-run", "--json", "--mode=full", "--tables=runs"])
def test_an_option_that_it_would_pass_over_is_refused(wb_ops: Command, tmp_path: Path, option: str):
    (tmp_path / "runs.csv").write_text("mine")
    code, _, err = wb_ops("export", "ann/trials", "--csv", "runs.csv", option)
    assert code == 64
    assert option.partition("=")[0] in err
    assert (tmp_path / "runs.csv").read_text() == "mine"


def test_a_file_that_is_there_stays_until_the_new_one_is_complete(
    wb_ops: Command, server: DevServer, tmp_path: Path
):
    (tmp_path / "runs.csv").write_text("mine")
    server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(401), times=None))
    code, _, _ = wb_ops("export", "ann/trials", "--csv", "runs.csv")
    assert code == 77
    assert (tmp_path / "runs.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_one_destination_is_needed(wb_ops: Command):
    for arguments in ((), ("--csv", "x.csv", *TO)):
        code, _, err = wb_ops("export", "ann/trials", *arguments)
        assert code == 64
        assert "--to WAREHOUSE or --csv FILE" in err


def test_a_place_that_cannot_be_written_is_refused(wb_ops: Command):
    for place in ("no/such/folder/x.csv", "/proc/x.csv"):
        code, _, err = wb_ops("export", "ann/trials", "--csv", place)
        assert code == 73
        assert f"--csv {place} cannot be written: No such file or directory.\n" in err
