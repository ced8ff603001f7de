"""Listing: complete, each run once, lazy; and the names of W&B's guide."""

from __future__ import annotations

import pytest

from wb_ops import Api, InvalidRequest, MalformedResponse, NotFound
from wb_ops.client.paths import item_path_parts
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

RUNS = Matcher(operation="Runs")


@pytest.fixture
def seven(server: DevServer) -> DevServer:
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index}",
            "created_at": f"2026-01-0{index + 1}T00:00:00", "config": {"lr": index / 10},
            "summary": {"loss": index},
        }
        for index in range(7)
    )  # fmt: skip
    return server


@pytest.mark.usefixtures("seven")
class TestRuns:
    def test_it_is_lazy_and_pages(self, api: Api, server: DevServer):
        runs = api.runs("ann/trials", per_page=2)
        assert len(server.requests) == 0
        assert runs[0].id == "r6"
        assert len(server.requests) == 1
        assert len(runs) == 7
        assert [run.id for run in runs] == [f"r{index}" for index in range(6, -1, -1)]
        assert [run.id for run in runs] == [f"r{index}" for index in range(6, -1, -1)]
        # From the second one on, a page begins with a run that is known.
        assert [one.variables["perPage"] for one in server.requests] == [2, 4 + 1, 8 + 1]

    def test_index_and_slice(self, api: Api):
        runs = api.runs("ann/trials", order="+created_at", per_page=2)
        assert runs[-1].id == "r6"
        assert [run.id for run in runs[1:3]] == ["r1", "r2"]
        assert [run.id for run in runs[-2:]] == ["r5", "r6"]
        with pytest.raises(IndexError):
            runs[7]

    def test_filters_are_the_servers(self, api: Api):
        runs = api.runs("ann/trials", {"config.lr": {"$gt": 0.35}}, order="+created_at")
        assert [run.id for run in runs] == ["r4", "r5", "r6"]

    def test_an_empty_page_is_not_the_end(self, api: Api, server: DevServer):
        server.faults.add(Fault(Matcher(operation="Runs", nth=2), Responder.odd("empty_page")))
        assert len(list(api.runs("ann/trials", per_page=2))) == 7

    def test_the_same_cursor_twice_is_an_error(self, api: Api, server: DevServer):
        server.faults.add(Fault(RUNS, Responder.odd("same_cursor"), times=None))
        with pytest.raises(MalformedResponse, match="cursor"):
            list(api.runs("ann/trials", per_page=2))

    def test_a_run_without_a_user_does_not_stop_the_list(self, api: Api, server: DevServer):
        server.faults.add(Fault(RUNS, Responder.odd("null_user"), times=None))
        assert [run.username for run in api.runs("ann/trials")] == [None] * 7

    def test_a_run_that_comes_twice_is_listed_once(self, api: Api, server: DevServer):
        def one_more() -> None:
            server.seed_run("ann", "trials", "late", created_at="2027-01-01T00:00:00")

        server.faults.add(
            Fault(Matcher(operation="Runs", nth=2), Responder(status=None), action=one_more)
        )
        ids = [run.id for run in api.runs("ann/trials", per_page=2)]
        assert len(ids) == len(set(ids))
        assert {f"r{index}" for index in range(7)} <= set(ids)

    def test_a_page_that_is_too_much_is_asked_for_in_halves(self, server: DevServer):
        server.faults.add(Fault(RUNS, Responder.error(500)))
        settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
        assert len(list(Api(settings=settings).runs("ann/trials", per_page=4))) == 7
        assert [one.variables["perPage"] for one in server.requests] == [4, 2, 3, 3, 3]

    @pytest.mark.parametrize("per_page", [1, 2, 30])
    def test_one_that_goes_and_one_that_comes_hide_none(
        self, api: Api, server: DevServer, per_page: int
    ):
        server.seed_runs(
            {"entity": "ann", "project": "busy", "run_id": f"r{n}",
             "created_at": f"2026-01-01T00:00:{n:02}"}
            for n in range(50)
        )  # fmt: skip
        ids = []
        for run in api.runs("ann/busy", order="+created_at", per_page=per_page):
            ids.append(run.id)
            if run.id == "r5":
                server.delete_run("ann", "busy", "r0")
                server.seed_run("ann", "busy", "r50", created_at="2026-01-02T00:00:00")
        assert sorted(ids) == sorted(f"r{n}" for n in range(51))

    def test_one_that_an_edit_moves_to_the_front_is_not_lost(self, api: Api, server: DevServer):
        server.seed_runs(
            {"entity": "ann", "project": "busy", "run_id": f"r{n}", "summary": {"loss": n}}
            for n in range(10)
        )
        ids = []
        for run in api.runs("ann/busy", order="-summary_metrics.loss", per_page=2):
            ids.append(run.id)
            if run.id == "r9":
                server.edit_run("ann", "busy", "r0", summary={"loss": 99})
        assert sorted(ids) == [f"r{n}" for n in range(10)]

    def test_to_frame_has_a_row_a_run(self, api: Api):
        frame = api.runs("ann/trials", order="+created_at").to_frame()
        assert list(frame.run_id) == [f"r{index}" for index in range(7)]
        assert frame.config[3] == '{"lr":0.3}'


