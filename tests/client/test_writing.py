"""Writes to a run while others write too, and while the server refuses, waits or stays silent."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from wb_ops import Api, CommError, InvalidRequest, NotFound, OutcomeUnknown, RateLimited
from wb_ops.client.history import HistoryReader
from wb_ops.client.run import Run
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

WRITE = Matcher(operation="UpsertBucket")
READ_BACK = Matcher(operation="Runs")


@pytest.fixture
def settings(server: DevServer) -> Settings:
    server.seed_run("ann", "trials", "r1", summary={"loss": 1}, config={"lr": 1}, tags=["a"])
    settings = Settings(api_key=server.api_key, base_url=server.url, timeout_s=5.0)
    return replace(settings, max_attempts=3, max_wait_s=2.0)


@pytest.fixture
def run(settings: Settings) -> Run:
    return Api(settings=settings).run("ann/trials/r1")


class TestWhatAProgramHolds:
    """Summary, config and tags that were taken from the run once, and the dicts in them."""

    def test_is_written_after_an_update_too(self, api: Api, run: Run):
        summary, config, tags = run.summary, run.config, run.tags
        for step in ("first", "second", "third"):
            summary[step] = config[step] = step
            tags.append(step)
            run.update()
        now = api.run("ann/trials/r1")
        steps = {"first": "first", "second": "second", "third": "third"}
        assert dict(now.summary) == {"loss": 1, **steps}
        assert now.config == {"lr": 1, **steps}
        assert now.tags == ["a", "first", "second", "third"]

    def test_is_written_deep_inside_too(self, api: Api, run: Run):
        run.summary["deep"], run.config["deep"] = {"x": {"y": 1}}, {"x": {"y": 1}}
        run.update()
        for deep in (run.summary["deep"]["x"], run.config["deep"]["x"]):
            for value in (2, 3):
                deep["y"] = value
                run.update()
        now = api.run("ann/trials/r1")
        assert (now.summary["deep"], now.config["deep"]) == ({"x": {"y": 3}}, {"x": {"y": 3}})

    def test_shows_what_was_read_anew(self, server: DevServer, run: Run):
        summary, config, tags = run.summary, run.config, run.tags
        server.edit_run(
            "ann", "trials", "r1", summary={"loss": 2}, config={"other": 2}, tags=["theirs"]
        )
        run.load(force=True)
        assert (dict(summary), config, tags) == ({"loss": 2}, {"other": 2}, ["theirs"])

    def test_keeps_a_list_that_was_empty(self, server: DevServer, api: Api):
        server.seed_run("ann", "trials", "bare")
        run = api.run("ann/trials/bare")
        tags = run.tags
        for tag, theirs in (("mine", "theirs"), ("more", "last")):
            tags.append(tag)
            server.edit_run("ann", "trials", "bare", tags=[*tags[:-1], theirs])
            run.update()
        assert set(api.run("ann/trials/bare").tags) == {"mine", "theirs", "more", "last"}

    def test_and_has_assigned_gets_nothing_of_one_run_for_the_next(
        self, server: DevServer, api: Api, run: Run
    ):
        server.seed_run("ann", "trials", "r2")
        other = api.run("ann/trials/r2")
        server.edit_run("ann", "trials", "r1", tags=["a", "theirs"])
        shared = ["mine"]
        for one in (run, other):
            one.tags = shared
            one.update()
        assert run.tags == ["theirs", "mine"]
        assert api.run("ann/trials/r2").tags == shared == ["mine"]


class TestAWriteThatHadToWait:
    """What was read before the wait is old after it."""

    def edit(self, server: DevServer) -> None:
        server.edit_run(
            "ann", "trials", "r1", summary={"loss": 1, "theirs": 2}, config={"lr": 1, "theirs": 2},
            tags=["a", "theirs"],
        )  # fmt: skip

    def change(self, run: Run) -> None:
        run.summary["mine"] = 3
        run.config["mine"] = 3
        run.tags.append("mine")
        run.update()

    def check(self, api: Api) -> None:
        now = api.run("ann/trials/r1")
        assert dict(now.summary) == {"loss": 1, "theirs": 2, "mine": 3}
        assert now.config == {"lr": 1, "theirs": 2, "mine": 3}
        assert now.tags == ["a", "theirs", "mine"]

    @pytest.mark.parametrize(
        "refusal", [Responder.rate_limited(0.2), Responder.rate_limited()], ids=["after", "backoff"]
    )
    def test_for_a_limit(self, server: DevServer, api: Api, run: Run, refusal: Responder):
        server.faults.add(Fault(WRITE, refusal, action=lambda: self.edit(server)))
        self.change(run)
        self.check(api)

    def test_for_a_budget_that_its_own_reading_spent(
        self, server: DevServer, api: Api, settings: Settings
    ):
        def sleep(seconds: float) -> None:
            self.edit(server)
            time.sleep(seconds)

        source = RunSource(Transport(settings, sleep), "ann", "trials")
        run = Run(source, HistoryReader(1), source.fetch_node("r1"))
        spent = {"RateLimit-Remaining": "0", "RateLimit-Reset": "0.3"}
        server.faults.add(Fault(Matcher(operation="Run"), Responder(headers=spent)))
        self.change(run)
        self.check(api)
        assert server.requests.operations().count("UpsertBucket") == 1

    def test_for_longer_than_it_may(self, server: DevServer, run: Run):
        server.faults.add(Fault(WRITE, Responder.rate_limited(30), times=None))
        with pytest.raises(RateLimited) as caught:
            run.summary.update({"mine": 3})
        assert caught.value.retry_after_s == 30
        assert server.requests.operations().count("UpsertBucket") == 1

    def test_for_a_limit_for_ever(self, server: DevServer, run: Run):
        server.faults.add(Fault(WRITE, Responder.rate_limited(0.1), times=None))
        with pytest.raises(RateLimited) as caught:
            run.summary.update({"mine": 3})
        assert caught.value.attempts == 3
        assert server.requests.operations().count("UpsertBucket") == 3

    def test_while_the_run_was_deleted(self, server: DevServer, run: Run):
        limit = Responder.rate_limited(0.1)
        server.faults.add(
            Fault(WRITE, limit, action=lambda: server.delete_run("ann", "trials", "r1"))
        )
        with pytest.raises(NotFound, match="ann/trials/r1 was deleted before"):
            run.summary.update({"mine": 3})

    def test_and_reads_in_vain(self, server: DevServer, run: Run):
        """The reading has its own attempts: they are not multiplied by those of the write."""
        server.faults.add(Fault(WRITE, Responder.rate_limited(0.1)))
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(502), times=None))
        with pytest.raises(CommError):
            run.summary.update({"mine": 3})
        assert server.requests.operations().count("UpsertBucket") == 1
        assert server.requests.operations().count("Runs") == 3


class TestReadingBackInVain:
    """What was sent is there or not; that is not the same as deleted."""

    def test_because_of_that_run(self, server: DevServer, run: Run):
        server.faults.add(Fault(READ_BACK, Responder.error(500, "internal error"), times=None))
        with pytest.raises(OutcomeUnknown, match=r"read back.*internal error") as caught:
            run.summary.update({"mine": 3})
        assert caught.value.advice.kind == "verify"

    def test_because_of_the_connection(self, server: DevServer, api: Api, run: Run):
        server.faults.add(Fault(READ_BACK, Responder.reset(), times=None))
        with pytest.raises(OutcomeUnknown, match="read back"):
            run.summary.update({"mine": 3})
        assert api.run("ann/trials/r1").summary["mine"] == 3

    def test_because_it_is_deleted(self, server: DevServer, run: Run):
        server.faults.add(
            Fault(
                READ_BACK,
                Responder(),
                action=lambda: server.delete_run("ann", "trials", "r1"),
            )
        )
        with pytest.raises(NotFound, match="deleted"):
            run.summary.update({"mine": 3})


class TestARunThatStillRuns:
    @pytest.fixture(autouse=True, params=["running", "pending", "preempting"])
    def state(self, request: pytest.FixtureRequest, server: DevServer, run: Run) -> str:
        """The run was finished when it was read, and is resumed."""
        state: str = request.param
        server.set_state("ann", "trials", "r1", state)
        return state

    def test_is_refused_with_the_remedy(self, server: DevServer, run: Run, state: str):
        run.notes = "n"
        for update in (run.update, lambda: run.summary.update({"mine": 3})):
            with pytest.raises(InvalidRequest, match=f"is {state}.*include_running=True"):
                update()
        assert "UpsertBucket" not in server.requests.operations()

    def test_is_written_to_where_that_is_asked_for(self, api: Api, run: Run):
        run.notes = "n"
        run.tags.append("b")
        run.update(include_running=True)
        run.summary.update({"mine": 3}, include_running=True)
        now = api.run("ann/trials/r1")
        assert (now.notes, now.tags, now.summary["mine"]) == ("n", ["a", "b"], 3)


def test_a_run_that_is_resumed_during_the_wait_is_refused(server: DevServer, run: Run):
    limit = Responder.rate_limited(0.1)
    server.faults.add(
        Fault(WRITE, limit, action=lambda: server.set_state("ann", "trials", "r1", "running"))
    )
    with pytest.raises(InvalidRequest, match="is running"):
        run.summary.update({"mine": 3})
    assert server.requests.operations().count("UpsertBucket") == 1
