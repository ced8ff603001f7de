"""The names of W&B's public API beside histories: paths, accounts, and what runs have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops import Api, InvalidRequest, MalformedResponse, Run
from wb_ops.client.paths import item_path_parts, project_path_parts
from wb_ops.devserver import DevServer, Fault, Matcher, Responder


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("ann/trials/r1", ["ann", "trials", "r1"]),
        (" /ann / trials / r1/ ", ["ann", "trials", "r1"]),
        ("ann/trials/runs/r1", ["ann", "trials", "r1"]),
        ("ann/trials/sweeps/sw0", ["ann", "trials", "sw0"]),
        ("ann/trials:r1", ["ann", "trials", "r1"]),
        ("ann/trials/a:b", ["ann", "trials", "a:b"]),
        ("trials/r1", ["trials", "r1"]),
        ("trials:r1", ["trials", "r1"]),
        ("r1", ["r1"]),
        ("https://wandb.ai/ann/trials/runs/r1", ["ann", "trials", "r1"]),
        ("https://wandb.ai/ann/trials/runs/r1/overview?nw=nwuser", ["ann", "trials", "r1"]),
        ("https://wandb.ai/ann/trials/runs/r1/files/media#top", ["ann", "trials", "r1"]),
        ("https://wandb.ai/ann/my%20trials/runs/a%2Fb", ["ann", "my trials", "a/b"]),
        ("https://forge.coreweave.com/wandb/ann/trials/runs/r1", ["ann", "trials", "r1"]),
        ("http://host:8080/prefix/ann/trials/sweeps/sw0/workspace", ["ann", "trials", "sw0"]),
        ("https://wandb.ai/ann/trials", []),
        ("", []),
        ("ann//r1", []),
    ],
)
def test_every_form_of_a_path(path: str, parts: list[str]):
    assert item_path_parts(path) == parts


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("ann/trials", ["ann", "trials"]),
        ("trials", ["trials"]),
        ("https://wandb.ai/ann/trials", ["ann", "trials"]),
        ("https://wandb.ai/ann/trials/workspace?nw=1", ["ann", "trials"]),
        ("https://wandb.ai/ann/trials/runs/r1", ["ann", "trials"]),
        ("https://wandb.ai/ann/trials/groups/g/workspace", ["ann", "trials"]),
        ("https://wandb.ai/ann/trials/a-new-page", ["ann", "trials"]),
        ("http://host:8080/prefix/ann/trials/artifacts", ["ann", "trials"]),
        ("http://host:8080/prefix/ann/trials", ["ann", "trials"]),
        ("https://forge.coreweave.com/wandb/ann/my%20trials/table", ["ann", "my trials"]),
    ],
)
def test_every_form_of_a_projects_path(path: str, parts: list[str]):
    assert project_path_parts(path) == parts


@pytest.mark.usefixtures("project")
def test_what_a_path_leaves_out_is_the_default(server: DevServer):
    defaults = {"base_url": server.url, "entity": "ann", "project": "trials"}
    with Api(defaults, api_key=server.api_key) as api:
        assert api.settings == defaults
        found = [api.run("r1"), api.run("trials/r1"), api.run("trials:r1"), api.runs()[-1]]
        assert [run.id for run in found] == ["r1"] * 4
        assert [run.id for run in api.runs("other")] == ["x1"]
        assert api.sweep("sw1").id == "sw1"
        assert server.requests.operations().count("Viewer") == 0


def test_without_any_project_it_is_wandbs_own(api: Api, server: DevServer):
    server.seed_run("dev", "uncategorized", "u1")
    assert [run.id for run in api.runs()] == ["u1"]


@pytest.mark.usefixtures("project")
def test_from_path_finds_out_what_it_is(api: Api):
    shown = [
        repr(api.from_path(path))
        for path in ("ann/trials", "ann/trials/r1", "ann/trials/runs/r1", "ann/trials/sweeps/sw0",
                     "https://wandb.ai/ann/trials", "https://wandb.ai/ann/trials/runs/r1")
    ]  # fmt: skip
    assert shown == [
        "<Project ann/trials>", "<Run ann/trials/r1 (finished)>", "<Run ann/trials/r1 (finished)>",
        "<Sweep ann/trials/sw0 (FINISHED)>", "<Project ann/trials>",
        "<Run ann/trials/r1 (finished)>",
    ]  # fmt: skip


def test_the_viewer_is_kept_until_flush(api: Api, server: DevServer):
    viewer = api.viewer
    assert (viewer.username, viewer.entity, viewer.teams) == ("dev", "dev", ("dev",))
    assert (api.viewer.email, api.default_entity) == ("dev@example.com", "dev")
    assert len(server.requests) == 1
    api.flush()
    assert api.viewer == viewer
    assert len(server.requests) == 2


def test_flush_forgets_that_a_server_had_no_exports(api: Api):
    api.reader.has_parquet = False
    api.flush()
    assert api.reader.has_parquet


@pytest.mark.usefixtures("project")
def test_fields_that_are_read_on_demand(api: Api, server: DevServer):
    run = api.run("ann/trials/r2")
    server.requests.clear()
    assert run.summary_metrics == {"acc": 0.9}
    assert run.history_keys is None
    assert run.user is not None
    assert run.user.username == "ann"
    assert server.requests.operations() == []
    assert run.system_metrics == run.system_metrics == {"system.cpu": 2}
    assert server.requests.operations() == ["RunSystemMetrics"]


@pytest.mark.usefixtures("project")
def test_load_reads_anew(api: Api, server: DevServer):
    run = api.run("ann/trials/r1")
    server.edit_run("ann", "trials", "r1", notes="new", summary={"acc": 1}, sweep="sw1")
    assert run.load()["notes"] is None
    assert run.load(force=True)["notes"] == "new"
    assert (run.notes, dict(run.summary)) == ("new", {"acc": 1})
    assert run.sweep is not None
    assert run.sweep.id == "sw1"


@pytest.mark.parametrize("state", ["finished", "killed", "failed", "crashed", "preempted"])
def test_a_wait_ends_however_the_run_ends(api: Api, server: DevServer, state: str):
    """W&B's SDK waits for a killed run for ever."""
    server.seed_run("ann", "trials", "r1", state="running")
    run = api.run("ann/trials/r1")
    polled = Matcher(operation="RunState", nth=3)

    def end() -> None:
        server.set_state("ann", "trials", "r1", state)

    server.faults.add(Fault(polled, Responder(status=None), action=end))
    run.wait_until_finished(poll_s=0.01)
    assert run.state == state
    assert server.requests.operations().count("RunState") == 3


