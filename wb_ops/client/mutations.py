"""The one GraphQL mutation that is ever sent: it changes fields of runs.

Source: captured from SDK 0.31.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wb_ops.client.operations import Operation

# One GraphQL field of a run -> its type in UpsertBucketInput.
_UPSERT_TYPES = {
    "id": "String",
    "summaryMetrics": "JSONString",
    "config": "JSONString",
    "tags": "[String!]",
    "notes": "String",
    "description": "String",
    "displayName": "String",
    "groupName": "String",
    "jobType": "String",
}


# Fields that have the same name when they are read.
WATCHED_FIELDS = frozenset({"summaryMetrics", "config", "tags", "notes"})


def upsert_buckets(changes: Sequence[Mapping[str, object]], *, watch: bool = False) -> Operation:
    """Build one mutation that changes many runs; each change has `id` and the changed fields.

    Only the fields that are given are sent: a field left out stays as it is, a field that is
    sent replaces the server's whole value. With `watch`, each run is first "changed" in no field,
    as `before0`, `before1`, ...: its answer is what the change then replaces.
    """
    declared: list[str] = []
    selected: list[str] = []
    variables: dict[str, object] = {}
    for index, change in enumerate(changes):
        inputs = []
        for name, value in change.items():
            variable = f"{name}{index}"
            declared.append(f"${variable}: {_UPSERT_TYPES[name]}")
            inputs.append(f"{name}: ${variable}")
            variables[variable] = value
        if watch:
            seen = " ".join(name for name in change if name in WATCHED_FIELDS)
            unchanged = f"upsertBucket(input: {{id: $id{index}}}) {{ bucket {{ id {seen} }} }}"
            selected.append(f"  before{index}: {unchanged}")
        fields = ", ".join(inputs)
        selected.append(f"  run{index}: upsertBucket(input: {{{fields}}}) {{ bucket {{ id }} }}")
    document = f"mutation UpsertBucket({', '.join(declared)}) {{\n" + "\n".join(selected) + "\n}"
    return Operation("UpsertBucket", document, variables, is_write=True)
