"""The watcher of a project: every run that ends is announced, over restarts and outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("airflow_home", "connection")
LISTING = Matcher(operation="Runs")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """Stands for Airflow's asset state store, which only a triggerer has."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        assert len(json.dumps(value)) < 65_536, "Airflow's limit"
        self.values[key] = value

    async def adelete(self, key: str) -> None:
        del self.values[key]


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def watcher(store: Store | None = None, **arguments: Any) -> Any:
    from wb_ops.airflow.triggers.runs_finished import WandbRunsFinishedEventTrigger

    given = {"wandb_conn_id": "wandb_default", "poll_interval_s": 0.05, **arguments}
    trigger = WandbRunsFinishedEventTrigger("ann", "demo", **given)
    trigger.asset_state_store = store
    return trigger


async def events_of(
    trigger: Any, count: int, between: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """The first events; `between` is called after each of them."""
    found: list[dict[str, Any]] = []
    stream: AsyncIterator[Any] = trigger.run()
    async with asyncio.timeout(60):
        async for event in stream:
            found.append(event.payload)
            if len(found) == count:
                break
            if between is not None:
                between(len(found))
    return found


def ids(event: dict[str, Any]) -> list[str]:
    return [run["run_id"] for run in event["runs"]]


def end(server: Any, run_id: str, moment: datetime, state: str = "finished") -> None:
    server.seed_run("ann", "demo", run_id, state=state, heartbeat_at=moment, history=[{"a": 1}])


def test_each_end_is_announced_once(server: Any, now: datetime) -> None:
    """The first event has what ended in the last half hour; later ones what came since."""
    end(server, "early", now - timedelta(minutes=5))
    end(server, "old", now - timedelta(hours=5))

    def more(done: int) -> None:
        end(server, f"later{done}", now + timedelta(seconds=done), "failed")

    first, second, third = asyncio.run(events_of(watcher(), 3, more))
    assert ids(second) == ["later1"]
    assert ids(third) == ["later2"]
    assert "early" in ids(first)
    assert "old" not in ids(first)
    assert second["runs"] == [{"run_id": "later1", "name": "later1", "state": "failed"}]
    assert second["watermark"] == (now + timedelta(seconds=1)).isoformat()


def test_states_and_filters_choose(server: Any, now: datetime) -> None:
    """A Dag that only wants what finished is not woken by a crash."""
    end(server, "crash", now, "crashed")
    server.seed_run("ann", "demo", "tagged", tags=["keep"], heartbeat_at=now, history=[{"a": 1}])
    (event,) = asyncio.run(
        events_of(watcher(states=["finished"], filters={"tags": {"$in": ["keep"]}}), 1)
    )
    assert ids(event) == ["tagged"]
    assert event["row_count"] == 1


def test_a_run_that_is_marked_late_is_found(server: Any, now: datetime) -> None:
    """W&B says `crashed` minutes after the last heartbeat, when others have long ended."""
    end(server, "quick", now)

    def crash(done: int) -> None:
        end(server, "silent", now - timedelta(minutes=20), "crashed")

    events = asyncio.run(events_of(watcher(), 2, crash))
    assert ids(events[1]) == ["silent"]


def test_a_restart_repeats_an_event_and_loses_none(server: Any, now: datetime) -> None:
    """The event is stored after it is yielded: a watcher that dies there has to tell it again."""
    store = Store()
    end(server, "one", now)
    asyncio.run(events_of(watcher(store), 1))
    end(server, "two", now + timedelta(seconds=1))
    (event,) = asyncio.run(events_of(watcher(store), 1))
    assert {"one", "two"} <= set(ids(event))


def test_a_restart_goes_on_where_it_was(server: Any, now: datetime) -> None:
    """What was announced a poll ago is not announced again, however long nobody watched."""
    store = Store()
    end(server, "one", now - timedelta(hours=9))
    store.values["wandb_runs_finished"] = {
        "since": (now - timedelta(hours=10)).isoformat(),
        "seen": "",
    }

    def more(done: int) -> None:
        end(server, "two", now)

    asyncio.run(events_of(watcher(store), 2, more))
    end(server, "three", now + timedelta(seconds=1))
    (event,) = asyncio.run(events_of(watcher(store), 1))
    assert "one" not in ids(event)
    assert {"two", "three"} <= set(ids(event))


@pytest.mark.parametrize(
    "fault",
    [Responder.rate_limited(0.1), Responder.error(502), Responder.error(401), Responder.cut_body()],
    ids=str,
)
def test_nothing_ends_the_watch(server: Any, now: datetime, fault: Responder) -> None:
    """An outage, a limit and even a refused key are logged and asked again."""
    end(server, "one", now)
    server.faults.add(Fault(LISTING, fault, times=2))
    (event,) = asyncio.run(events_of(watcher(), 1))
    assert "one" in ids(event)
    assert server.requests.operations() == ["Runs"] * 3


def test_a_missing_connection_does_not_end_it_either(
    server: Any, now: datetime, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """It may be made while the watcher waits."""
    end(server, "one", now)
    monkeypatch.delenv("AIRFLOW_CONN_WANDB_DEFAULT")

    async def run() -> list[dict[str, Any]]:
        watching = asyncio.create_task(events_of(watcher(), 1))
        await asyncio.sleep(0.3)
        set_connection()
        return await watching

    (event,) = asyncio.run(run())
    assert "one" in ids(event)


def ended(run_id: str, seconds: float, state: str = "finished") -> Any:
    from wb_ops.airflow.triggers.cursor import EndedRun

    return EndedRun(run_id, run_id, state, START + timedelta(seconds=seconds))


def test_a_resumed_run_ends_again() -> None:
    """Another heartbeat or another state is another end."""
    from wb_ops.airflow.triggers.cursor import Cursor

    cursor = Cursor.start(START).advance([ended("a", 1)])
    assert cursor.news([ended("a", 1)]) == []
    assert cursor.news([ended("a", 2)]) == [ended("a", 2)]
    assert cursor.news([ended("a", 1, "failed")]) == [ended("a", 1, "failed")]


@pytest.mark.parametrize("count", [0, 1, 500, 20_000])
def test_the_cursor_forgets_no_end_that_it_looks_at(count: int) -> None:
    """However many there are in half an hour; a late one among them is new, the others are not."""
    from wb_ops.airflow.triggers.cursor import Cursor

    runs = [ended(f"run{number}", number / count * 1000) for number in range(count)]
    cursor = Cursor.start(START).advance(runs)
    again = Cursor.load(json.loads(json.dumps(cursor.dump())))
    assert again == cursor
    late = ended("late", 1, "crashed")
    assert late.heartbeat_at >= again.since
    assert again.news([*runs, late]) == [late]


def test_no_late_end_is_lost_behind_many_others(server: Any, now: datetime) -> None:
    """W&B marks a run as crashed after 600 others have ended, over a restart."""
    store = Store()
    server.seed_runs(
        {
            "entity": "ann", "project": "demo", "run_id": f"many{number}", "state": "finished",
            "heartbeat_at": now - timedelta(seconds=number / 10), "history": [],
        }
        for number in range(600)
    )  # fmt: skip
    since = (now - timedelta(minutes=25)).isoformat()
    store.values["wandb_runs_finished"] = {"since": since, "seen": ""}

    def late(done: int) -> None:
        end(server, f"late{done}", now - timedelta(minutes=20), "crashed")

    first, second = asyncio.run(events_of(watcher(store), 2, late))
    # Those of the server that every test has, too: two of them have ended.
    assert (first["row_count"], ids(second)) == (602, ["late1"])
    # What the second event told of is not saved yet: it is told of again, and the new end with it.
    late(2)
    (again,) = asyncio.run(events_of(watcher(store), 1))
    assert set(ids(again)) == {"late1", "late2"}


def test_a_cursor_of_many_ends_is_kept_in_pages() -> None:
    """A state store takes 64 KB a value; fewer ends later leave no page behind."""
    from wb_ops.airflow.triggers.cursor import Cursor

    store = Store()
    trigger = watcher(store)
    many = Cursor.start(START).advance([ended(f"run{number}", 5) for number in range(9000)])

    async def save(cursor: Any) -> Any:
        await trigger._save(cursor, None)
        return await trigger._load()

    assert asyncio.run(save(many)) == many
    assert len(store.values) == 3
    few = Cursor.start(START).advance([ended("one", 5)])
    assert asyncio.run(save(few)) == few
    assert len(store.values) == 1


def test_without_ends_it_stays_where_it_is() -> None:
    """A quiet night moves nothing."""
    from wb_ops.airflow.triggers.cursor import Cursor

    cursor = Cursor.start(START)
    assert cursor.advance([]) == cursor
    assert cursor.advance([ended("a", -1700)]).since == cursor.since
