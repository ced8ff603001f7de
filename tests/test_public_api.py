"""The public names: a name that leaks or is lost fails here."""

from __future__ import annotations

import inspect

import pytest

import wb_ops

NAMES = [
    "Advice",
    "AdviceKind",
    "Api",
    "AuthenticationFailed",
    "BackfillPlan",
    "BackfillReport",
    "BackfillRequest",
    "CommError",
    "ConnectionFailed",
    "ExportIncomplete",
    "ExportPlan",
    "ExportReport",
    "ExportRequest",
    "IncompleteHistory",
    "InvalidRequest",
    "MalformedResponse",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "Run",
    "Runs",
    "ServerUnavailable",
    "Warehouse",
    "WarehouseBusy",
    "WarehouseError",
    "WarehouseRefused",
    "WarehouseUnavailable",
    "WbOpsError",
    "connect",
    "execute_backfill",
    "execute_export",
    "execute_shard",
    "load_plan",
    "commit_plan",
    "Shard",
    "ShardResult",
    "plan_backfill",
    "plan_export",
    "write_backfill",
]


def test_the_public_names_are_these():
    assert sorted(wb_ops.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str):
    assert inspect.getdoc(getattr(wb_ops, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'runs_of_the_mill'"):
        _ = wb_ops.runs_of_the_mill
