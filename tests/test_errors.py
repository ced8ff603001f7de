"""Every error has one advice and keeps its facts through a pickle."""

from __future__ import annotations

import pickle

import pytest

from wb_ops import errors
from wb_ops.errors import Advice, AdviceKind, WbOpsError, find_error, mildest

KINDS = {
    "RateLimited": "after",
    "ServerUnavailable": "backoff",
    "ConnectionFailed": "backoff",
    "RequestTimeout": "backoff",
    "MalformedResponse": "backoff",
    "OutcomeUnknown": "verify",
    "AuthenticationFailed": "never",
    "PermissionDenied": "never",
    "NotFound": "never",
    "InvalidRequest": "never",
    "IncompleteHistory": "backoff",
    "WarehouseUnavailable": "backoff",
    "WarehouseBusy": "after",
    "WarehouseRefused": "never",
}


def subclasses(cls: type) -> set[type]:
    return {cls, *(found for child in cls.__subclasses__() for found in subclasses(child))}


LEAVES = sorted(
    (cls for cls in subclasses(WbOpsError) if not cls.__subclasses__()), key=lambda c: c.__name__
)


def test_the_table_names_every_error():
    assert {cls.__name__ for cls in LEAVES} == {*KINDS, "ExportIncomplete"}
    assert all(name in errors.__doc__ for name in KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_each_class_has_its_advice(name: str):
    error = getattr(errors, name)("it failed", retry_after_s=7.0)
    assert error.advice.kind == KINDS[name]
    assert error.advice.seconds == (7.0 if KINDS[name] == "after" else None)


def test_a_limit_without_a_wait_backs_off():
    assert errors.RateLimited("slow down").advice == Advice(AdviceKind.BACKOFF)


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_facts_survive_a_pickle(cls: type[WbOpsError]):
    error = cls("it failed", operation="Runs", path="a/b", http_status=500, attempts=3)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.facts, copy.advice) == (
        cls, "it failed", error.facts, error.advice,
    )  # fmt: skip


def test_an_incomplete_export_takes_the_mildest_advice_that_helps():
    never, backoff = Advice(AdviceKind.NEVER), Advice(AdviceKind.BACKOFF)
    waits = [Advice(AdviceKind.AFTER, 3.0), Advice(AdviceKind.AFTER, 9.0)]
    assert mildest([never, never]) == never
    assert mildest([never, backoff]) == backoff
    assert mildest([never, backoff, *waits]) == waits[1]
    copy = pickle.loads(pickle.dumps(errors.ExportIncomplete("3 runs", [backoff])))
    assert copy.advice == backoff


def test_the_error_is_found_behind_what_wraps_it():
    ours = errors.NotFound("gone")
    wrapped = RuntimeError("step failed")
    wrapped.__cause__ = ValueError("in between")
    wrapped.__cause__.__cause__ = ours
    assert find_error(wrapped) is ours
    assert find_error(RuntimeError("a bug")) is None


def test_a_bug_while_handling_our_error_is_not_ours():
    bug = KeyError("typo")
    bug.__context__ = errors.RateLimited("slow down")
    assert find_error(bug) is None
