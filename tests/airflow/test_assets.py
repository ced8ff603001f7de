"""A project's runs as an asset with a watcher."""

from __future__ import annotations

from typing import Any

import pytest

from wb_ops.errors import InvalidRequest

pytestmark = pytest.mark.usefixtures("airflow_home")


def test_one_call_makes_the_asset_and_its_watcher() -> None:
    """The project is named once; the interval comes from Airflow's configuration."""
    from wb_ops.airflow import wandb_runs_asset

    asset = wandb_runs_asset("ann/my project")
    assert asset.name == asset.uri == "wandb://ann/my%20project/runs"
    (watcher,) = asset.watchers
    _, arguments = watcher.trigger.serialize()
    assert (arguments["entity"], arguments["project"]) == ("ann", "my project")
    assert arguments["poll_interval_s"] == 60.0
    assert arguments["states"] == ["finished", "failed", "crashed", "killed"]


def test_dags_of_one_project_share_the_watcher() -> None:
    """A watcher is its class and its arguments; another filter is another asset."""
    from airflow.triggers.base import BaseEventTrigger

    from wb_ops.airflow import wandb_runs_asset

    def identity(asset: Any) -> int:
        return BaseEventTrigger.hash(*asset.watchers[0].trigger.serialize())

    first, second = wandb_runs_asset("ann/demo"), wandb_runs_asset("ann/demo")
    other = wandb_runs_asset("ann/demo", name="finished", states=["finished"])
    assert (first.uri, identity(first)) == (second.uri, identity(second))
    assert identity(other) != identity(first)
    assert other.uri == "wandb://ann/demo/runs/finished"


@pytest.mark.parametrize("path", ["demo", "ann/", "/demo", "ann/demo/run0", ""])
def test_a_path_that_is_no_project_is_refused(path: str) -> None:
    """While the Dag file is parsed."""
    from wb_ops.airflow import wandb_runs_asset

    with pytest.raises(ValueError, match="give entity/project"):
        wandb_runs_asset(path)


@pytest.mark.parametrize("uri", ["wandb://ann/demo", "WANDB://ann/demo/", "wandb://ann/demo/runs"])
def test_one_project_has_one_uri(uri: str) -> None:
    """Airflow asks the provider what a URI of its scheme means."""
    from airflow.sdk import Asset

    assert Asset(uri).uri == "wandb://ann/demo/runs"


@pytest.mark.parametrize("uri", ["wandb://ann", "wandb:///demo", "wandb://ann/demo/runs?state=x"])
def test_a_uri_without_a_project_is_refused(uri: str) -> None:
    """It would be an asset that nothing ever updates."""
    from airflow.sdk import Asset

    with pytest.raises(ValueError, match="no W&B asset"):
        Asset("name", uri)


def test_filters_are_a_dict_or_its_text() -> None:
    """Either makes the same watcher; what is neither is refused while the Dag file is parsed."""
    from wb_ops.airflow import wandb_runs_asset

    forms = ({"tags": "best", "group": "a"}, '{"group": "a", "tags": "best"}')
    dict_form, text_form = (
        wandb_runs_asset("ann/demo", filters=form).watchers[0].trigger for form in forms
    )
    assert dict_form.serialize() == text_form.serialize()
    with pytest.raises(InvalidRequest, match="filters='best' is not JSON"):
        wandb_runs_asset("ann/demo", filters="best")


def test_a_dag_on_it_survives_serialization() -> None:
    """The scheduler makes the triggerer's watcher from the serialized Dag."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    from wb_ops.airflow import wandb_runs_asset

    with DAG("on_runs", schedule=[wandb_runs_asset("ann/demo")]) as dag:
        pass
    document = str(DagSerialization.serialize_dag(dag))
    assert "WandbRunsFinishedEventTrigger" in document
    DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


def test_a_single_state_is_not_taken_for_its_letters() -> None:
    """Neither by the asset nor by the trigger of one run."""
    from wb_ops.airflow import wandb_runs_asset
    from wb_ops.airflow.triggers.run import WandbRunTrigger

    with pytest.raises(InvalidRequest, match="states='finished': give a list"):
        wandb_runs_asset("ann/demo", states="finished")
    with pytest.raises(InvalidRequest, match="states='finished': give a list"):
        WandbRunTrigger("ann/demo/run0", "wandb_default", states="finished")
