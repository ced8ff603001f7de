"""Folders of files as a warehouse: parquet parts or Delta tables, and manifests that commit them.

In:  batches. Out: files that no reader sees before a manifest names them, and tables read back.
May import: errors, tables, the warehouse package. fsspec, deltalake and duckdb where they are used.
"""
