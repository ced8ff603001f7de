"""What can be chosen for a project's assets and for what is written back to W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict

import dagster as dg

from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.translator import WandbTranslator

if TYPE_CHECKING:
    from pathlib import Path

    from wb_ops.backfill.request import Compute, Policy
    from wb_ops.backfill.targets import Target
    from wb_ops.export.request import OnIncomplete


class WandbOptions(TypedDict, total=False):
    """What both kinds of assets take; described at each."""

    dataset: str | None
    filters: Mapping[str, Any] | None
    max_workers: int
    translator: WandbTranslator | None
    partitions_def: dg.PartitionsDefinition | None
    backfill_policy: dg.BackfillPolicy | None
    deps: Sequence[dg.AssetsDefinition | dg.SourceAsset | dg.AssetKey]
    automation_condition: dg.AutomationCondition[dg.AssetKey] | None
    retry_policy: dg.RetryPolicy | None
    pool: str | None
    op_tags: Mapping[str, Any] | None


class WandbAssetOptions(WandbOptions, total=False):
    """Options of `build_wandb_assets` and `@wandb_assets`; each can be left out.

    Attributes:
        dataset, tables, filters, states, keys, on_incomplete, redact_secrets, max_workers: as
            ExportRequest. Each of `tables` is an asset; `system_metrics` costs a request a run
            and has to be asked for.
        name: the op's name, by default `<dataset>_export`, or the decorated function's.
        translator: names and describes the assets; its `partitions_def` is kept.
        partitions_def: `created_days(...)` or other time windows: the runs created in them.
            `run_partitions(...)` or other keys: the runs of these ids. Default: all runs.
        backfill_policy: by default one run for a range of windows, one for 50 run ids.
        deps: assets to wait for or to follow, such as `build_wandb_changes(...)`.
        automation_condition: such as `late_data_condition()`.
        checks: which checks the assets have; `WandbChecks()` by default.
        main_metric: the metric drawn on the page of `history`, as logged; by default a likely
            one. "" draws none.
        retry_policy: for errors that a later attempt can cure and that name no wait;
            `DEFAULT_RETRY_POLICY`.
        pool: "wandb_api"; its limit is how many steps may talk to W&B at once.
        op_tags: tags of the op, such as `dagster-k8s/config`.
    """

    tables: Sequence[str]
    states: Sequence[str] | None
    keys: Sequence[str] | None
    on_incomplete: OnIncomplete
    redact_secrets: bool
    name: str | None
    checks: WandbChecks | None
    main_metric: str | None


class WandbBackfillOptions(WandbOptions, total=False):
    """Options of `build_wandb_backfill_asset`; each can be left out, but for one source of values.

    Attributes:
        sql, compute, file: as BackfillRequest; exactly one of them. A recipe (`best("val_acc")`)
            is a `compute`. `file` is a path that the step's process can read.
        dataset, target, filters, policy, include_running, include_incomplete, safe, max_changes,
            max_workers: as BackfillRequest. `max_changes` bounds each step.
        translator: as in `WandbAssetOptions`.
        partitions_def: as in `WandbAssetOptions`: a step then writes to the runs created in its
            windows, or to those of its ids, and to no others.
        backfill_policy: as in `WandbAssetOptions`.
        deps: assets to wait for beside `runs` and `history`.
        automation_condition: such as `late_data_condition()`.
        retry_policy: as in `WandbAssetOptions`.
        pool: "wandb_write"; its limit is how many steps may write to W&B at once.
        op_tags: as in `WandbAssetOptions`.
    """

    sql: str | None
    compute: Compute | None
    file: str | Path | None
    target: Target
    policy: Policy
    include_running: bool
    include_incomplete: bool
    safe: bool
    max_changes: int | None


def refuse_unknown(options: Mapping[str, Any], known: type) -> None:
    """Raise for an option that `known`, a TypedDict, does not have.

    Raises:
        DagsterInvalidDefinitionError: it names the options and those that there are.
    """
    if unknown := sorted(options.keys() - known.__annotations__.keys()):
        there = ", ".join(known.__annotations__)
        raise dg.DagsterInvalidDefinitionError(
            f"There is no option {', '.join(unknown)}. There are: {there}."
        )


def for_request(options: Mapping[str, Any], request: type) -> dict[str, Any]:
    """The options that a request (a dataclass) has; None is "not said", as in YAML."""
    names = {one.name for one in fields(request)}
    return {k: value for k, value in options.items() if k in names and value is not None}