def test_the_attributes_of_the_guide(api: Api, server: DevServer):
    server.seed_run(
        "ann", "trials", "r1", display_name="brave-cat-1", group="g", job_type="train",
        tags=["a", "b"], notes="n", commit="abc", user="ann", state="crashed",
        config={"lr": 0.1, "value": {"value": 3}}, summary='{"loss": NaN, "n": 9007199254740993}',
        history=[{"_step": 7, "loss": 1.0}], files={"wandb-metadata.json": '{"os": "Linux"}'},
    )  # fmt: skip
    run = api.run("ann/trials/r1")
    assert (run.id, run.name, run.state, run.group, run.job_type) == (
        "r1", "brave-cat-1", "crashed", "g", "train",
    )  # fmt: skip
    assert (run.tags, run.notes, run.commit, run.username) == (["a", "b"], "n", "abc", "ann")
    assert run.config == {"lr": 0.1, "value": {"value": 3}}
    assert run.summary["n"] == 9007199254740993
    assert run.summary["loss"] != run.summary["loss"]
    assert (run.lastHistoryStep, run.history_line_count) == (7, 1)
    assert run.metadata == {"os": "Linux"}
    assert run.path == ["ann", "trials", "r1"]
    assert run.url.endswith("/ann/trials/runs/r1")
    assert [file.name for file in run.files()] == ["wandb-metadata.json"]
    with pytest.raises(NotFound, match=r"no\.txt"):
        run.file("no.txt")


def test_update_sends_only_what_changed(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", config={"lr": 0.1}, notes="old", tags=["a"])
    mine, theirs = api.run("ann/trials/r1"), api.run("ann/trials/r1")
    theirs.config["theirs"] = 1
    theirs.update()
    mine.notes = "new"
    mine.config["lr"] = 0.2
    mine.tags.append("b")
    mine.update()
    sent = [one for one in server.requests if one.operation == "UpsertBucket"][-1]
    assert {name.rstrip("0") for name in sent.variables} == {"id", "notes", "config", "tags"}
    now = api.run("ann/trials/r1")
    assert (now.notes, now.tags, now.config) == ("new", ["a", "b"], {"lr": 0.2, "theirs": 1})


def test_two_who_change_tags_both_get_theirs(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", tags=["a", "b"])
    mine, theirs = api.run("ann/trials/r1"), api.run("ann/trials/r1")
    theirs.tags.append("x")
    theirs.update()
    mine.tags.remove("a")
    mine.tags.append("y")
    mine.update()
    assert api.run("ann/trials/r1").tags == ["b", "x", "y"]


def test_an_update_keeps_what_the_summary_has_not_sent(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", summary={"a": {"b": 1}, "c": 1}, config={"x": 1, "y": 2})
    run = api.run("ann/trials/r1")
    run.summary["best"] = 1
    run.summary["a"]["b"] = 2
    del run.summary["c"]
    del run.config["x"]
    run.notes = "n"
    run.update()
    run.summary.update()
    now = api.run("ann/trials/r1")
    assert dict(now.summary) == {"a": {"b": 2}, "best": 1}
    assert (now.config, now.notes) == ({"y": 2}, "n")


def test_a_write_of_the_summary_takes_nobodys_edits_for_its_own(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", config={"lr": 1}, notes="old", tags=["a"])
    run = api.run("ann/trials/r1")
    assert run.config == {"lr": 1}
    theirs = api.run("ann/trials/r1")
    theirs.notes, theirs.config["lr"] = "theirs", 2
    theirs.tags.append("theirs")
    theirs.update()
    run.summary.update({"best": 1})
    run.update()
    now = api.run("ann/trials/r1")
    assert (now.notes, now.tags, now.config) == ("theirs", ["a", "theirs"], {"lr": 2})
    assert dict(now.summary) == {"best": 1}


@pytest.mark.parametrize(
    "path",
    ["ann/trials/r1", "/ann/trials/r1", "ann/trials/runs/r1", "ann/trials:r1",
     "https://wandb.ai/ann/trials/runs/r1?nw=1"],
)  # fmt: skip
def test_every_form_of_a_run_path(path: str):
    assert item_path_parts(path) == ["ann", "trials", "r1"]


@pytest.mark.parametrize("path", ["", "a/b/c/d", "r1"])
def test_a_path_that_is_none_says_what_to_give(api: Api, path: str):
    with pytest.raises(InvalidRequest, match="entity/project/run_id"):
        api.run(path)


def test_a_date_that_is_no_text_is_refused_with_its_remedy(api: Api):
    import datetime

    with pytest.raises(InvalidRequest, match="ISO"):
        list(api.runs("ann/trials", {"createdAt": {"$gt": datetime.datetime.now()}}))
