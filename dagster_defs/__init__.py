"""A deployable Dagster code location: `dagster dev -m dagster_defs.definitions`.

In:  environment variables. Out: Definitions. May import: wb_ops.dagster and dagster, nothing else.
"""
