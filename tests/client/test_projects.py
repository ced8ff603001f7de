"""Projects, and their sweeps with the best run."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from wb_ops import Api, MalformedResponse, NotFound
from wb_ops.client.sweeps import order_key
from wb_ops.devserver import DevServer, Fault, Matcher, Responder


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
