"""What is told at the end of a pipeline's load: dlt itself asks nobody then."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import wraps
from typing import Any

from wb_ops.dlt.counted import find_damaged_now
from wb_ops.dlt.pipelines import active_pipeline, package_id
from wb_ops.dlt.proof import Key
from wb_ops.errors import InvalidRequest, WarehouseBusy
from wb_ops.warehouse.base import BUSY_RETRY_S

_NAMED_RUNS = 5


def refuse_second_source() -> None:
    """Refuse another source in one package of dlt: both would give the same runs.

    Raises:
        InvalidRequest: one has been extracted into this package (retry: never).
    """
    pipeline = active_pipeline()
    told = None if pipeline is None else vars(pipeline).get("load")
    if told is not None and told.package == package_id():
        raise InvalidRequest(
            "Two wandb_source in one pipeline.run: give each a pipeline.run of its own, and one "
            "project to each dataset_name."
        )


def tell_after_load(error: Exception | None, given: Set[Key], before: Set[Key]) -> None:
    """Let the pipeline load what was extracted; at the end raise what is to be told.

    That is `error`, for dlt throws a package away whose extraction fails; and, before it, that
    the destination does not hold what loads gave.

    Args:
        error: what stopped the export, or makes it incomplete.
        given: the receipts of this load, by run and table.
        before: those that were not as they were given when this export began.
    """
    pipeline = active_pipeline()
    if pipeline is None:
        if error is not None:
            raise error
        return
    # Of an extraction that failed, and was never loaded.
    vars(pipeline).pop("load", None)
    load: Callable[..., Any] = pipeline.load

    @wraps(load)
    def load_and_tell(*args: Any, **options: Any) -> Any:
        vars(pipeline).pop("load", None)  # the class's own one is back for the next load
        info = load(*args, **options)
        try:
            if error is not None:
                raise error
        finally:  # the error is the context of what is raised here
            _check(pipeline, given, before - given)
        return info

    load_and_tell.package = package_id()  # type: ignore[attr-defined]
    pipeline.load = load_and_tell


def _check(pipeline: Any, given: Set[Key], known: Set[Key]) -> None:
    # A load that gave nothing has hurt nothing.
    damaged = find_damaged_now(pipeline) - known if given else set()
    hurt = sorted({run_id for run_id, _ in damaged})
    if not hurt:
        return
    more = f" and {len(hurt) - _NAMED_RUNS} more" if len(hurt) > _NAMED_RUNS else ""
    raise WarehouseBusy(
        f"Another load wrote the dataset {pipeline.dataset_name!r} at the same time: rows of "
        f"{len(hurt)} runs are lost, double or older than what was loaded "
        f"({', '.join(hurt[:_NAMED_RUNS])}{more}). Load again, one load at a time: the next load "
        "reads these runs again.",
        retry_after_s=BUSY_RETRY_S,
        path=pipeline.dataset_name,
    )
