"""`wb-ops backfill`: plan, apply, undo, list; nothing is written that was not asked for."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

WAREHOUSE = ("--warehouse", "duckdb:///w.duckdb")
BEST = """best("acc", also=["loss"])"""


@pytest.fixture(autouse=True)
def project(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevServer:
    for index in range(3):
        history = [{"_step": step, "acc": index + step, "loss": 1.0} for step in range(2)]
        server.seed_run("ann", "trials", f"r{index}", history=history, summary='{"best_acc": 0}')
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    return server


def run(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli, ["backfill", command, "ann/trials", *WAREHOUSE, *arguments], catch_exceptions=False
    )


def summary(server: DevServer, api: Any, run_id: str) -> dict[str, Any]:
    return dict(api.run(f"ann/trials/{run_id}").summary)


def test_a_plan_is_shown_and_nothing_written(server: DevServer, tmp_path: Path):
    done = run("plan", "--recipe", BEST)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == [
        "run_id", "target", "key", "action", "reason", "old", "new",
    ]  # fmt: skip
    assert "9 set" in done.stdout
    diff = run("plan", "--recipe", BEST, "--diff").stdout
    assert "run r2\n- best_acc: 0\n+ best_acc: 3" in diff
    assert "UpsertBucket" not in server.requests.operations()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_written_to_a_file(tmp_path: Path):
    assert run("plan", "--recipe", BEST, "--out", "plan.csv").exit_code == 0
    assert len((tmp_path / "plan.csv").read_text().splitlines()) == 10
    assert run("plan", "--recipe", BEST, "--out", "plan.json").exit_code == 0
    assert json.loads((tmp_path / "plan.json").read_text())["counts"] == {"set": 9}
    assert run("plan", "--recipe", BEST, "--out", "plan.txt").exit_code == 64


def test_apply_list_and_undo(server: DevServer, api: Any):
    done = run("apply", "--recipe", BEST, "--yes")
    assert (done.exit_code, "9 written" in done.stdout) == (0, True)
    assert summary(server, api, "r2") == {
        "best_acc": 3, "best_acc_step": 1, "loss_at_best_acc": 1.0,
    }  # fmt: skip
    line = run("list").stdout
    assert "summary  3 runs: 9 written" in line
    undone = run("undo", line.split()[0], "--yes")
    assert (undone.exit_code, "9 written" in undone.stdout) == (0, True)
    assert summary(server, api, "r2") == {"best_acc": 0}
    assert len(run("list").stdout.splitlines()) == 2


def test_an_undo_is_shown_before_and_names_the_runs_that_it_skips(server: DevServer, api: Any):
    run("apply", "--recipe", BEST, "--yes")
    backfill_id = run("list").stdout.split()[0]
    server.edit_run("ann", "trials", "r0", read_only=True)
    server.delete_run("ann", "trials", "r1")
    shown = run("undo", backfill_id, "--dry-run").stdout
    assert shown.splitlines()[1].split()[:4] == ["r0", "summary", "best_acc", "skipped"]
    assert "3 set, 3 skipped (no such run), 3 skipped (read-only)" in shown
    assert summary(server, api, "r2")["best_acc"] == 3
    undone = run("undo", backfill_id, "--yes").stdout
    assert "skipped: r1  best_acc: 2 -> 0 (no such run)" in undone
    assert "skipped: r0 (read-only), r1 (no such run)" in undone.splitlines()[-1]


def test_on_a_terminal_it_asks_and_shows_progress(monkeypatch: pytest.MonkeyPatch):
    """A terminal of its own: the command sees one on all its streams."""
    wb_ops = str(Path(sys.executable).parent / "wb-ops")
    command = [wb_ops, "backfill", "apply", "ann/trials", *WAREHOUSE, "--recipe", BEST]
    monkeypatch.setenv("TERM", "xterm")
    code, told = on_terminal(command, b"n\n")
    assert (code, "Write 9 values? [y/N]" in told, "Aborted" in told) == (75, True, True)
    assert run("list").stdout == ""
    code, told = on_terminal(command, b"y\n")
    assert (code, "9 written" in told) == (0, True)
    assert "values 9/9" in click.unstyle(told)


def on_terminal(command: list[str], answer: bytes) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    told = b""
    # Linux says EIO when the other side has closed.
    with contextlib.suppress(OSError):
        while some := os.read(ours, 4096):
            told += some
    os.close(ours)
    return process.wait(60), told.decode()


def test_the_list_needs_the_warehouse_alone(server: DevServer, monkeypatch: pytest.MonkeyPatch):
    run("apply", "--recipe", BEST, "--yes")
    run("undo", run("list").stdout.split()[0], "--yes")
    monkeypatch.delenv("WANDB_API_KEY")
    server.requests.clear()
    undone, done = run("list").stdout.splitlines()
    assert f"9 written; undo of {done.split()[0]}" in undone
    assert len(server.requests) == 0
    command = ["backfill", "list", "trials", *WAREHOUSE]
    assert "give entity/project" in CliRunner().invoke(cli, command).stderr


def test_a_dataset_is_the_one_of_its_export_however_it_is_written(tmp_path: Path):
    """A lake tells names apart by their case."""
    lake, dataset = f"parquet:///{tmp_path / 'lake'}", ("--dataset", "Mine")

    def ask(*command: str) -> Result:
        return CliRunner().invoke(cli, [*command, "ann/trials", *dataset])

    assert ask("export", "--to", lake).exit_code == 0
    sql = ("--sql", "select run_id, 1 as one from runs")
    planned = ask("backfill", "plan", "--warehouse", lake, *sql, "--out", "plan.json")
    assert "3 set" in planned.stdout
    applied = ask("backfill", "apply", "--warehouse", lake, "--plan", "plan.json", "--yes")
    assert "3 written" in applied.stdout
    assert "3 runs: 3 written" in ask("backfill", "list", "--warehouse", lake).stdout
    assert "mine: ann/trials" in ask("export", "status", "--to", lake).stdout


def test_the_journal_may_be_kept_apart():
    apart = ("--warehouse", "duckdb:///journal.duckdb")
    journal = ("--journal", apart[1])
    exported = CliRunner().invoke(cli, ["export", "ann/trials", "--to", WAREHOUSE[1]])
    assert exported.exit_code == 0
    sql = ("--sql", "select run_id, 1 as one from runs")
    assert "3 set" in run("plan", *sql, *journal).stdout
    assert "3 written" in run("apply", *sql, *journal, "--yes").stdout
    assert run("list").stdout == ""
    listed = CliRunner().invoke(cli, ["backfill", "list", "ann/trials", *apart])
    assert "3 runs: 3 written" in listed.stdout
    undo = ["backfill", "undo", "ann/trials", *apart, listed.stdout.split()[0], "--yes"]
    assert "3 written" in CliRunner().invoke(cli, undo).stdout


def test_without_a_terminal_it_writes_only_with_yes(server: DevServer):
    done = run("apply", "--recipe", BEST)
    assert (done.exit_code, "give --yes" in done.stderr) == (64, True)
    assert "UpsertBucket" not in server.requests.operations()


def test_an_error_of_a_recipe_names_the_run(server: DevServer):
    file_of_r1 = Matcher(origin="storage", path="/exports/2/*")
    server.faults.add(Fault(file_of_r1, Responder.error(403), times=None))
    done = run("plan", "--recipe", BEST)
    assert done.exit_code == 75
    *_, note, advice = done.stderr.splitlines()
    assert note == "This was raised while the values of run r1 were computed."
    assert advice == "Try again: later"


def test_more_changes_than_allowed_are_refused(server: DevServer):
    done = run("apply", "--recipe", BEST, "--yes", "--max-changes", "8")
    assert (done.exit_code, "max_changes is 8" in done.stderr) == (64, True)
    assert "UpsertBucket" not in server.requests.operations()
    assert run("apply", "--recipe", BEST, "--yes", "--max-changes", "9", "--safe").exit_code == 0


def test_a_plan_that_is_not_the_expected_one_is_refused(server: DevServer):
    shown = run("plan", "--recipe", BEST).stdout.splitlines()[-1].removeprefix("plan ")
    server.edit_run("ann", "trials", "r0", summary='{"best_acc": 5}')
    done = run("apply", "--recipe", BEST, "--yes", "--expect", shown)
    assert (done.exit_code, "look at it again" in done.stderr) == (64, True)
    server.edit_run("ann", "trials", "r0", summary='{"best_acc": 0}')
    assert run("apply", "--recipe", BEST, "--yes", "--expect", shown).exit_code == 0


def test_a_stored_plan_is_applied_as_it_was_shown(server: DevServer, api: Any):
    assert run("plan", "--recipe", BEST, "--out", "plan.json").exit_code == 0
    few = run("apply", "--plan", "plan.json", "--yes", "--max-changes", "8")
    assert (few.exit_code, "max_changes is 8" in few.stderr) == (64, True)
    server.edit_run("ann", "trials", "r0", summary='{"best_acc": 5}')
    done = run("apply", "--plan", "plan.json", "--yes")
    assert (done.exit_code, "8 written" in done.stdout, "1 in conflict" in done.stdout) == (
        0, True, True,
    )  # fmt: skip
    assert "conflict: r0  best_acc: 0 -> 1" in done.stdout
    assert summary(server, api, "r0")["best_acc"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plan", "none.json"], "cannot be read"),
        (["--plan", "plan.json", "--recipe", BEST], "leave out --recipe."),
        (["--plan", "plan.json", "--target", "tags"], "leave out --target."),
        (["--plan", "plan.json", "--dataset", "other"], "not 'other'"),
        (["--plan", "plan.csv"], "no plan of a backfill"),
    ],
)
def test_a_stored_plan_that_cannot_be_used(arguments: list[str], words: str):
    for name in ("plan.json", "plan.csv"):
        assert run("plan", "--recipe", BEST, "--out", name).exit_code == 0
    done = run("apply", "--yes", *arguments)
    assert (done.exit_code, words in done.stderr) == (64, True)


def test_a_terminal_gets_colours_and_a_log_does_not(monkeypatch: pytest.MonkeyPatch):
    command = ["backfill", "plan", "ann/trials", *WAREHOUSE, "--recipe", BEST]
    assert "\x1b" not in run("plan", "--recipe", BEST, "--diff").stdout
    coloured = CliRunner().invoke(cli, [*command, "--diff"], color=True).stdout
    assert "\x1b[32m+ best_acc: 3" in coloured
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    table = click.unstyle(CliRunner().invoke(cli, command).stdout)
    assert "┃ action ┃" in table


def test_json_is_one_object_a_line():
    plan, report = map(
        json.loads, run("apply", "--recipe", BEST, "--yes", "--json").stdout.splitlines()
    )
    assert plan["plan"]["counts"] == {"set": 9}
    assert (report["report"]["written"], report["report"]["requests"]) == (9, 3)
    (record,) = map(json.loads, run("list", "--json").stdout.splitlines())
    assert record["counts"] == {"written": 9}


def test_what_a_limit_left_is_resumed(server: DevServer):
    server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder.rate_limited(600)))
    done = run("apply", "--recipe", BEST, "--yes")
    assert (done.exit_code, "after 600 s" in done.stderr) == (75, True)
    line = run("list").stdout
    assert "9 not sent" in done.stdout
    assert "9 not_sent; unfinished" in line


def test_sql_tags_and_files(tmp_path: Path, api: Any):
    (tmp_path / "good.csv").write_text("run_id,good\nr1,true\n")
    assert run("apply", "--file", "good.csv", "--target", "tags", "--yes").exit_code == 0
    assert api.run("ann/trials/r1").tags == ["good"]
    exported = CliRunner().invoke(cli, ["export", "ann/trials", "--to", WAREHOUSE[1]])
    assert exported.exit_code == 0
    (tmp_path / "n.sql").write_text("select run_id, count(*) as n from history group by run_id")
    assert run("apply", "--file", "n.sql", "--yes").exit_code == 0
    assert api.run("ann/trials/r1").summary["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "exactly one of"),
        (["--recipe", "worst('acc')"], "is no recipe"),
        (["--sql", "select 1", "--recipe", BEST], "exactly one of"),
        (["--recipe", BEST, "--filters", "{"], "is not JSON"),
        (["--recipe", BEST, "--filters", '{"state": {"$is": 1}}'], "$is"),
        (["--file", "none.sql"], "cannot be read"),
        (["--resume", "bf-none"], "no backfill 'bf-none'"),
        (["--resume", "bf-none", "--target", "tags"], "leave out target."),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], words: str):
    done = run("plan", *arguments)
    assert (done.exit_code, words in done.stderr) == (64, True)
