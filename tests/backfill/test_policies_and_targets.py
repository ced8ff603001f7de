"""What is written where, and what is not and why."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wb_ops import (
    Api,
    BackfillReport,
    BackfillRequest,
    InvalidRequest,
    Warehouse,
    execute_backfill,
    filters,
    plan_backfill,
    write_backfill,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

SQL = BackfillRequest(
    "ann", "trials", sql="select run_id, max(acc) as best from history group by run_id"
)
ONE = {"name": "r00"}


def compute(values: dict[str, Any], **fields: Any) -> BackfillRequest:
    return BackfillRequest("ann", "trials", compute=lambda run: values, filters=ONE, **fields)


def undo(report: BackfillReport) -> BackfillRequest:
    return BackfillRequest("ann", "trials", undo=report.backfill_id)


class TestReasons:
    def test_each_run_says_why_it_is_skipped(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        project.edit_run("ann", "trials", "r01", read_only=True)
        project.append_history("ann", "trials", "r02", [{"_step": 3, "acc": 1}])
        project.delete_run("ann", "trials", "r03")
        project.edit_run("ann", "trials", "r04", summary="{}")
        planned = plan_backfill(SQL, api, warehouse).values
        reasons = {value.run_id: value.reason for value in planned if value.action == "skipped"}
        assert reasons == {
            "r01": "read-only",
            "r02": "history older than the run",
            "r03": "no such run",
            "live": "running",
        }

    def test_a_filtered_run_says_so(self, api: Api, warehouse: Warehouse, project: DevServer):
        counts = plan_backfill(replace(SQL, filters=ONE), api, warehouse).counts
        assert counts == {"set": 1, "skipped (outside the filters)": 60}

    @pytest.mark.parametrize(
        "chosen",
        [
            filters.state == "finished",
            filters.tags.contains("good"),
            filters.config("lr") > 0.4,
            filters.summary("acc") >= 0.9,
            filters.created_at > "2027-01-01T00:00:00Z",
        ],
        ids=["state", "tags", "config", "summary", "time"],
    )
    def test_runs_are_chosen_by_what_they_are(
        self, api: Api, warehouse: Warehouse, server: DevServer, chosen: filters.Filter
    ):
        server.seed_run("ann", "trials", "no", state="crashed", summary='{"acc": 0.1}')
        server.seed_run(
            "ann", "trials", "yes", summary='{"acc": 0.9}', config={"lr": 0.5}, tags=["good"],
            created_at="2028-01-01T00:00:00",
        )  # fmt: skip
        request = BackfillRequest("ann", "trials", compute=lambda run: {"x": 1}, filters=chosen)
        assert [value.run_id for value in plan_backfill(request, api, warehouse).values] == ["yes"]

    def test_a_history_that_was_never_exported_is_incomplete(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        project.seed_run("ann", "trials", "new", summary="{}", history=[{"_step": 0, "acc": 1}])
        request = replace(SQL, sql="select 'new' as run_id, 1 as best")
        assert plan_backfill(request, api, warehouse).values[0].reason == "history incomplete"
        asked = replace(request, include_incomplete=True)
        assert plan_backfill(asked, api, warehouse).counts == {"set": 1}

    def test_a_run_that_was_exported_while_it_ran_is_older_than_the_finished_one(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        project.finish_run("ann", "trials", "live", exit_code=0)
        request = replace(SQL, filters={"name": "live"})
        live = next(v for v in plan_backfill(request, api, warehouse).values if v.run_id == "live")
        assert live.reason == "history older than the run"


@pytest.mark.usefixtures("project")
class TestOverwriteIfOlder:
    AGED = compute({"score": 2}, policy="overwrite_if_older")

    def test_a_value_that_no_backfill_wrote_stays(self, api: Api, warehouse: Warehouse):
        request = compute({"acc": 2}, policy="overwrite_if_older")
        planned = plan_backfill(request, api, warehouse).values[0]
        assert (planned.action, planned.reason) == ("skipped", "not written by a backfill")

    def test_a_value_is_replaced_when_the_run_has_logged_since(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        write_backfill(compute({"score": 1}), api, warehouse)
        later = datetime.now(UTC) + timedelta(hours=1)
        earlier = later - timedelta(hours=2)
        project.edit_run("ann", "trials", "r00", heartbeat_at=earlier)
        assert plan_backfill(self.AGED, api, warehouse).values[0].reason == "newer than the run"
        project.edit_run("ann", "trials", "r00", heartbeat_at=later)
        assert plan_backfill(self.AGED, api, warehouse).counts == {"set": 1}

    def test_a_run_whose_last_heartbeat_is_no_time_is_skipped(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        write_backfill(compute({"score": 1}), api, warehouse)
        node = {**api.source("ann/trials").fetch_node("r00"), "heartbeatAt": "yesterday"}
        runs = {"edges": [{"node": node, "cursor": "1"}], "pageInfo": {"hasNextPage": False}}
        body = json.dumps({"data": {"project": {"runCount": 1, "runs": runs}}})
        listed = Responder(status=200, body=body)
        project.faults.add(Fault(Matcher(operation="Runs"), listed, times=None))
        planned = plan_backfill(self.AGED, api, warehouse).values[0]
        assert (planned.action, planned.reason) == ("skipped", "unreadable")

    def test_a_value_that_somebody_changed_since_is_a_conflict(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        write_backfill(compute({"score": 1}), api, warehouse)
        project.edit_run("ann", "trials", "r00", summary='{"score": 5}')
        plan = plan_backfill(self.AGED, api, warehouse)
        assert plan.counts == {"conflict": 1}
        assert len(execute_backfill(plan, api, warehouse).conflicts) == 1

    @pytest.fixture
    def aged(self, project: DevServer) -> None:
        """The run has logged after all that backfills write in this test."""
        later = datetime.now(UTC) + timedelta(hours=1)
        project.edit_run("ann", "trials", "r00", heartbeat_at=later)

    @pytest.mark.usefixtures("aged")
    def test_what_was_written_before_a_kill_is_ours_though_its_outcome_is_missing(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        class Killed(BaseException):
            pass

        def die(done: int, total: int) -> None:
            raise Killed

        with pytest.raises(Killed):
            write_backfill(compute({"score": 1}), api, warehouse, die)
        assert plan_backfill(self.AGED, api, warehouse).counts == {"set": 1}
        project.edit_run("ann", "trials", "r00", summary='{"score": 5}')
        assert plan_backfill(self.AGED, api, warehouse).values[0].reason == (
            "not written by a backfill"
        )

    @pytest.mark.usefixtures("aged")
    def test_what_an_undo_restored_is_not_ours(self, api: Api, warehouse: Warehouse):
        done = write_backfill(compute({"acc": 2}), api, warehouse)
        back = write_backfill(undo(done), api, warehouse)
        request = compute({"acc": 3}, policy="overwrite_if_older")
        planned = plan_backfill(request, api, warehouse).values[0]
        assert (planned.action, planned.reason) == ("skipped", "not written by a backfill")
        write_backfill(undo(back), api, warehouse)
        assert plan_backfill(request, api, warehouse).counts == {"set": 1}

    @pytest.mark.usefixtures("aged")
    def test_what_an_undo_restored_is_of_the_backfill_before(self, api: Api, warehouse: Warehouse):
        write_backfill(compute({"score": 1}), api, warehouse)
        later = write_backfill(compute({"score": 5}), api, warehouse)
        write_backfill(undo(later), api, warehouse)
        (planned,) = plan_backfill(self.AGED, api, warehouse).values
        assert (planned.old, planned.new, planned.action) == ("1", "2", "set")


@pytest.mark.usefixtures("project")
class TestSpecialFloats:
    @pytest.mark.parametrize(
        ("held", "values", "action"),
        [
            ('"NaN"', {"x": math.nan}, "set"),
            ("NaN", {"x": "NaN"}, "set"),
            ("NaN", {"x": math.nan}, "unchanged"),
            ('"-Infinity"', {"x": -math.inf}, "set"),
            ("-1e999", {"x": -math.inf}, "unchanged"),
        ],
    )
    def test_a_text_is_no_number(
        self, api: Api, warehouse: Warehouse, project: DevServer, held: str, values: Any,
        action: str,
    ):  # fmt: skip
        project.edit_run("ann", "trials", "r00", summary=f'{{"x": {held}}}')
        plan = plan_backfill(compute(values), api, warehouse)
        assert plan.counts == {action: 1}
        execute_backfill(plan, api, warehouse)
        assert plan_backfill(compute(values), api, warehouse).counts == {"unchanged": 1}

    def test_a_server_that_gives_it_as_a_text_has_kept_it(
        self, api: Api, warehouse: Warehouse, project: DevServer, text_of: Callable[..., Any]
    ):
        """The third listing reads back; the value is ours in that form too, also for an undo."""
        project.edit_run("ann", "trials", "r00", summary="{}")

        def as_text() -> None:
            project.edit_run("ann", "trials", "r00", summary='{"x": "NaN"}')

        third = Matcher(operation="Runs", nth=3)
        project.faults.add(Fault(third, Responder(), action=as_text))
        done = write_backfill(compute({"x": math.nan}), api, warehouse)
        assert len(done.written) == 1
        assert len(write_backfill(undo(done), api, warehouse).written) == 1
        assert text_of("r00") == "{}"


@pytest.mark.usefixtures("project")
class TestTargets:
    def test_config_keys_are_wrapped_and_others_stay(
        self, api: Api, warehouse: Warehouse, text_of: Callable[..., Any]
    ):
        write_backfill(compute({"team": "x"}, target="config"), api, warehouse)
        config = json.loads(text_of("r00", "config"))
        assert (config["team"], config["lr"]["value"]) == ({"value": "x", "desc": None}, 0.1)
        again = plan_backfill(compute({"team": "x", "lr": 0.2}, target="config"), api, warehouse)
        assert [(v.key, v.action, v.old) for v in again.values] == [
            ("team", "unchanged", '"x"'),
            ("lr", "set", "0.1"),
        ]

    def test_tags_are_added_and_removed(
        self, api: Api, warehouse: Warehouse, text_of: Callable[..., Any]
    ):
        request = compute({"good": True, "old": False, "never": False}, target="tags")
        plan = plan_backfill(request, api, warehouse)
        assert plan.counts == {"set": 2, "unchanged": 1}
        execute_backfill(plan, api, warehouse)
        assert text_of("r00", "tags") == ["good"]

    def test_notes_are_replaced_and_cleared(
        self, api: Api, warehouse: Warehouse, text_of: Callable[..., Any]
    ):
        write_backfill(compute({"notes": "now"}, target="notes"), api, warehouse)
        assert text_of("r00", "notes") == "now"
        write_backfill(compute({"notes": ""}, target="notes"), api, warehouse)
        assert not text_of("r00", "notes")

    @pytest.mark.parametrize(
        ("values", "target", "words"),
        [
            ({"good": "yes"}, "tags", "neither true"),
            ({"note": "x"}, "notes", "under the key 'notes'"),
            ({"notes": 3}, "notes", "one text"),
        ],
    )
    def test_a_value_that_does_not_fit_its_target_is_refused(
        self, api: Api, warehouse: Warehouse, values: dict[str, Any], target: Any, words: str
    ):
        with pytest.raises(InvalidRequest, match=words):
            plan_backfill(compute(values, target=target), api, warehouse)


@pytest.mark.usefixtures("project")
class TestFiles:
    def test_csv_keeps_nan_and_run_ids_that_look_like_numbers(
        self, api: Api, warehouse: Warehouse, project: DevServer, tmp_path: Path
    ):
        project.seed_run("ann", "trials", "007", summary="{}")
        file = tmp_path / "scores.csv"
        file.write_text("run_id,score,word\n007,NaN,\nr00,2.5,good\n")
        report = write_backfill(BackfillRequest("ann", "trials", file=file), api, warehouse)
        assert (len(report.written), report.skipped) == (3, 1)
        assert math.isnan(api.run("ann/trials/007").summary["score"])
        assert api.run("ann/trials/r00").summary["word"] == "good"

    def test_parquet_keeps_types(self, api: Api, warehouse: Warehouse, tmp_path: Path):
        file = tmp_path / "scores.parquet"
        pq.write_table(pa.table({"run_id": ["r00"], "n": [2**60], "bins": [[1, 2]]}), file)
        write_backfill(BackfillRequest("ann", "trials", file=str(file)), api, warehouse)
        summary = api.run("ann/trials/r00").summary
        assert (summary["n"], summary["bins"]) == (2**60, [1, 2])

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("x.csv", "id,score\nr00,1\n", "must return run_id"),
            ("x.csv", "run_id,a\nr00,1\nr00,2\n", "twice"),
            ("x.parquet", "no parquet", "cannot be read as parquet"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_refused(
        self, api: Api, warehouse: Warehouse, tmp_path: Path, name: str, text: str, words: str
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidRequest, match=words):
            plan_backfill(BackfillRequest("ann", "trials", file=tmp_path / name), api, warehouse)

    def test_a_file_that_is_not_there_is_refused(self, api: Api, warehouse: Warehouse):
        with pytest.raises(InvalidRequest, match="cannot be read as CSV"):
            plan_backfill(BackfillRequest("ann", "trials", file="none.csv"), api, warehouse)


@pytest.mark.usefixtures("project")
class TestPrinted:
    def test_sums_of_integers_are_numbers(self, api: Api, warehouse: Warehouse):
        request = replace(
            SQL, sql="select run_id, sum(1) as n, sum(0.5) as x from history group by 1"
        )
        values = {v.key: v.new for v in plan_backfill(request, api, warehouse).to_set[:2]}
        assert values == {"n": "3", "x": "1.5"}

    def test_thousands_of_values_are_capped_on_paper_and_whole_in_files(
        self, api: Api, warehouse: Warehouse
    ):
        keys = ", ".join(f"1 as k{index}" for index in range(30))
        plan = plan_backfill(replace(SQL, sql=f"select run_id, {keys} from runs"), api, warehouse)
        assert len(str(plan).splitlines()) == 102
        assert str(plan).endswith("... and 1,700 more")
        assert plan.to_table(5).splitlines()[-1] == "  ... and 1,825 more"
        assert plan.to_diff(3).splitlines()[:2] == ["run r00", "+ k0: 1"]
        assert len(list(csv.DictReader(io.StringIO(plan.to_csv())))) == 1830
        assert len(json.loads(plan.to_json())["values"]) == 1830

    def test_a_replaced_value_has_two_lines_in_the_diff(self, api: Api, warehouse: Warehouse):
        plan = plan_backfill(compute({"acc": 1}), api, warehouse)
        assert plan.to_diff() == "run r00\n- acc: 0.5\n+ acc: 1"

    def test_the_hash_is_that_of_the_work(self, api: Api, warehouse: Warehouse, project: DevServer):
        one, two = (plan_backfill(SQL, api, warehouse) for _ in range(2))
        assert one.hash == two.hash
        assert one.backfill_id != two.backfill_id
        project.edit_run("ann", "trials", "r00", summary='{"best": 0}')
        assert plan_backfill(SQL, api, warehouse).hash != one.hash
