"""Computed values back into W&B summaries: in one task, or as a plan that is approved first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import wb_ops
from wb_ops.airflow.operators.arguments import parse_count, parse_filters, parse_flag
from wb_ops.airflow.operators.backfill_outcomes import execute_plan
from wb_ops.airflow.operators.base import TakesWarehouse, WandbWarehouseOperator
from wb_ops.airflow.operators.plan_documents import load_stored_plan, store_plan
from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from wb_ops.backfill import BackfillPlan
    from wb_ops.backfill.request import Compute, Policy
    from wb_ops.backfill.targets import Target
    from wb_ops.client.api import Api
    from wb_ops.client.runs import Run
    from wb_ops.warehouse import Warehouse


class WandbBackfillRequestOperator(WandbWarehouseOperator):
    """Base of the operators that compute values per run: where the values come from.

    Args:
        sql: a SELECT of `run_id` and a column for each summary key, on the warehouse's dataset;
            text, or the name of a .sql file.
        python_callable: instead of `sql`: takes a run, returns a dict of summary keys; a recipe
            (`wb_ops.backfill.best("val_acc")`) is one.
        recipe: instead of `sql`: a recipe as text, such as `best("val_acc", mode="max")`; the
            metric's whole history is read from W&B, so no export is needed before.
        policy: "overwrite", "only_missing" or "overwrite_if_older"; see BackfillRequest.
        file: instead of `sql`: a CSV or parquet file with the columns that `sql` would return, on
            a path that the worker reads.
        target: what the keys are: of the "summary" or the "config", "tags" or "notes"; see
            BackfillRequest.
        include_running: also write to runs that still log.
        include_incomplete: also write values that come of an incomplete or outdated history.
        safe: one run at a time instead of 25.
        max_changes: write nothing and fail if more values than this would be written.
    """

    template_fields: Sequence[str] = (
        *WandbWarehouseOperator.template_fields,
        "sql",
        "recipe",
        "policy",
        "file",
        "target",
        "include_running",
        "include_incomplete",
        "safe",
        "max_changes",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json", "sql": "sql"}

    def __init__(
        self,
        *,
        sql: str | None = None,
        python_callable: Callable[[Run], Mapping[str, Any]] | None = None,
        recipe: str | None = None,
        policy: str = "overwrite",
        file: str | None = None,
        target: str = "summary",
        include_running: bool | str = False,
        include_incomplete: bool | str = False,
        safe: bool | str = False,
        max_changes: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.python_callable = python_callable
        self.recipe = recipe
        self.policy = policy
        self.file = file
        self.target = target
        self.include_running = include_running
        self.include_incomplete = include_incomplete
        self.safe = safe
        self.max_changes = max_changes

    def _plan(self, api: Api, context: Context) -> tuple[BackfillPlan, Warehouse]:
        """Return the plan, and the warehouse that it was made with."""
        entity, project = self._resolve_project(api, context)
        request = wb_ops.BackfillRequest(
            entity=entity,
            project=project,
            sql=self.sql,
            compute=self._compute(),
            dataset=self.dataset or None,
            filters=parse_filters(self.filters),
            # Templates are any text; BackfillRequest refuses what is not one of its words.
            policy=cast("Policy", self.policy),
            file=self.file or None,
            target=cast("Target", self.target),
            include_running=parse_flag("include_running", self.include_running),
            include_incomplete=parse_flag("include_incomplete", self.include_incomplete),
            safe=parse_flag("safe", self.safe),
            max_changes=parse_count("max_changes", self.max_changes, 0),
        )
        warehouse = self._open_warehouse()
        plan = wb_ops.plan_backfill(request, api, warehouse)
        self.log.info("%s", plan)
        return plan, warehouse

    def _compute(self) -> Compute | None:
        # Here: a Dag file is parsed often, and needs no recipe for that.
        from wb_ops.backfill import parse_recipe

        if not self.recipe:
            return self.python_callable
        if self.python_callable is not None:
            raise InvalidRequest("Give one of python_callable and recipe.")
        return parse_recipe(self.recipe)


class WandbPlanBackfillOperator(WandbBackfillRequestOperator):
    """Computes values per run and compares them with the runs' summaries; writes nothing to W&B.

    The plan goes into a file of the staging folder, which stays as the record of what was planned.
    Returns (as XCom) a small dict for a WandbApplyBackfillOperator: plan_uri and sha256 of that
    file, backfill_id, entity, project, dataset, target, planned (action -> count), and `table`,
    the first values in Markdown for whoever approves it, with those that are not written and why.

    Args:
        staging: a folder that all workers reach: a path, or a URL that fsspec knows, such as
            s3://bucket/wandb-staging. No secret: it is shown in the UI.
        sql, python_callable, recipe, file, policy, target, include_running, include_incomplete,
            safe, max_changes: as in WandbBackfillRequestOperator.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (*WandbBackfillRequestOperator.template_fields, "staging")

    def __init__(self, *, staging: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.staging = staging

    def _work(self, context: Context) -> dict[str, Any]:
        with self.hook.get_conn() as api:
            plan, _ = self._plan(api, context)
            return store_plan(plan, self.staging)


class WandbBackfillSummaryOperator(WandbBackfillRequestOperator):
    """Computes values per run and writes them into the runs' summaries.

    The plan (run, key, old value, new value) is logged before anything is written. Values that
    are already there are not written again, so a retried task converges.

    Returns (as XCom) a small dict: backfill_id, dry_run, planned (action -> count), and the
    number of values written, unchanged, skipped, conflicts, gone, failed (refused by the server),
    not_sent (an error came before their turn), unverified (not what is read back), repaired (of
    others, put back), owed (of others, not put back: resume) and rewritten (lost and written
    again), and of runs changed. Where values are failed or unverified the task fails, and the XCom
    `backfill_report` has these counts instead.

    Args:
        sql, python_callable, recipe, file, policy, target, include_running, include_incomplete,
            safe, max_changes: as in WandbBackfillRequestOperator.
        dry_run: plan and log, write nothing; true, false, or a template of them.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    # BaseOperator has a method dry_run, so the attribute needs another name than the argument.
    template_fields: Sequence[str] = (*WandbBackfillRequestOperator.template_fields, "is_dry_run")

    def __init__(self, *, dry_run: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_dry_run = dry_run

    def _work(self, context: Context) -> dict[str, Any]:
        is_dry_run = parse_flag("dry_run", self.is_dry_run)
        with self.hook.get_conn() as api:
            plan, warehouse = self._plan(api, context)
            if is_dry_run:
                return {"backfill_id": plan.backfill_id, "dry_run": True, "planned": plan.counts}
            return {
                "dry_run": False,
                "planned": plan.counts,
                **execute_plan(self, plan, api, warehouse, context),
            }


class WandbApplyBackfillOperator(TakesWarehouse):
    """Writes what a WandbPlanBackfillOperator planned, and nothing else.

    A value that somebody changed since the plan was made is a conflict and is left alone. A plan
    whose file was changed since is refused. A task that is killed or retried converges.

    Returns (as XCom) a small dict: backfill_id, and the number of values written, unchanged,
    skipped, conflicts, gone, failed, not_sent, unverified, repaired, owed and rewritten, and of
    runs, as WandbBackfillSummaryOperator does, with the same `backfill_report`. How it writes
    (`safe`, `max_changes`) is in the plan.

    Args:
        plan: the planning task's `.output`, or JSON text of it.
        warehouse: as in WandbWarehouseOperator; the one that was planned with keeps the journal.

    Raises:
        InvalidRequest: `plan` is no plan, or its file was changed (retry: never).
        NotFound: its file is gone (retry: never).
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (*TakesWarehouse.template_fields, "plan")
    template_fields_renderers: ClassVar[dict[str, str]] = {"plan": "json"}

    def __init__(self, *, plan: Mapping[str, Any] | str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def _work(self, context: Context) -> dict[str, Any]:
        # Airflow has rendered it: an XComArg is the value that it stands for.
        plan = load_stored_plan(cast("Mapping[str, Any] | str", self.plan))
        with self.hook.get_conn() as api:
            self._link(api, plan.request.entity, plan.request.project, context)
            return execute_plan(self, plan, api, self._open_warehouse(), context)