def test_update_sends_the_summary_too(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", summary={"loss": 1, "old": 2})
    run = api.run("ann/trials/r1")
    run.update()
    assert server.requests.operations() == ["Run"], "nothing was changed"
    run.summary["loss"] = 0.5
    del run.summary["old"]
    run.tags.append("good")
    run.save()
    assert server.requests.operations().count("UpsertBucket") == 1
    assert (dict(run.summary), run.tags) == ({"loss": 0.5}, ["good"])
    assert dict(api.run("ann/trials/r1").summary) == {"loss": 0.5}


def test_a_name_may_be_set_by_either_of_its_names(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", display_name="old")
    run = api.run("ann/trials/r1")
    run.display_name = "new"
    run.description = "about it"
    run.update()
    now = api.run("ann/trials/r1")
    assert (run.name, now.name, now.display_name) == ("new", "new", "new")
    assert (now.description, now.notes) == ("about it", None)


def test_keys_of_the_summary_are_attributes(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", summary={"loss": 1, "deep": {"x": 1}})
    run = api.run("ann/trials/r1")
    run.summary.loss = 0.5
    run.summary[" best "] = 2
    run.summary.deep["x"] = 3
    assert (run.summary.loss, run.summary.has_changes) == (0.5, True)
    assert repr(run.summary) == "Summary({'loss': 0.5, 'deep': {'x': 3}, 'best': 2})"
    run.summary.update()
    assert dict(api.run("ann/trials/r1").summary) == {"loss": 0.5, "deep": {"x": 3}, "best": 2}
    with pytest.raises(AttributeError, match="nothing"):
        _ = run.summary.nothing


def test_a_document_that_is_none_names_the_run(api: Api, server: DevServer):
    node = '{"name": "r1", "id": "x", "config": "{", "summaryMetrics": "["}'
    body = f'{{"data": {{"project": {{"run": {node}}}}}}}'
    server.faults.add(Fault(Matcher(operation="Run"), Responder(status=200, body=body)))
    run = api.run("ann/trials/r1")
    for read in (lambda: run.rawconfig, lambda: run.config, lambda: run.summary_metrics):
        with pytest.raises(MalformedResponse, match="ann/trials/r1"):
            read()


@pytest.mark.parametrize("path", ["a/b/c", "", "https://wandb.ai/"])
def test_a_path_that_is_no_project_is_refused(api: Api, path: str):
    with pytest.raises(InvalidRequest, match="entity/project"):
        api.runs(path)


def test_keys_are_a_list_and_no_keys_are_all(api: Api, server: DevServer):
    rows = [{"_step": 0, "a": 1}, {"_step": 1, "b": 2}]
    server.seed_run("ann", "trials", "r1", history=rows)
    run = api.run("ann/trials/r1")
    assert list(run.scan_history(keys=[])) == rows
    assert run.history(keys=[], pandas=False) == rows
    for read in (run.history, run.history_table, lambda keys: list(run.scan_history(keys))):
        with pytest.raises(InvalidRequest, match="give a list"):
            read(keys="loss")


@pytest.mark.parametrize(
    ("ask", "remedy"),
    [
        (lambda api, run: run.history_table("loss"), r"keys='loss': .*\['loss'\]"),
        (lambda api, run: run.scan_history([1]), r"keys has 1: .*\['1'\]"),
        (lambda api, run: run.history(keys=5), r"keys=5: .*\['5'\]"),
        (lambda api, run: api.scan_histories([run], [None]), r"keys has None"),
        (lambda api, run: run.files("output.log"), r"names='output.log': .*\['output.log'\]"),
        (lambda api, run: run.files(names=[b"a"]), r"names has b'a'"),
        (
            lambda api, run: (setattr(run, "tags", "good"), run.update()),
            r"tags='good': .*\['good'\]",
        ),
        (lambda api, run: (setattr(run, "tags", None), run.update()), r"tags=None: .*\[\]"),
        (lambda api, run: (setattr(run, "tags", ["a", 1]), run.update()), r"tags has 1: .*\['1'\]"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_list_of_texts_is_one(
    api: Api, server: DevServer, ask: Callable[[Api, Run], object], remedy: str
):
    run = api.run("ann/trials/r1")
    before = len(server.requests)
    with pytest.raises(InvalidRequest, match=remedy):
        ask(api, run)
    assert len(server.requests) == before


@pytest.mark.usefixtures("project")
def test_what_scripts_for_lazy_listings_call(api: Api, server: DevServer):
    runs = api.runs("ann/trials", lazy=True)
    runs.upgrade_to_full()
    run = runs[0]
    before = len(server.requests)
    assert run.load_full_data()["name"] == run.id
    assert len(server.requests) == before
    server.edit_run("ann", "trials", run.id, notes="theirs")
    assert run.load_full_data(force=True)["notes"] == run.notes == "theirs"


def test_histories_are_scanned_with_the_arguments_of_the_sdk(api: Api, server: DevServer):
    server.seed_run("ann", "trials", "r1", history=[{"_step": step, "a": 1} for step in range(9)])
    for scan in (api.run("ann/trials/r1").scan_history, api.run("ann/trials/r1").beta_scan_history):
        assert [row["_step"] for row in scan(["a"], 1000, 2, 4, False)] == [2, 3]


@pytest.mark.parametrize(
    "path",
    [
        "https://wandb.ai/ann/trials/reports/Findings--VmlldzoxMjM",
        "ann/trials/reports/Findings--VmlldzoxMjM",
    ],
)
def test_a_report_is_not_taken_for_a_project(api: Api, path: str):
    with pytest.raises(InvalidRequest, match="is a report: read reports with"):
        api.from_path(path)


def test_a_project_may_be_called_reports(server: DevServer, api: Api):
    server.seed_run("ann", "reports", "r1")
    for path in ("ann/reports/r1", "https://wandb.ai/ann/reports/runs/r1"):
        assert api.from_path(path).id == "r1"
    assert api.from_path("https://wandb.ai/ann/reports/workspace").name == "reports"


@pytest.mark.parametrize("order", [None, 3])
def test_an_order_is_a_text(api: Api, order: Any):
    with pytest.raises(InvalidRequest, match=f"order={order}: .*'-created_at'"):
        api.runs("ann/trials", order=order)
