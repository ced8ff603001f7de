"""The names of W&B's public API beside runs and histories: paths, accounts, projects, sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from wb_ops import Api, InvalidRequest, MalformedResponse, NotFound, Run
from wb_ops.client.paths import item_path_parts, project_path_parts
from wb_ops.client.sweeps import order_key
from wb_ops.devserver import DevServer, Fault, Matcher, Responder


@pytest.fixture
def project(server: DevServer) -> DevServer:
    config = {"method": "bayes", "name": "given", "metric": {"name": "acc", "goal": "maximize"}}
    for number in range(3):
        server.seed_sweep(
            entity="ann", project="trials", sweep_id=f"sw{number}", config=config,
            created_at=f"2026-01-0{number + 1}T00:00:00",
        )  # fmt: skip
    summaries: list[Any] = [{"acc": 0.5}, {"acc": 0.9}, '{"acc": NaN}', {}, {"acc": "high"}]
    for day, summary in enumerate(summaries, 1):
        server.seed_run(
            "ann", "trials", f"r{day}", summary=summary, sweep="sw0", user="ann",
            system_metrics={"system.cpu": day}, created_at=f"2026-01-0{day}T00:00:00",
        )  # fmt: skip
    server.seed_run("ann", "other", "x1")
    return server


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
def test_projects_are_listed_in_pages(api: Api, server: DevServer):
    projects = api.projects("ann", per_page=1)
    assert len(server.requests) == 0
    assert [one.name for one in projects] == ["trials", "other"]
    assert server.requests.operations() == ["GetProjects"] * 2
    first = projects[0]
    assert (first.path, first.owner, first.is_benchmark) == (["ann", "trials"], None, False)
    assert first.created_at is not None
    assert first.created_at.tzinfo is UTC
    assert [run.id for run in first.runs(order="+created_at", per_page=2)][:2] == ["r1", "r2"]
    assert repr(projects) == "<Projects ann>"


@pytest.mark.usefixtures("project")
def test_a_project_asks_when_it_has_to(api: Api, server: DevServer):
    one = api.project("trials", "ann")
    assert one.url == f"{server.url}/ann/trials/workspace"
    assert len(server.requests) == 0
    assert one.id == api.projects("ann")[0].id
    with pytest.raises(NotFound, match="ann/nothing"):
        _ = api.project("ann/nothing").id


@pytest.mark.usefixtures("project")
def test_sweeps_have_their_runs(api: Api):
    sweeps = api.project("trials", "ann").sweeps(per_page=2)
    assert [sweep.id for sweep in sweeps] == ["sw0", "sw1", "sw2"]
    sweep = sweeps[0]
    assert (sweep.name, sweep.method, sweep.order) == ("given", "bayes", "-summary_metrics.acc")
    assert (sweep.run_count, sweep.best_loss, sweep.expected_run_count) == (5, 0.9, None)
    assert sweep.created_at == sweep.updated_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert sweep.url.endswith("/ann/trials/sweeps/sw0")
    assert [run.id for run in sweep.runs] == ["r1", "r2", "r3", "r4", "r5"]
    assert sweep.runs[0].sweep is not None
    assert sweep.runs[0].sweep.path == ["ann", "trials", "sw0"]
    assert api.run("ann/other/x1").sweep is None
    with pytest.raises(NotFound, match="No such sweep: ann/trials/sw9"):
        api.sweep("ann/trials/sw9")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("order", "best"),
    [(None, "r2"), ("acc", "r2"), ("+acc", "r1"), ("+created_at", "r1"), ("-created_at", "r5"),
     ("+never", "r1")],
)  # fmt: skip
def test_the_best_run_by_the_metric_or_an_order(api: Api, order: str | None, best: str):
    """A text and a run that never logged the metric are not the best, however they are sorted."""
    run = api.sweep("ann/trials/sw0").best_run(order)
    assert run is not None
    assert run.id == best


def test_a_sweep_without_metric_or_runs(api: Api, server: DevServer):
    server.seed_sweep(entity="ann", project="trials", sweep_id="sw", config="method: grid")
    sweep = api.sweep("ann/trials/sw")
    assert (sweep.name, sweep.order, sweep.best_run(), len(sweep.runs)) == ("sw", None, None, 0)
    node = {"name": "sw", "state": None, "config": "a: [b"}
    body = {"data": {"project": {"sweep": node}}}
    answer = Responder(status=200, body=str(body).replace("'", '"').replace("None", "null"))
    server.faults.add(Fault(Matcher(operation="GetSweep"), answer))
    with pytest.raises(MalformedResponse, match="no YAML"):
        _ = api.sweep("ann/trials/sw").config


@pytest.mark.parametrize(
    "config",
    [
        "a: 2026-13-45", "[" * 5000, "a: !!int ''", "a: !!bool x", "a: !!timestamp x", "{[]: 1}",
        "metric: loss", "metric: 5", "metric: [name]",
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_read_is_an_error_of_ours(api: Api, server: DevServer, config: str):
    node = {"name": "sw", "state": None, "config": config}
    body = json.dumps({"data": {"project": {"sweep": node}}})
    answer = Responder(status=200, body=body)
    server.faults.add(Fault(Matcher(operation="GetSweep"), answer))
    sweep = api.sweep("ann/trials/sw")
    with pytest.raises(MalformedResponse, match=r"sweep ann/trials/sw is no"):
        _ = sweep.order


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("loss", "-summary_metrics.loss"),
        ("+loss", "+summary_metrics.loss"),
        ("+val.loss", "+summary_metrics.val.loss"),
        ("-config.lr.value", "-config.lr.value"),
        ("+summary_metrics.loss", "+summary_metrics.loss"),
        ("+createdAt", "+createdAt"),
        ("name", "-name"),
    ],
)
def test_an_order_key_of_a_sweep(key: str, order: str):
    assert order_key(key) == order


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
