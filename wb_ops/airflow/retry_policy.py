"""The core's retry advice as Airflow's retry decisions (Airflow 3.3 and newer)."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from wb_ops.airflow.waits import LONGEST_WAIT_S, SHORTEST_WAIT_S, doubled
from wb_ops.errors import AdviceKind, WarehouseError, WbOpsError, find_error

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryDecision, RetryPolicy

    HAS_RETRY_POLICIES = True
else:
    try:
        from airflow.sdk import RetryDecision, RetryPolicy

        HAS_RETRY_POLICIES = True
    except ImportError:
        RetryPolicy = object
        HAS_RETRY_POLICIES = False

log = logging.getLogger("wb_ops")

# As Airflow's own [core] default_task_retry_delay, where no task says another.
RETRY_DELAY = timedelta(minutes=5)
# Airflow's own default is none, and a policy cannot add any.
RETRIES = 4
REASON_KEY = "retry_reason"


class WandbRetryPolicy(RetryPolicy):
    """Waits as long as W&B asks, backs off from outages, fails at once what cannot heal.

    An error's advice AFTER(s) becomes a retry after s seconds, NEVER a failure; BACKOFF and VERIFY
    a retry after the task's `retry_delay`, twice as long with each try, or as Airflow counts it
    where the task has `retry_exponential_backoff`. The reason is in the task instance's column
    `retry_reason`, which no page of Airflow 3.3 shows, and in the XCom of that name, which the
    task's page does: until the next try starts, or for good where none comes. Errors that are not
    ours are left to the task. A policy cannot add retries: give the task some (our
    operators have 4). Airflow does not apply `max_retry_delay` to a policy's delay, hence the cap.

    Our operators have this policy by default; `retry_policy=` replaces it, None removes it.

    Args:
        max_delay_s: the longest delay, in seconds.

    Raises:
        RuntimeError: Airflow is older than 3.3 and has no retry policies.
    """

    def __init__(self, max_delay_s: float = LONGEST_WAIT_S) -> None:
        if not HAS_RETRY_POLICIES:
            raise RuntimeError(
                "WandbRetryPolicy needs Airflow 3.3 or newer; before that, the task's retries and "
                "retry_delay decide."
            )
        self.max_delay_s = max_delay_s

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide by the first error of ours in `exception` and its chain of causes."""
        error = find_error(exception)
        if error is None:
            return RetryDecision.default()
        decision = self._decide(error, try_number, context)
        if context is not None and "ti" in context:
            is_last = decision.action.value == "retry" and try_number > max_tries
            _show(context, f"{decision.reason}; no retry is left" if is_last else decision.reason)
        return decision

    def _decide(self, error: WbOpsError, try_number: int, context: Context | None) -> RetryDecision:
        advice = error.advice
        if advice.kind is AdviceKind.NEVER:
            return RetryDecision.fail(
                reason=f"{_label(error)} {type(error).__name__}: a retry cannot help"
            )
        if advice.seconds is None:
            return self._backoff(error, try_number, context)
        delay_s = min(max(advice.seconds, SHORTEST_WAIT_S), self.max_delay_s)
        capped = f", capped at {delay_s:g}s" if delay_s < advice.seconds else ""
        return RetryDecision.retry(
            delay=timedelta(seconds=delay_s),
            reason=f"{_label(error)} Retry-After={round(advice.seconds, 1):g}s{capped}",
        )

    def _backoff(
        self, error: WbOpsError, try_number: int, context: Context | None
    ) -> RetryDecision:
        what = f"{_label(error)} {type(error).__name__}"
        task = None if context is None else context["task"]
        if task is not None and task.retry_exponential_backoff:
            return RetryDecision.retry(reason=f"{what}: the task's own backoff")
        base_s = (RETRY_DELAY if task is None else task.retry_delay).total_seconds()
        delay_s = min(doubled(base_s, try_number - 1), self.max_delay_s)
        return RetryDecision.retry(
            delay=timedelta(seconds=delay_s), reason=f"{what}: backing off {delay_s:g}s"
        )


def _show(context: Context, reason: str | None) -> None:
    try:
        context["ti"].xcom_push(key=REASON_KEY, value=reason)
    except Exception as exc:
        # Whatever a store of XComs raises: Airflow would drop the decision itself for it.
        log.warning("%s: the reason of the retry is in the log only", type(exc).__name__)


def _label(error: WbOpsError) -> str:
    if error.http_status is not None:
        return f"W&B {error.http_status}"
    return "Warehouse" if isinstance(error, WarehouseError) else "W&B"


# One for all tasks: it keeps no state.
DEFAULT_RETRY_POLICY = WandbRetryPolicy() if HAS_RETRY_POLICIES else None


def policy_argument(policy: RetryPolicy | None) -> dict[str, Any]:
    """Return BaseOperator's `retry_policy` argument, which Airflow before 3.3 refuses."""
    return {"retry_policy": policy} if HAS_RETRY_POLICIES or policy is not None else {}
