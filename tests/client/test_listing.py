"""Pages that adapt, and a listing that goes on after a run that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_world import SimulatedRun

from wb_ops.client.history import HistoryReader
from wb_ops.client.listing import MAX_BROKEN_IN_A_ROW
from wb_ops.client.paging import PAGES_BEFORE_GROWTH, QUICK_S, PageSize
from wb_ops.client.runs import Runs
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.errors import InvalidRequest, ServerUnavailable
from wb_ops.settings import Settings


class TestPageSize:
    def test_it_grows_to_the_largest_while_answers_are_quick(self):
        sizes = PageSize(50, 1000)
        for _ in range(5):
            sizes.grow(0.1)
        assert sizes.size == 1000

    def test_a_slow_answer_keeps_it(self):
        sizes = PageSize(50, 1000)
        sizes.grow(QUICK_S + 1)
        assert sizes.size == 50

    def test_after_a_page_that_was_too_much_it_waits_before_it_grows(self):
        sizes = PageSize(1000, 1000)
        sizes.halve()
        for _ in range(PAGES_BEFORE_GROWTH):
            sizes.grow(0.1)
        assert sizes.size == 500
        sizes.grow(0.1)
        assert sizes.size == 1000

    def test_it_is_at_least_one(self):
        sizes = PageSize(1, 1000)
        sizes.halve()
        assert sizes.size == 1


@pytest.fixture
def listing(simulation: Any) -> Any:
    """Runs r0..r29 of which some are poison: (names of them, seed) -> Runs, world."""

    def start(poison: set[int], seed: int, count: int = 30) -> tuple[Runs, Any]:
        def fill(world: Any) -> None:
            world.kinds = []
            world.runs = [SimulatedRun(f"r{n}", ["v"], is_poison=n in poison) for n in range(count)]

        base_url, world = simulation.world(seed, fill)
        settings = Settings("k" * 40, base_url, max_attempts=2)
        transport = Transport(settings, world.clock.sleep, world.clock)
        source = RunSource(transport, "ann", "trials")
        return Runs(source, HistoryReader(2), order="+created_at"), world

    return start


@pytest.mark.parametrize("seed", [-1, -2], ids=["500", "an error in a 200"])
@pytest.mark.parametrize("poison", [{0}, {29}, {3, 4, 17}])
def test_a_run_that_breaks_the_page_is_reported_and_the_others_arrive(
    listing: Any, poison: set[int], seed: int
):
    runs, _ = listing(poison, seed)
    assert {run.id for run in runs} == {f"r{n}" for n in range(30) if n not in poison}
    assert set(runs.broken) == {f"r{n}" for n in poison}
    assert all(isinstance(error, ServerUnavailable) for error in runs.broken.values())
    assert len(runs) == 30


def test_a_poison_run_costs_few_requests(listing: Any):
    runs, world = listing({700}, -3, 2000)
    assert runs.to_arrow().num_rows == 1999
    assert world.requests < 60


@pytest.mark.parametrize("longest", [1, 2])
def test_a_server_may_cut_pages_shorter_than_they_are_asked_for(listing: Any, longest: int):
    runs, world = listing(set(), -9)
    world.longest_page = longest
    assert [run.id for run in runs] == [f"r{n}" for n in range(30)]
    assert world.requests <= 59


def test_a_project_of_which_nothing_can_be_read_is_an_error(listing: Any):
    runs, _ = listing({0}, -4, 1)
    with pytest.raises(ServerUnavailable):
        list(runs)


def test_too_many_broken_runs_in_a_row_are_the_servers_fault(listing: Any):
    runs, _ = listing(set(range(10, 10 + MAX_BROKEN_IN_A_ROW + 1)), -5)
    with pytest.raises(ServerUnavailable):
        list(runs)
    assert runs.broken == {}


def test_a_run_that_one_of_two_readings_gives_is_not_broken(
    listing: Any, caplog: pytest.LogCaptureFixture
):
    runs, world = listing({3}, -8)
    ids = []
    for run in runs:
        ids.append(run.id)
        if run.id == "r4":
            assert set(runs.broken) == {"r3"}
            # The count falls, so that the listing is read again.
            world.runs[29].is_deleted = world.runs[0].is_poison = True
            world.runs[3].is_poison = False
    assert sorted(ids) == sorted(f"r{n}" for n in range(29))
    assert runs.broken == {}
    assert "the server counts" not in caplog.text


def test_a_run_asked_for_by_id_that_cannot_be_given_is_told(listing: Any):
    _, world = listing({1}, -6, 3)
    settings = Settings("k" * 40, world.base_url, max_attempts=2)
    source = RunSource(Transport(settings, world.clock.sleep, world.clock), "ann", "trials")
    broken: dict[str, Any] = {}
    found = source.fetch_nodes(["r0", "r1", "r2"], on_broken=broken.__setitem__)
    assert (set(found), set(broken)) == ({"r0", "r2"}, {"r1"})


def test_a_page_of_no_runs_is_refused(listing: Any):
    runs, _ = listing(set(), -7)
    with pytest.raises(InvalidRequest, match="per_page=0"):
        Runs(runs._source, runs._reader, per_page=0)
