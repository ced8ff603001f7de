"""What triggers wait for, against a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.devserver import Fault, Matcher, Responder
from wb_ops.errors import RateLimited

pytestmark = pytest.mark.usefixtures("airflow_home", "connection")
RUN = Matcher(operation="Run")
CONNECTION = {"wandb_conn_id": "wandb_default", "poll_interval_s": 0.05}


def first_event(trigger: Any) -> dict[str, Any]:
    """The trigger's first event, as JSON gives it to a worker; a minute at most."""

    async def read() -> Any:
        async with asyncio.timeout(60):
            return await anext(trigger.run())

    payload: dict[str, Any] = json.loads(json.dumps(asyncio.run(read()).payload))
    return payload


def wait_for(run_id: str, **arguments: Any) -> Any:
    from wb_ops.airflow.triggers.run import WandbRunTrigger

    return WandbRunTrigger(f"ann/demo/{run_id}", **{**CONNECTION, **arguments})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("throttle.ThrottleTrigger", {"until_epoch_s": 1.5, "throttles": 2}),
        (
            "run.WandbRunTrigger",
            {"run": "a/b/c", "states": ["finished"], "deadline_epoch_s": 9.0, **CONNECTION},
        ),
        (
            "runs_finished.WandbRunsFinishedEventTrigger",
            {
                "entity": "ann",
                "project": "demo",
                "states": ["failed"],
                "filters": '{"tags": "x"}',
                **CONNECTION,
            },
        ),
    ],
)
def test_a_trigger_survives_serialization(name: str, arguments: dict[str, Any]) -> None:
    """Class path and plain arguments make the same trigger again in another process.

    A dict among them would reach a watcher of Airflow 3.2 in another form.
    """
    from airflow.sdk.module_loading import import_string

    path = f"wb_ops.airflow.triggers.{name}"
    serialized = import_string(path)(**arguments).serialize()
    assert serialized == (path, arguments)
    assert not [value for value in arguments.values() if isinstance(value, dict)]
    again = import_string(serialized[0])(**json.loads(json.dumps(serialized[1])))
    assert again.serialize() == serialized


@pytest.mark.parametrize("wait_s", [-100.0, 0.05])
def test_a_throttle_ends_at_its_moment(wait_s: float) -> None:
    """A moment that passed while no triggerer ran is not waited for; the count comes back."""
    from wb_ops.airflow.triggers.throttle import ThrottleTrigger

    until = time.time() + wait_s
    assert first_event(ThrottleTrigger(until, 3)) == {"status": "throttled", "throttles": 3}
    assert time.time() >= until


@pytest.mark.parametrize("state", ["finished", "failed", "crashed", "killed"])
def test_the_end_of_a_run_is_told_with_its_state(server: Any, state: str) -> None:
    """The worker judges; the trigger reports."""
    server.set_state("ann", "demo", "run2", state)
    event = first_event(wait_for("run2"))
    assert event == {
        "status": "ended",
        "run_id": "run2",
        "state": state,
        "url": f"{server.url}/ann/demo/runs/run2",
    }


def test_a_run_is_asked_for_until_it_ends(server: Any) -> None:
    """The third answer says so."""

    def finish() -> None:
        server.finish_run("ann", "demo", "run2", exit_code=0)

    end = Matcher(operation="Run", nth=3)
    server.faults.add(Fault(end, Responder(), action=finish))
    assert first_event(wait_for("run2"))["state"] == "finished"
    assert server.requests.operations() == ["Run"] * 3


def test_a_deadline_is_kept() -> None:
    """It is a moment, so that a restart does not move it."""
    event = first_event(wait_for("run2", deadline_epoch_s=time.time() + 0.2))
    assert event == {"status": "timeout", "run": "ann/demo/run2"}


@pytest.mark.parametrize(
    "fault", [Responder.rate_limited(0.1), Responder.error(503), Responder.reset()], ids=str
)
def test_what_heals_is_waited_out(server: Any, fault: Responder) -> None:
    """A limit, an outage and a broken connection are no reason to wake a worker."""
    server.faults.add(Fault(RUN, fault, times=3))
    assert first_event(wait_for("run0"))["state"] == "finished"


def test_a_limit_that_names_no_time_is_no_failure(server: Any) -> None:
    """However often it comes, it is waited out: longer each time, as after an outage."""
    server.faults.add(Fault(RUN, Responder.rate_limited(), times=8))
    assert first_event(wait_for("run0", poll_interval_s=0.002))["state"] == "finished"
    assert server.requests.operations() == ["Run"] * 9


@pytest.mark.parametrize(
    ("asked_s", "number", "expected_s"),
    [
        (12, 0, 12),
        (0, 0, 0.25),
        (0, 2, 1),
        (0, 99, 4),
        (1e6, 0, 3600),
        (None, 0, 15),
        (None, 9, 3600),
    ],
)
def test_a_wait_has_a_floor_and_a_cap(
    asked_s: float | None, number: int, expected_s: float
) -> None:
    """A server that says 0 is not asked in a tight loop, one that says a day not tomorrow."""
    from wb_ops.airflow.waits import throttle_wait_s

    error = RateLimited("slow down", retry_after_s=asked_s)
    assert throttle_wait_s(error, number, 15) == expected_s


def test_a_trigger_asks_no_faster_than_its_interval() -> None:
    """And as late as the server says, an hour at most; answers begin the count anew."""
    from wb_ops.airflow.triggers.polling import Patience

    patience = Patience(interval_s=60)
    pauses = [patience.pause_s(RateLimited("", retry_after_s=s)) for s in (5, 90, 1e6, None)]
    assert pauses == [60, 90, 3600, 480]
    assert not patience.is_over(RateLimited(""))
    patience.reset()
    assert patience.pause_s(RateLimited("")) == 60


def test_an_outage_that_lasts_becomes_an_event(server: Any) -> None:
    """After the sixth failure in a row the task's retries go on."""
    server.faults.add(Fault(RUN, Responder.error(503), times=None))
    event = first_event(wait_for("run2", poll_interval_s=0.001))
    assert (event["error"], event["advice"]["kind"]) == ("ServerUnavailable", "backoff")
    assert server.requests.operations() == ["Run"] * 6


@pytest.mark.parametrize(
    ("fields", "run_id", "error"),
    [
        ({}, "nowhere", "NotFound"),
        ({"password": "w" * 40}, "run0", "AuthenticationFailed"),
        ({"password": "short"}, "run0", "AuthenticationFailed"),
        ({"extra": {"timeout": "soon"}}, "run0", "InvalidRequest"),
    ],
    ids=str,
)
def test_what_cannot_heal_is_told_at_once(
    set_connection: Callable[..., None],
    server: Any,
    fields: dict[str, Any],
    run_id: str,
    error: str,
) -> None:
    """One request at most."""
    set_connection(**fields)
    event = first_event(wait_for(run_id))
    assert (event["status"], event["error"]) == ("error", error)
    assert event["advice"] == {"kind": "never", "seconds": None}
    assert len(server.requests) <= 1


def test_the_loop_is_free_while_the_server_is_slow(server: Any) -> None:
    """Other triggers of the process go on: W&B is asked in a thread."""
    server.faults.add(Fault(RUN, Responder.slow(0.5)))

    async def count() -> int:
        asking = asyncio.create_task(anext(wait_for("run0").run()))
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            turns += 1
        await asking
        return turns

    assert asyncio.run(count()) > 5
