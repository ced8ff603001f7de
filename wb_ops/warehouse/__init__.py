"""Where the tables live: one dataset (schema) for each W&B project.

In:  Arrow tables in the canonical schemas. Out: committed rows, and tables read back.
May import: errors, tables. A driver is imported only in its own module.
"""

from wb_ops.warehouse.base import Batch, Committed, Owner, Warehouse
from wb_ops.warehouse.connect import connect
from wb_ops.warehouse.datasets import chosen_dataset, dataset_name

__all__ = ["Batch", "Committed", "Owner", "Warehouse", "chosen_dataset", "connect", "dataset_name"]
