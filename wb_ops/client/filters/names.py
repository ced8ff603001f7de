"""The fields, operators and states that W&B's run filters know.

Source: docstring of `Api.runs` in W&B's SDK 0.31 (fields, operators); `heartbeatAt`, `updatedAt`,
`sweep` and the snake_case names are used by W&B's own clients.
"""

from __future__ import annotations

from types import MappingProxyType

TIME_FIELDS = frozenset({"createdAt", "heartbeatAt", "updatedAt"})
TEXT_FIELDS = frozenset(
    {"displayName", "group", "host", "jobType", "name", "state", "sweep", "username"}
)
FIELDS = TIME_FIELDS | TEXT_FIELDS | {"duration", "tags"}
SNAKE_CASE = MappingProxyType(
    {
        "created_at": "createdAt",
        "display_name": "displayName",
        "heartbeat_at": "heartbeatAt",
        "job_type": "jobType",
        "updated_at": "updatedAt",
    }
)

CONFIG = "config"
SUMMARY = "summary_metrics"
# How many dots a key may hold and still be found. Source: W&B's guide on config and summary names.
MAX_DOTS = MappingProxyType({CONFIG: 3, SUMMARY: 4})

LOGIC = frozenset({"$and", "$or", "$nor"})
ORDERINGS = frozenset({"$gt", "$gte", "$lt", "$lte"})
MEMBERSHIP = frozenset({"$in", "$nin"})
COMPARISONS = ORDERINGS | MEMBERSHIP | {"$eq", "$ne", "$exists", "$regex"}
# Not in W&B's list, yet MongoDB has it and servers have been seen to take it.
UNDOCUMENTED = frozenset({"$not"})
OPERATORS = COMPARISONS | LOGIC | UNDOCUMENTED

STATES = frozenset(
    {"running", "finished", "failed", "crashed", "killed", "pending", "preempting", "preempted"}
)


def canonical(name: str) -> str | None:
    """Return the wire name of a run field, or None where W&B has no such field."""
    known = SNAKE_CASE.get(name, name)
    return known if known in FIELDS else None
