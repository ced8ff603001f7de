"""The name of a project's dataset."""

from __future__ import annotations

from wb_ops.tables.names import assign_names


def dataset_name(entity: str, project: str) -> str:
    """Return the schema name for a W&B project: `my-team/my-project` -> `my_team__my_project`.

    The rule is that of columns. Two projects that differ only in such signs get the same name;
    the second one is then refused by its owner check and needs a name of its own.
    """
    path = f"{entity}/{project}"
    return assign_names([path], {}, ())[path]


def chosen_dataset(dataset: str | None, entity: str, project: str) -> str:
    """Return the schema name that was asked for, or else that of the project, in lower case."""
    # Warehouses disagree about whether case tells names apart.
    return (dataset or dataset_name(entity, project)).lower()
