"""Filters on runs: built as Python expressions, checked before they are sent, evaluated here.

In:  comparisons, or a MongoDB-style dict. Out: the dict that the server takes, findings, a bool.
May import: errors, settings, tables. Loads no pandas and no pyarrow.

Example:
    >>> from wb_ops import filters
    >>> (filters.state == "finished") & (filters.config("lr") > 0.1)
    {'$and': [{'state': 'finished'}, {'config.lr': {'$gt': 0.1}}]}
"""

from __future__ import annotations

from wb_ops.client.filters.builder import (
    Field,
    Filter,
    TagsField,
    TimeField,
    all_of,
    any_of,
    config,
    summary,
)
from wb_ops.client.filters.check import check, require_valid
from wb_ops.client.filters.evaluate import matches
from wb_ops.client.filters.findings import Finding, Severity
from wb_ops.client.filters.node import RunValues, run_node

run_id = Field("name")
display_name = Field("displayName")
state = Field("state")
group = Field("group")
job_type = Field("jobType")
username = Field("username")
sweep = Field("sweep")
host = Field("host")
tags = TagsField("tags")
created_at = TimeField("createdAt")
heartbeat_at = TimeField("heartbeatAt")
updated_at = TimeField("updatedAt")
duration_s = Field("duration")

__all__ = [
    "Field",
    "Filter",
    "Finding",
    "RunValues",
    "Severity",
    "TagsField",
    "TimeField",
    "all_of",
    "any_of",
    "check",
    "config",
    "created_at",
    "display_name",
    "duration_s",
    "group",
    "heartbeat_at",
    "host",
    "job_type",
    "matches",
    "require_valid",
    "run_id",
    "run_node",
    "state",
    "summary",
    "sweep",
    "tags",
    "updated_at",
    "username",
]
