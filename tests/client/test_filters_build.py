"""Building filters: the dict that W&B takes, or an error that says what to write."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wb_ops import Api, ExportRequest, InvalidRequest
from wb_ops.client import filters
from wb_ops.client.filters import Filter
from wb_ops.devserver import DevServer

lr = filters.config("lr")
CEST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("built", "wire"),
    [
        (lr == 0.1, {"config.lr": 0.1}),
        (lr != "x", {"config.lr": {"$ne": "x"}}),
        (lr > 1, {"config.lr": {"$gt": 1}}),
        (lr >= 1, {"config.lr": {"$gte": 1}}),
        (lr < 1, {"config.lr": {"$lt": 1}}),
        (0.5 >= lr, {"config.lr": {"$lte": 0.5}}),  # noqa: SIM300  # this order is the claim
        (lr == None, {"config.lr": None}),  # noqa: E711  # builds a condition
        (lr == {"a": (1, 2)}, {"config.lr": {"$eq": {"a": [1, 2]}}}),
        (lr.is_in(x for x in (1, "a", None)), {"config.lr": {"$in": [1, "a", None]}}),
        (lr.not_in([]), {"config.lr": {"$nin": []}}),
        (lr.exists(), {"config.lr": {"$exists": True}}),
        (filters.config("m", "depth") == 2, {"config.m.value.depth": 2}),
        (filters.summary("val/loss") < 0.5, {"summary_metrics.val/loss": {"$lt": 0.5}}),
        (filters.summary("loss", "min") < 0.5, {"summary_metrics.loss.min": {"$lt": 0.5}}),
        (filters.state == "finished", {"state": "finished"}),
        (filters.run_id == "a1", {"name": "a1"}),
        (filters.display_name.matches("(?i)^a"), {"displayName": {"$regex": "(?i)^a"}}),
        (filters.group == "g", {"group": "g"}),
        (filters.job_type == "train", {"jobType": "train"}),
        (filters.username == "eve", {"username": "eve"}),
        (filters.sweep == "s1", {"sweep": "s1"}),
        (filters.duration_s > 60, {"duration": {"$gt": 60}}),
        (filters.tags.contains("a"), {"tags": "a"}),
        (filters.tags.is_in(["a", "b"]), {"tags": {"$in": ["a", "b"]}}),
        (filters.tags.exists(), {"tags": {"$ne": None}}),
    ],
)
def test_a_comparison_is_the_dict_of_wb(built: Filter, wire: dict[str, Any]):
    assert built == wire
    filters.require_valid(built)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00Z"),
        (datetime(2026, 1, 31, 1, 30, 0, 5, tzinfo=CEST), "2026-01-30T23:30:00.000005Z"),
        (date(2026, 1, 31), "2026-01-31T00:00:00Z"),
        (pd.Timestamp("2026-01-31", tz="UTC"), "2026-01-31T00:00:00Z"),
        (datetime.min.replace(tzinfo=UTC), "0001-01-01T00:00:00Z"),
        ("2026-01-31T00", "2026-01-31T00"),
    ],
)
def test_times_become_iso_text(moment: Any, text: str):
    assert (filters.created_at >= moment) == {"createdAt": {"$gte": text}}
    assert filters.heartbeat_at.is_in([moment]) == {"heartbeatAt": {"$in": [text]}}
    assert (filters.updated_at == moment) == {"updatedAt": text}


def test_numpy_scalars_become_plain_numbers():
    built = lr.is_in([np.int64(3), np.float32(0.5), np.float64(0.1)])
    assert json.dumps(built) == '{"config.lr": {"$in": [3, 0.5, 0.1]}}'


class TestAlgebra:
    a, b, c = (filters.config(name) == 1 for name in "abc")

    def test_and_or_not(self):
        assert (self.a & self.b) == {"$and": [self.a, self.b]}
        assert (self.a | self.b) == {"$or": [self.a, self.b]}
        assert ~self.a == {"$nor": [self.a]}

    def test_chains_stay_flat(self):
        assert self.a & self.b & self.c == {"$and": [self.a, self.b, self.c]}
        assert self.a | (self.b | self.c) == {"$or": [self.a, self.b, self.c]}
        assert (self.a | self.b) & self.c == {"$and": [{"$or": [self.a, self.b]}, self.c]}

    def test_the_same_field_twice_keeps_both_conditions(self):
        assert (lr > 1) & (lr < 2) == {"$and": [lr > 1, lr < 2]}
        assert (lr < 1) | (lr > 2) == {"$or": [lr < 1, lr > 2]}

    def test_plain_dicts_take_part(self):
        wanted = {"$and": [{"state": "finished"}, self.a]}
        assert {"state": "finished"} & self.a == wanted
        assert Filter({"state": "finished"}) & self.a == wanted
        assert {"state": "x"} | self.a == {"$or": [{"state": "x"}, self.a]}

    def test_a_condition_beside_and_is_kept(self):
        mixed = {"$and": [self.a], "state": "x"}
        assert Filter(mixed) & self.b == {"$and": [mixed, self.b]}

    def test_in_place_forms_make_a_new_filter(self):
        both = either = self.a
        both &= self.b
        either |= self.b
        assert (both, either) == (self.a & self.b, self.a | self.b)
        assert self.a == {"config.a": 1}

    @pytest.mark.parametrize("wrong", [[], [3], "state", None])
    def test_what_is_no_list_of_filters_stays_to_be_refused(self, wrong: object):
        """Taken apart, an empty list would be a filter that matches every run."""
        for operator in ("$and", "$or"):
            written = {operator: wrong}
            assert filters.all_of(written) == filters.any_of(written) == written
            assert filters.check(filters.all_of(written, self.a))

    def test_an_empty_filter_matches_every_run(self):
        assert Filter() & self.a == self.a
        assert Filter() | self.a == {}
        assert filters.all_of() == {}

    def test_lists_of_conditions(self):
        assert filters.all_of(self.a, self.b) == self.a & self.b
        assert filters.any_of(self.a) == self.a
        with pytest.raises(InvalidRequest, match="no run"):
            filters.any_of()


def test_a_filter_is_a_dict_in_every_way():
    built = (filters.state == "finished") | (lr > 1)
    assert json.loads(json.dumps(built)) == built == pickle.loads(pickle.dumps(built))
    assert type(built.to_dict()) is dict
    assert ExportRequest("e", "p", filters=built).scope == (
        ExportRequest("e", "p", filters=built.to_dict()).scope
    )


def test_runs_takes_a_filter(api: Api, server: DevServer):
    for index in range(3):
        server.seed_run("ann", "trials", f"r{index}", config={"lr": index}, tags=["a"])
    found = api.runs("ann/trials", (lr >= 1) & filters.tags.contains("a"), order="+created_at")
    assert [run.id for run in found] == ["r1", "r2"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: lr > NAN, "no form in JSON"),
        (lambda: lr == [1, -INF], "no form in JSON"),
        (lambda: lr == {1}, "set is not JSON"),
        (lambda: lr == {1: 2}, "key 1 is not text"),
        (lambda: lr >= date(2026, 1, 1), "isoformat"),
        (lambda: lr > None, "no order"),
        (lambda: lr > [1], "no order"),
        (lambda: lr.is_in("abc"), "give a list"),
        (lambda: lr.is_in(3), "give a list"),
        (lambda: lr.matches("("), "no regular expression"),
        (lambda: lr.matches("(?!x)"), "RE2"),
        (lambda: filters.created_at > datetime(2026, 1, 1), "astimezone"),
        (lambda: filters.created_at > 1767225600.0, "HTTP 500"),
        (lambda: filters.created_at > "yesterday", "ISO 8601"),
        (lambda: filters.created_at > "0001-01-01T00:00:00+05:00", "years 1 to 9999 in UTC"),
        (lambda: filters.created_at > datetime.min.replace(tzinfo=CEST), "createdAt: .*range"),
        (lambda: filters.created_at == True, "no time"),  # noqa: E712  # builds a condition
        (lambda: filters.tags == ["a", "b"], "is_in"),
        (lambda: filters.config(), "name of a key"),
        (lambda: filters.summary(""), "name of a key"),
        (lambda: filters.config("a.b", "c"), "holds a dot"),
        (lambda: filters.state == "finished" & lr > 1, "parentheses"),
        (lambda: lr & (filters.state == "x"), "parentheses"),
        (lambda: filters.state == "x" | filters.tags.contains("a"), "parentheses"),
        (lambda: filters.tags.contains("a") & True, "parentheses"),
    ],
)
def test_what_cannot_be_sent_says_what_to_write(build: Any, message: str):
    with pytest.raises(InvalidRequest, match=message):
        build()
