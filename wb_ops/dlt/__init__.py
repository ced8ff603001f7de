"""A dlt source: W&B runs for every destination that dlt reaches.

In:  a project. Out: Arrow tables for dlt's merge, whole runs at a time.
May import: every layer but the other wrappers. dlt is imported here and nowhere else.
"""

from wb_ops.dlt.source import wandb_source

__all__ = ["wandb_source"]
