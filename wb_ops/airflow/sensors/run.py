"""Waits for the end of a W&B run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.links import WandbRunLink
from wb_ops.airflow.operators.deferral import DECIDED, default_deferrable, fails_at_once
from wb_ops.airflow.retry_policy import DEFAULT_RETRY_POLICY, RETRIES, policy_argument
from wb_ops.airflow.triggers.events import checked_event
from wb_ops.airflow.triggers.run import ENDED, TIMEOUT, WandbRunTrigger, checked_states
from wb_ops.airflow.waits import is_throttle
from wb_ops.errors import WbOpsError, find_error

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy

POLL_INTERVAL_S = 60.0


class WandbRunSensor(BaseSensorOperator):
    """Succeeds when a W&B run has ended well, fails at once when it has ended badly.

    W&B tells four ends apart: finished, failed (its program raised), crashed (no heartbeat any
    more) and killed. A crashed run can come back: leave "crashed" out of `failed_states` to go
    on waiting. A run in any other state, such as running, pending or preempted, is waited for.

    Returns (as XCom) a dict: run_id, state, url.

    Args:
        run: entity/project/run_id, project/run_id, or the URL of the run's page.
        allowed_states: ends that are a success.
        failed_states: ends that fail the task, without a retry; skipped with `soft_fail=True` or
            `never_fail=True`.
        wandb_conn_id: a connection of type `wandb`.
        deferrable: after one look wait in the triggerer, where rate limits and short outages
            are waited out too; by default Airflow's [operators] default_deferrable.
        poke_interval: seconds between two looks; by default [wandb] poll_interval.
        retries, retry_policy: as in our operators.

    Raises:
        AirflowFailException: the run ended in one of `failed_states`.
        AirflowSensorTimeout: it did not end within `timeout` seconds.
        InvalidRequest: `allowed_states` or `failed_states` is text (retry: never).
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = ("run_path", "wandb_conn_id")
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbRunLink(),)

    def __init__(
        self,
        *,
        run: str,
        allowed_states: Sequence[str] = ("finished",),
        failed_states: Sequence[str] = ("failed", "crashed", "killed"),
        wandb_conn_id: str = WandbHook.default_conn_name,
        deferrable: bool | None = None,
        poke_interval: float | None = None,
        retries: int | None = RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            poke_interval=default_poll_interval_s() if poke_interval is None else poke_interval,
            retries=retries,
            **policy_argument(retry_policy),
            **kwargs,
        )
        # BaseOperator has a method run, so the attribute needs another name than the argument.
        self.run_path = run
        self.allowed_states = checked_states("allowed_states", allowed_states)
        self.failed_states = checked_states("failed_states", failed_states)
        self.wandb_conn_id = wandb_conn_id
        self.deferrable = default_deferrable() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Look once; then poke, reschedule or defer until the run has ended."""
        with fails_at_once():
            if not self.deferrable:
                return super().execute(context)
            found = self._first_look(context)
            return found.xcom_value if found else self._defer()

    def _first_look(self, context: Context) -> PokeReturnValue | None:
        """Poke, with what the base class makes of errors where it pokes itself."""
        try:
            return self.poke(context)
        except DECIDED:
            raise
        except Exception as exc:
            if (error := find_error(exc)) is not None and is_throttle(error):
                self.log.info("%s; asking in the triggerer", error)
                return None
            if self.silent_fail:
                self.log.exception("the first look failed; asking in the triggerer")
                return None
            self._skip_if_never_fail(exc)
            raise

    def _skip_if_never_fail(self, exc: Exception) -> None:
        if self.never_fail:
            raise AirflowSkipException(f"never_fail is set: {exc}") from exc

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the run; one request."""
        with WandbHook(self.wandb_conn_id).get_conn() as api:
            run = api.run(self.run_path)
        context["ti"].xcom_push(key=WandbRunLink.xcom_key, value=run.url)
        self.log.info("run %s is %s", run.id, run.state)
        found = {"run_id": run.id, "state": run.state, "url": run.url}
        return PokeReturnValue(self._has_ended_well(found), found)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Judge what the trigger found."""
        try:
            ended = checked_event(event, ENDED, TIMEOUT)
        except WbOpsError as error:
            self._skip_if_never_fail(error)
            with fails_at_once():
                raise
        if ended["status"] == TIMEOUT:
            raise AirflowSensorTimeout(
                f"Run {self.run_path} did not end within {self.timeout:g} seconds."
            )
        found = {name: ended[name] for name in ("run_id", "state", "url")}
        context["ti"].xcom_push(key=WandbRunLink.xcom_key, value=found["url"])
        if not self._has_ended_well(found):
            raise RuntimeError(f"The trigger fired for run {found['run_id']}: {found['state']}.")
        return found

    def _has_ended_well(self, found: Mapping[str, str]) -> bool:
        if found["state"] in self.failed_states:
            # Here, because the first look of a deferrable sensor is not the base class's.
            may_skip = self.soft_fail or self.never_fail
            kind = AirflowSkipException if may_skip else AirflowFailException
            raise kind(
                f"Run {found['run_id']} ended as {found['state']}, not as "
                f"{' or '.join(self.allowed_states)}: {found['url']}"
            )
        return found["state"] in self.allowed_states

    def _defer(self) -> Any:
        self.defer(
            trigger=WandbRunTrigger(
                run=self.run_path,
                wandb_conn_id=self.wandb_conn_id,
                states=[*self.allowed_states, *self.failed_states],
                poll_interval_s=self.poke_interval,
                deadline_epoch_s=time.time() + self.timeout,
            ),
            method_name="execute_complete",
        )


def default_poll_interval_s() -> float:
    """[wandb] poll_interval: seconds between two looks at W&B."""
    return float(conf.getfloat("wandb", "poll_interval", fallback=POLL_INTERVAL_S))
