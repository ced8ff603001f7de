"""What is told at the end of a pipeline's load: dlt itself asks nobody then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import update_wrapper
from itertools import pairwise
from typing import Any

from wb_ops.dlt.counted import find_damaged_since
from wb_ops.dlt.pipelines import active_pipeline, package_id
from wb_ops.dlt.proof import Key
from wb_ops.errors import InvalidRequest, WarehouseBusy
from wb_ops.warehouse.base import BUSY_RETRY_S

log = logging.getLogger("wb_ops")

_NAMED_RUNS = 5


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to be told of one package of dlt once it is loaded.

    Attributes:
        error: what stopped the export, or makes it incomplete.
        gives_rows: whether the package gives anything that is counted.
        already_damaged: the receipts, by run and table, that were hurt when the export began.
        finished_before: the loads that had finished then.
    """

    error: Exception | None
    gives_rows: bool
    already_damaged: AbstractSet[Key]
    finished_before: AbstractSet[str]


class LoadTeller:
    """Stands before a pipeline's `load` as long as one of `packages` waits to be loaded."""

    def __init__(self, pipeline: Any) -> None:
        self.packages: dict[str, Expected] = {}
        self._pipeline = pipeline
        self._load = pipeline.load
        # Another one's, if it is not the class's.
        self._instead_of = vars(pipeline).get("load")
        update_wrapper(self, self._load)

    def __call__(self, *args: Any, **options: Any) -> Any:
        info = self._load(*args, **options)
        loaded = self._take_loaded()
        if not self.packages:
            self._stand_back()
        errors = [one.error for one in loaded.values() if one.error is not None]
        if busy := _find_busy(self._pipeline, loaded):
            errors.append(busy)
        _raise_last(errors)
        return info

    def _take_loaded(self) -> dict[str, Expected]:
        """Take the packages that are loaded; forget those that dlt has thrown away."""
        pipeline = self._pipeline
        done = set(pipeline.list_completed_load_packages())
        waiting = {
            *pipeline.list_extracted_load_packages(),
            *pipeline.list_normalized_load_packages(),
        }
        over = {name: one for name, one in self.packages.items() if name not in waiting}
        self.packages = {name: one for name, one in self.packages.items() if name in waiting}
        return {
            name: one
            for name, one in over.items()
            if name in done and pipeline.get_load_package_info(name).state == "loaded"
        }

    def _stand_back(self) -> None:
        own = vars(self._pipeline)
        if own.get("load") is not self:
            return
        del own["load"]
        if self._instead_of is not None:
            own["load"] = self._instead_of


def refuse_second_source() -> None:
    """Refuse another source in one package of dlt: both would give the same runs.

    Raises:
        InvalidRequest: one has been extracted into this package (retry: never).
    """
    teller = _find_teller(active_pipeline())
    if teller is not None and package_id() in teller.packages:
        raise InvalidRequest(
            "Two wandb_source in one pipeline.run: give each a pipeline.run of its own, and one "
            "project to each dataset_name."
        )


def tell_after_load(expected: Expected) -> None:
    """Let the pipeline load what was extracted; at the end raise what is to be told.

    That is the export's error, for dlt throws a package away whose extraction fails; and, before
    it, that the destination does not hold what loads gave.
    """
    pipeline, package = active_pipeline(), package_id()
    if pipeline is None or package is None:
        if expected.error is not None:
            raise expected.error
        return
    teller = _find_teller(pipeline)
    if teller is None:
        teller = LoadTeller(pipeline)
        pipeline.load = teller
    teller.packages[package] = expected


def _find_teller(pipeline: Any) -> LoadTeller | None:
    own = None if pipeline is None else vars(pipeline).get("load")
    return own if isinstance(own, LoadTeller) else None


def _raise_last(errors: Sequence[Exception]) -> None:
    for former, latter in pairwise(errors):
        latter.__context__ = former
    if errors:
        raise errors[-1]


def _find_busy(pipeline: Any, loaded: Mapping[str, Expected]) -> WarehouseBusy | None:
    # A load that gave nothing has hurt nothing.
    giving = {name: one for name, one in loaded.items() if one.gives_rows}
    if not giving:
        return None
    before = frozenset.intersection(*(frozenset(one.finished_before) for one in giving.values()))
    try:
        damaged = find_damaged_since(pipeline, giving.keys(), before)
    except Exception as exc:
        # dlt gives what drivers raise as its own only where they execute, not where they fetch, and
        # each driver has classes of its own. The load has finished: none of that may fail it.
        log.warning("this load could not be counted now (%s); the next load does it", exc)
        return None
    known = {key for one in giving.values() for key in one.already_damaged}
    hurt = sorted({run_id for run_id, _ in damaged - known})
    if not hurt:
        return None
    more = f" and {len(hurt) - _NAMED_RUNS} more" if len(hurt) > _NAMED_RUNS else ""
    return WarehouseBusy(
        f"Rows of {len(hurt)} runs in the dataset {pipeline.dataset_name!r} are lost, double or "
        f"older than what was loaded ({', '.join(hurt[:_NAMED_RUNS])}{more}), mostly by another "
        "load at the same time. Load again, one load at a time: the next load reads these runs "
        "again.",
        retry_after_s=BUSY_RETRY_S,
        path=pipeline.dataset_name,
    )
