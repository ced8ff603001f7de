"""An export over many workers: plan, one task for each shard, commit.

What goes through XCom is where the plan is, which part of it, and counts. The rows go through the
plan's folder.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.sdk import XComArg
from airflow.sdk.exceptions import AirflowFailException

import wb_ops
from wb_ops.airflow.links import WandbLoadLink, WandbProjectLink
from wb_ops.airflow.operators.arguments import parse_count, parse_shard
from wb_ops.airflow.operators.base import TakesWarehouse, WandbOperator
from wb_ops.airflow.operators.export import WandbExportRequestOperator
from wb_ops.airflow.operators.filter_runs import max_map_length
from wb_ops.airflow.operators.loads import remember_load
from wb_ops.airflow.operators.outcomes import AnnouncesExport, check_outlets
from wb_ops.errors import ExportIncomplete

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from wb_ops.export import ExportPlan

log = logging.getLogger("wb_ops")

PLAN_URI_KEY = "plan_uri"
RUNS_PER_SHARD = 100
# Airflow renders it when the work is done: what it cannot render would fail the task then. A
# shard given as JSON text is text there, and has the index that Airflow shows by itself.
SHARD_OF_SHARDS = (
    "{% if task.shard is mapping %}{{ task.shard.shard + 1 }} of {{ task.shard.shards }}"
    "{% else %}{{ ti.map_index }}{% endif %}"
)


class WandbPlanExportOperator(WandbExportRequestOperator):
    """Plans an export and splits it into shards, for `WandbExportShardOperator.expand(shard=)`.

    Returns (as XCom) a list of {"plan_uri", "shard", "shards"}: part `shard` of `shards`, counted
    from 0. It is empty where no history has to be read: Airflow skips what is mapped over it, and
    the commit does the rest. There are never more shards than Airflow maps over ([core]
    max_map_length, 1,024): beyond that each holds more runs. `plan_uri` is an XCom of its own,
    for the commit.

    A task that is killed or retried goes on with its listing.

    Args:
        staging: a folder that all workers reach: a path, or a URL that fsspec knows, such as
            s3://bucket/wandb-staging. No secret: it is shown in the UI.
        runs_per_shard: how many histories a shard reads, about.
        mode, keys, tables, states, run_ids, redact_secrets, since, until, window, on_incomplete: as
            in WandbExportRequestOperator.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (
        *WandbExportRequestOperator.template_fields,
        "staging",
        "runs_per_shard",
    )

    def __init__(
        self, *, staging: str, runs_per_shard: int | str = RUNS_PER_SHARD, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.staging = staging
        self.runs_per_shard = runs_per_shard

    @property
    def plan_uri(self) -> XComArg:
        """Where the plan will be, for `WandbCommitExportOperator(plan_uri=...)`."""
        return XComArg(self, key=PLAN_URI_KEY)

    def _work(self, context: Context) -> list[dict[str, Any]]:
        runs_per_shard = parse_count("runs_per_shard", self.runs_per_shard, 1) or RUNS_PER_SHARD
        with self.hook.get_conn() as api:
            request = self._request(api, context)
            for commit in self._commits():
                check_outlets(commit, request.entity, request.project)
            warehouse = self._open_warehouse()
            plan = wb_ops.plan_export(request, api, warehouse, folder=self.staging)
        self.log.info("%s", plan)
        context["ti"].xcom_push(key=PLAN_URI_KEY, value=plan.uri)
        return _shards(plan, runs_per_shard)

    def _commits(self) -> list[WandbCommitExportOperator]:
        """What will announce the plan: the tasks after this one that commit."""
        found = self.get_flat_relatives(upstream=False)
        return [task for task in found if isinstance(task, WandbCommitExportOperator)]


def _shards(plan: ExportPlan, runs_per_shard: int) -> list[dict[str, Any]]:
    wanted = max(1, -(-plan.totals.readers // runs_per_shard))
    longest = max_map_length()
    if wanted > longest:
        log.warning(
            "%d shards of %d runs are more than Airflow maps over: %d larger ones it is",
            wanted,
            runs_per_shard,
            longest,
        )
    shards = plan.shards(min(wanted, longest))
    return [{"plan_uri": plan.uri, "shard": s.index, "shards": s.count} for s in shards]


class WandbExportShardOperator(WandbOperator):
    """Reads one shard of a plan from W&B into the plan's folder; needs no warehouse.

    A task that is killed or retried goes on after what it has staged.

    Returns (as XCom) counts: index, count, runs, history_rows, failed, requests, size_bytes.

    Args:
        shard: an element of what WandbPlanExportOperator returns, or JSON text of one.
        map_index_template: as in BaseOperator; by default such as "3 of 8". Airflow before 3.3
            takes no defaults of a signature for mapped tasks: it shows the index from 0 there,
            unless the template is given to .partial().

    Raises:
        InvalidRequest: `shard` is no such element (retry: never).
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (*WandbOperator.template_fields, "shard")
    template_fields_renderers: ClassVar[dict[str, str]] = {"shard": "json"}

    def __init__(
        self,
        *,
        shard: Mapping[str, Any] | str | XComArg,
        map_index_template: str | None = SHARD_OF_SHARDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.shard = shard

    def _work(self, context: Context) -> dict[str, Any]:
        # Airflow has rendered it: an XComArg is the value that it stands for.
        plan_uri, shard = parse_shard(cast("Mapping[str, Any] | str", self.shard))
        request = wb_ops.load_plan(plan_uri).request
        with self.hook.get_conn() as api:
            self._link(api, request.entity, request.project, context)
            result = wb_ops.execute_shard(plan_uri, shard, api)
        self.log.info("%s", result)
        return asdict(result)


class WandbCommitExportOperator(AnnouncesExport, TakesWarehouse):
    """Writes what the shards of a plan have staged into the warehouse.

    Refuses while shards are missing. Runs that changed since the plan are left to the next export.
    A commit that is killed or repeated writes nothing twice, and a repeated one that had failed
    fails again. Returns, announces and reports what WandbExportOperator does. After a commit that
    raises no error the plan's folder is emptied, but for a few small files that say that it is
    done.

    Args:
        plan_uri: the planning task's `.plan_uri`.
        warehouse: as in WandbWarehouseOperator; the one that was planned for.
        trigger_rule: as in BaseOperator; here it also runs where there was no shard to read.

    Raises:
        InvalidRequest: shards are missing (retry: never).
        AirflowFailException: some runs do not add up and the plan was made with
            on_incomplete="fail"; everything else is committed.
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (*TakesWarehouse.template_fields, "plan_uri")
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbProjectLink(), WandbLoadLink())

    def __init__(
        self,
        *,
        plan_uri: str | XComArg,
        trigger_rule: str = "none_failed",
        **kwargs: Any,
    ) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)
        self.plan_uri = plan_uri

    def _work(self, context: Context) -> dict[str, Any]:
        self._link_load(context)
        plan_uri = str(self.plan_uri)
        plan = wb_ops.load_plan(plan_uri)
        owner = plan.request.owner
        check_outlets(self, owner.entity, owner.project)
        warehouse = self._open_warehouse()
        remember_load(self, context, plan.load_id)
        with self.hook.get_conn() as api:
            self._link(api, owner.entity, owner.project, context)
            try:
                report = wb_ops.commit_plan(plan_uri, api, warehouse)
            except ExportIncomplete as error:
                # Everything sound is committed; the commit's own retry would only say so.
                raise AirflowFailException(f"{error}; the next export reads them again") from error
        return self._announce(context, api, plan, report, warehouse)
