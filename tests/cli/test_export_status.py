"""`wb-ops export status`: what a warehouse holds, from its own records alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from three_runs import TO, Command

from wb_ops.devserver import DevServer, Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("three_runs")


def test_it_tells_what_is_held_without_asking_wandb(wb_ops: Command, server: DevServer):
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


def test_it_speaks_json(wb_ops: Command):
    wb_ops("export", "ann/trials", *TO)
    _, out, _ = wb_ops("export", "status", "ann/trials", *TO, "--json")
    status: dict[str, Any] = json.loads(out)
    assert (status["runs"], status["history_rows"], status["incomplete"]) == (3, 15, [])
    assert status["last_load"]["status"] == "complete"
    assert status["lag_s"] >= 0


@pytest.mark.parametrize("kind", ["parquet", "delta", "postgresql"])
def test_every_warehouse_tells_the_same(
    wb_ops: Command, tmp_path: Path, kind: str, request: pytest.FixtureRequest
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


def test_a_part_that_was_listed_does_not_hide_that_the_whole_was_not(wb_ops: Command):
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


def test_the_table_that_is_furthest_behind_counts(wb_ops: Command):
    wb_ops("export", "ann/trials", *TO)
    wb_ops("export", "ann/trials", *TO, "--tables", "runs")
    status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
    listed = {tuple(one["tables"]): one["checked_at"] for one in status["scopes"]}
    assert listed["runs",] > listed["runs", "history"] == status["checked_at"]
    wb_ops("export", "ann/trials", *TO, "--tables", "runs,history,system_metrics")
    status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
    assert status["checked_at"] == max(one["checked_at"] for one in status["scopes"])


def test_windows_alone_are_no_listing_and_have_their_last_load(wb_ops: Command):
    wb_ops("export", "ann/trials", *TO, "--since", "2020-01-01")
    status = json.loads(wb_ops("export", "status", *TO, "--json")[1])
    assert (status["lag_s"], status["scopes"][0]["lag_s"]) == (None, None)
    assert status["scopes"][0]["loaded_at"] == status["last_load"]["finished_at"]
    out = wb_ops("export", "status", *TO)[1]
    assert re.search(r"runs, history: only windows or single runs, the last \d+ s ago", out)


def test_a_warehouse_that_is_not_there_is_named(wb_ops: Command):
    code, _, err = wb_ops("export", "status", "ann/trials", *TO)
    assert code == 73
    assert "does not exist: export into it first" in err


def test_a_warehouse_without_a_project_is_no_error(wb_ops: Command, tmp_path: Path):
    duckdb.connect(str(tmp_path / "w.duckdb")).close()
    code, out, err = wb_ops("export", "status", *TO)
    assert code == 0, err
    assert "holds no project yet" in out


def test_a_project_may_be_named_by_the_address_of_its_page(wb_ops: Command):
    wb_ops("export", "ann/trials", *TO)
    code, out, err = wb_ops("export", "status", "https://wandb.ai/ann/trials/workspace", *TO)
    assert code == 0, err
    assert "ann__trials: ann/trials" in out


def test_a_project_that_is_not_there_is_named(wb_ops: Command):
    wb_ops("export", "ann/trials", *TO)
    code, _, err = wb_ops("export", "status", "ann/trails", *TO)
    assert code == 64
    assert "no dataset ann__trails" in err
    assert "holds ann__trials" in err
