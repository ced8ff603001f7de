"""The core's retry advice as Airflow's retry decisions (Airflow 3.3 and newer)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

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

MAX_DELAY_S = 3600.0
# Airflow's own default is none, and a policy cannot add any.
RETRIES = 4


class WandbRetryPolicy(RetryPolicy):
    """Waits as long as W&B asks, fails at once what cannot heal, leaves the rest to the task.

    An error's advice AFTER(s) becomes a retry after s seconds, NEVER a failure, and BACKOFF,
    VERIFY and errors that are not ours the task's own `retries` and `retry_delay`. A policy cannot
    add retries: give the task some (our operators have 4). Airflow applies neither
    `max_retry_delay` nor its backoff to a policy's delay, hence the cap.

    Our operators have this policy by default; `retry_policy=` replaces it, None removes it.

    Args:
        max_delay_s: the longest delay, in seconds.

    Raises:
        RuntimeError: Airflow is older than 3.3 and has no retry policies.
    """

    def __init__(self, max_delay_s: float = MAX_DELAY_S) -> None:
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
        advice = error.advice
        if advice.kind is AdviceKind.NEVER:
            return RetryDecision.fail(
                reason=f"{_label(error)} {type(error).__name__}: a retry cannot help"
            )
        if advice.seconds is None:
            return RetryDecision.default()
        delay_s = min(advice.seconds, self.max_delay_s)
        capped = f", capped at {delay_s:g}s" if delay_s < advice.seconds else ""
        return RetryDecision.retry(
            delay=timedelta(seconds=delay_s),
            reason=f"{_label(error)} Retry-After={round(advice.seconds, 1):g}s{capped}",
        )


def _label(error: WbOpsError) -> str:
    if error.http_status is not None:
        return f"W&B {error.http_status}"
    return "Warehouse" if isinstance(error, WarehouseError) else "W&B"


# One for all tasks: it keeps no state.
DEFAULT_RETRY_POLICY = WandbRetryPolicy() if HAS_RETRY_POLICIES else None


def policy_argument(policy: RetryPolicy | None) -> dict[str, Any]:
    """Return BaseOperator's `retry_policy` argument, which Airflow before 3.3 refuses."""
    return {"retry_policy": policy} if HAS_RETRY_POLICIES or policy is not None else {}
