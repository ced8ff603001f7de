"""Parts of a plan run anywhere, and are committed together: to the tables of one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from loss_rows import rows

from wb_ops import (
    Api,
    ExportIncomplete,
    ExportRequest,
    InvalidRequest,
    RateLimited,
    Shard,
    Warehouse,
    commit_plan,
    connect,
    execute_export,
    execute_shard,
    load_plan,
    plan_export,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.export import Progress
from wb_ops.export.folder import open_folder
from wb_ops.settings import Settings

Ask = Callable[[str], list[dict[str, Any]]]
REQUEST = ExportRequest("ann", "trials", tables=("runs", "history", "system_metrics"))
ALL = "select * exclude (_load_id) from {} order by all"
TABLES = ("runs", "runs_flat", "history", "system_metrics")


def in_shards(plan_uri: str, n: int, api: Api, warehouse: Warehouse):
    # What an orchestrator passes around is JSON.
    carried = json.loads(json.dumps([asdict(one) for one in load_plan(plan_uri).shards(n)]))
    results = [execute_shard(plan_uri, Shard(**values), api) for values in reversed(carried)]
    return results, commit_plan(plan_uri, api, warehouse)


@pytest.mark.usefixtures("project")
class TestShards:
    def test_give_the_tables_that_one_process_gives(
        self, api: Api, warehouse: Warehouse, staging: str, tmp_path: Path
    ):
        alone = connect(f"duckdb:///{tmp_path / 'alone.db'}")
        execute_export(plan_export(REQUEST, api, alone), api, alone)
        plan = plan_export(REQUEST, api, warehouse, staging)
        assert plan.uri is not None
        results, report = in_shards(plan.uri, 4, api, warehouse)
        assert sum(result.runs for result in results) == 6
        assert max(result.runs for result in results) <= 2
        assert (report.runs, report.history_rows, report.system_rows) == (6, 21, 18)
        assert report.requests == 1 + sum(result.requests for result in results)
        assert report.size_bytes > sum(result.size_bytes for result in results) > 0
        for table in TABLES:
            sql = ALL.format(table)
            dataset = REQUEST.dataset_name
            assert warehouse.query(sql, dataset).equals(alone.query(sql, dataset)), table
        assert plan_export(REQUEST, api, warehouse).runs == ()

    def test_that_are_missing_are_named_and_nothing_is_written(
        self, api: Api, warehouse: Warehouse, staging: str
    ):
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        with pytest.raises(InvalidRequest, match="No shard"):
            commit_plan(plan_uri, api, warehouse)
        for index in (0, 2):
            execute_shard(plan_uri, Shard(index, 4), api)
        with pytest.raises(InvalidRequest, match=r"2 of 4 shards .*: 1-of-4, 3-of-4"):
            commit_plan(plan_uri, api, warehouse)
        assert warehouse.read_tables(REQUEST.dataset_name, ["runs"])["runs"].num_rows == 0

    def test_committed_twice_are_committed_once(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        _, first = in_shards(plan_uri, 2, api, warehouse)
        loads = ask("select * from _wb_loads")
        server.requests.clear()
        again = commit_plan(plan_uri, api, warehouse)
        assert (again.load_id, again.runs, again.history_rows) == (first.load_id, 6, 21)
        assert (again.requests, again.size_bytes) == (first.requests, first.size_bytes)
        assert again.statuses == first.statuses
        assert ask("select * from _wb_loads") == loads
        assert server.requests.operations() == []

    def test_leave_only_what_says_that_they_are_done(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str
    ):
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        results, _ = in_shards(plan_uri, 2, api, warehouse)
        marks = ["shards/0-of-2/done.json", "shards/1-of-2/done.json"]
        assert open_folder(plan_uri).list_names() == ["committed.json", "plan.json", *marks]
        server.requests.clear()
        assert execute_shard(plan_uri, Shard(1, 2), api) in results
        assert server.requests.operations() == []

    def test_that_raised_nothing_of_a_run_that_had_failed_before_raise_nothing_again(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str
    ):
        broken = Matcher(path="*/exports/*", origin="storage")
        server.faults.add(Fault(broken, Responder.truncated(10)))
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        server.faults.add(Fault(broken, Responder.truncated(10), times=None))
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        _, first = in_shards(plan_uri, 1, api, warehouse)
        again = commit_plan(plan_uri, api, warehouse)
        assert again.statuses == first.statuses == {"failed": 1}

    @pytest.mark.parametrize("deletions", range(3))
    def test_whose_folder_is_emptied_when_a_kill_comes_are_committed_all_the_same(
        self, server: DevServer, api: Api, warehouse: Warehouse, tmp_path: Path, deletions: int,
        monkeypatch: pytest.MonkeyPatch,
    ):  # fmt: skip
        """All histories are broken for the second time, which raises nothing: who repeats the
        commit must not judge by what is left of the folder."""
        broken = Fault(
            Matcher(path="*/exports/*", origin="storage"), Responder.truncated(10), times=None
        )
        server.faults.add(broken)
        with pytest.raises(ExportIncomplete):
            execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        plan_uri = plan_export(REQUEST, api, warehouse).save(str(tmp_path / "plans"))
        for shard in load_plan(plan_uri).shards(2):
            execute_shard(plan_uri, shard, api)
        folder = open_folder(plan_uri)
        delete = type(folder).delete

        def killed(self: Any, names: Any) -> None:
            for number, name in enumerate(sorted(names)):
                is_staged = name.endswith("parquet") and "shards" in name
                if number == deletions and not is_staged:
                    raise KeyboardInterrupt
                delete(self, [name])

        with monkeypatch.context() as patch:
            patch.setattr(type(folder), "delete", killed)
            with pytest.raises(KeyboardInterrupt):
                commit_plan(plan_uri, api, warehouse)
        assert commit_plan(plan_uri, api, warehouse).statuses == {"failed": 6}
        assert len(folder.list_names()) == len(["plan", "committed", "one shard", "the other"])

    def test_that_did_not_add_up_say_so_again(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str
    ):
        broken = Fault(
            Matcher(path="*/exports/*", origin="storage"), Responder.truncated(10), times=None
        )
        server.faults.add(broken)
        request = replace(REQUEST, on_incomplete="fail")
        plan_uri = plan_export(request, api, warehouse).save(staging)
        errors = []
        for _ in range(2):
            with pytest.raises(ExportIncomplete, match="everything else is committed") as raised:
                in_shards(plan_uri, 2, api, warehouse)
            errors.append((raised.value.message, raised.value.advice))
        assert errors[0] == errors[1]

    def test_hand_on_the_facts_of_a_failure_as_one_process_does(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, tmp_path: Path
    ):
        broken = Responder(status=503, headers={"X-Request-Id": "req-8"})
        server.faults.add(Fault(Matcher(path="/exports/2/*"), broken, times=None))
        request = replace(REQUEST, on_incomplete="fail")
        alone = connect(f"duckdb:///{tmp_path / 'alone.db'}")
        with pytest.raises(ExportIncomplete) as wanted:
            execute_export(plan_export(request, api, alone), api, alone)
        assert wanted.value.facts["request_id"] == "req-8"
        assert wanted.value.facts["path"] == "ann/trials/r1"
        plan_uri = plan_export(request, api, warehouse).save(staging)
        for _ in range(2):
            with pytest.raises(ExportIncomplete) as raised:
                in_shards(plan_uri, 3, api, warehouse)
            assert raised.value.facts == wanted.value.facts

    def test_go_on_where_a_limit_stopped_them(
        self, server: DevServer, impatient: Api, warehouse: Warehouse, staging: str
    ):
        request = replace(REQUEST, tables=("runs", "history"), max_workers=1, max_cells=1)
        plan_uri = plan_export(request, impatient, warehouse).save(staging)
        stop = Fault(Matcher(origin="storage", nth=4), Responder.rate_limited(1.5))
        server.faults.add(stop)
        with pytest.raises(RateLimited):
            execute_shard(plan_uri, Shard(0, 1), impatient)
        server.faults.clear()
        server.requests.clear()
        settings = Settings(api_key=server.api_key, base_url=server.url)
        with Api(settings=settings) as patient:
            assert execute_shard(plan_uri, Shard(0, 1), patient).runs == 6
        read = [one for one in server.requests if one.origin == "storage"]
        assert 0 < len(read) <= 3, "what was staged before the limit is not read again"

    def test_leave_a_run_that_changed_since_to_the_next_export(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        execute_shard(plan_uri, Shard(0, 1), api)
        server.append_history("ann", "trials", "r5", rows(4, start=6))
        server.delete_run("ann", "trials", "r4")
        report = commit_plan(plan_uri, api, warehouse)
        assert (report.changed, report.runs) == (1, 4)
        assert ask("select run_id from runs where run_id in ('r4', 'r5')") == []
        plan = plan_export(REQUEST, api, warehouse)
        assert [run.run_id for run in plan.runs] == ["r5"]
        execute_export(plan, api, warehouse)
        assert ask("select count(*) as n from history where run_id = 'r5'") == [{"n": 10}]

    def test_take_a_run_that_goes_on_logging_as_far_as_they_read_it(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        server.seed_run("ann", "trials", "live", state="running", history=rows(5))
        held = "select count(*) as n, max(_step) as last from history where run_id = 'live'"
        for start in (5, 9):
            plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
            execute_shard(plan_uri, Shard(0, 1), api)
            server.append_history("ann", "trials", "live", rows(4, start=start))
            assert commit_plan(plan_uri, api, warehouse).changed == 0
            assert ask(held) == [{"n": start, "last": start - 1}]
            status = (
                "select status from _wb_receipts where run_id = 'live' and table_name = 'history'"
            )
            assert ask(status) == [{"status": "growing"}]
        server.edit_run("ann", "trials", "live", state="finished")
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        assert ask(held) == [{"n": 13, "last": 12}]
        assert ask("select state from runs where run_id = 'live'") == [{"state": "finished"}]

    def test_do_not_go_back_behind_another_export(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        server.seed_run("ann", "trials", "live", state="running", history=rows(5))
        plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
        execute_shard(plan_uri, Shard(0, 1), api)
        server.append_history("ann", "trials", "live", rows(5, start=5))
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        before = ask("select * from history order by all")
        marks = ask("select watermark, reconciled_at, updated_at from _wb_state")
        report = commit_plan(plan_uri, api, warehouse)
        assert (report.runs, report.changed) == (0, 7)
        assert ask("select * from history order by all") == before
        assert ask("select watermark, reconciled_at, updated_at from _wb_state") == marks

    def test_do_not_go_back_behind_another_export_when_they_are_committed_again(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        """The first attempt has noted the run that it left alone: the note is no row of its own."""
        early = "2025-12-01T00:00:00"
        history = rows(5)
        server.seed_run("ann", "trials", "live", state="running", created_at=early, history=history)
        one_by_one = replace(REQUEST, max_cells=5, max_workers=1)
        plan_uri = plan_export(one_by_one, api, warehouse).save(staging)
        execute_shard(plan_uri, Shard(0, 1), api)
        server.append_history("ann", "trials", "live", rows(5, start=5))
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        server.edit_run("ann", "trials", "live", tags=["late"])
        before = ask("select * from history order by all")

        def interrupts(progress: Progress) -> None:
            if ask("select run_id from _wb_receipts where note like 'changed since%'"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            commit_plan(plan_uri, api, warehouse, interrupts)
        assert ask("select status from _wb_loads order by started_at")[0] == {"status": "running"}
        commit_plan(plan_uri, api, warehouse)
        assert ask("select * from history order by all") == before

    def test_of_an_export_that_reads_nothing_are_none(
        self, server: DevServer, api: Api, warehouse: Warehouse, staging: str, ask: Ask
    ):
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        server.edit_run("ann", "trials", "r1", tags=["late"])
        plan = plan_export(replace(REQUEST, mode="reconcile"), api, warehouse, staging)
        assert plan.shards(8) == ()
        assert plan.uri is not None
        assert commit_plan(plan.uri, api, warehouse).runs == 1
        assert ask("select tags from runs where run_id = 'r1'") == [{"tags": ["late"]}]
