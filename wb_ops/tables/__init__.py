"""Run and history data as Arrow tables with fixed schemas.

What enters: the server's JSON (runs, live history rows) and history parquet as Arrow tables.
What leaves: `pyarrow` tables in the canonical schemas of `tables.schemas`.
May import: `wb_ops.errors`, pyarrow, numpy. Nothing here touches a network, a file or a clock.
"""
