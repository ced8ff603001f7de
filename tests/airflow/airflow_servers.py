"""The dev servers that a deployment's Dags meet, and what an export has taken from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta

from wb_ops import Api, connect
from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder
from wb_ops.errors import WarehouseError

KEY = "slowkey0" * 5
LISTING = Matcher(operation="Runs")
FILE = Matcher(path="*/exports/*", origin="storage")
LAST_MOMENT = timedelta(days=1) - timedelta(microseconds=1)
HELD = """
select run_id, status from runs left join (
    select run_id, max(status) as status from _wb_receipts where table_name = 'history'
    group by run_id having count(*) = 1) using (run_id)
"""


@contextmanager
def seeded_servers() -> Iterator[dict[str, DevServer]]:
    """One server for each Dag, so that each meets its own faults."""
    with ExitStack() as stack:
        found = {}
        for name in ("limited", "refused", "deferred", "sharded", "waiting", "live", "nightly"):
            server = DevServer(api_keys={KEY: ApiKey(username="ann")})
            found[name] = stack.enter_context(server)
            state = "running" if name == "waiting" else "finished"
            server.seed_run(
                "ann", "demo", "run0", state=state, history=[{"loss": 1.0}, {"loss": 0.5}]
            )
        found["limited"].faults.add(Fault(LISTING, Responder.rate_limited(12)))
        for run_id in ("run1", "run2"):
            found["sharded"].seed_run("ann", "demo", run_id, history=[{"loss": 2.0}] * 3)
        # The first file to be read does not come, until whoever waits for it is killed.
        found["sharded"].faults.add(Fault(FILE, Responder.slow(60)))
        found["deferred"].faults.add(Fault(LISTING, Responder.rate_limited(8)))
        seed_days(found["live"], "demo", days=1)
        seed_days(found["nightly"], "nightly", days=5)
        yield found


def seed_days(server: DevServer, project: str, days: int) -> None:
    """A run at the first and one at the last moment of each of so many days before today."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for ago in range(1, days + 1):
        begin = midnight - timedelta(days=ago)
        for name, moment in {"first": begin, "last": begin + LAST_MOMENT}.items():
            server.seed_run(
                "ann",
                project,
                f"{name}-{ago}",
                created_at=moment,
                heartbeat_at=moment,
                history=[{"loss": 3.0}],
            )


def runs_of_days(server: DevServer, project: str) -> dict[str, set[str]]:
    """What is on the server: the runs by the day on which they were created."""
    found: dict[str, set[str]] = {}
    for run in Api({"base_url": server.url}, api_key=KEY).runs(f"ann/{project}"):
        found.setdefault(f"{run.created_at:%Y-%m-%d}", set()).add(run.id)
    return found


def held(url: str, dataset: str) -> dict[str, str]:
    """The runs of a dataset, each with the status of its history; none before it is there."""
    with suppress(WarehouseError):
        found = connect(url).query(HELD, dataset)
        return {row["run_id"]: row["status"] for row in found.to_pylist()}
    return {}


def connection(name: str, server: DevServer) -> str:
    key = "w" * 40 if name == "refused" else KEY
    extra = {"max_wait_s": 0}
    return json.dumps({"conn_type": "wandb", "host": server.url, "password": key, "extra": extra})
