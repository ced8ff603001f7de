"""`@task.wandb`: a function with a W&B client, as a task that retries as our operators do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.links import WandbProjectLink, WandbRunLink, push_project
from wb_ops.airflow.operators.deferral import (
    default_deferrable,
    default_max_throttles,
    defer_throttled,
    throttles_of,
)
from wb_ops.airflow.retry_policy import DEFAULT_RETRY_POLICY, RETRIES, policy_argument

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator
    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy

    from wb_ops.client.api import Api


class _WandbDecoratedOperator(DecoratedOperator):
    """Calls the function with `api`, a client of the connection that is closed afterwards."""

    custom_operator_name = "@task.wandb"
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbProjectLink(), WandbRunLink())
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, "wandb_conn_id")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        wandb_conn_id: str = WandbHook.default_conn_name,
        deferrable: bool | None = None,
        max_throttles: int | None = None,
        retries: int | None = RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        if "api" not in signature(python_callable).parameters:
            raise TypeError(
                f"@task.wandb gives {python_callable.__name__}() a W&B client: it needs an "
                "argument named api."
            )
        # Airflow compares the call with the signature now; the client comes when the task runs.
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs={"api": None, **(op_kwargs or {})},
            retries=retries,
            **policy_argument(retry_policy),
            **kwargs,
        )
        self.wandb_conn_id = wandb_conn_id
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.max_throttles = default_max_throttles() if max_throttles is None else max_throttles

    def execute(self, context: Context) -> Any:
        """Call the function."""
        return self._attempt(context, 0)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Call the function after a wait in the triggerer."""
        return self._attempt(context, throttles_of(event))

    def _attempt(self, context: Context, throttles: int) -> Any:
        allowed = self.max_throttles if self.deferrable else 0
        return defer_throttled(self, partial(self._call, context), throttles, allowed)

    def _call(self, context: Context) -> Any:
        with WandbHook(self.wandb_conn_id).get_conn() as api:
            _link(api, context)
            context_merge(context, self.op_kwargs)
            kwargs = determine_kwargs(self.python_callable, self.op_args, context)
            return self.python_callable(*self.op_args, **{**kwargs, "api": api})


def _link(api: Api, context: Context) -> None:
    """Lead to the connection's project; what else a function works on, only it knows."""
    settings = api.transport.settings
    if settings.entity and settings.project:
        push_project(context, settings.base_url, settings.entity, settings.project)


def _with_our_defaults(mapped: Any) -> Any:
    """Give a mapped task our retries and policy, unless it or `default_args` have their own.

    Airflow takes the defaults of an operator's signature for mapped operators (3.3), but not for
    mapped functions.
    """
    ours = {"retries": RETRIES, **policy_argument(DEFAULT_RETRY_POLICY)}
    for name, value in ours.items():
        mapped.operator.partial_kwargs.setdefault(name, value)
    return mapped


def _mapping_with_our_defaults(decorated: Any) -> Any:
    """Return Airflow's decorated function with `expand` and `expand_kwargs` that keep our defaults.

    `partial` and `override` make copies of its class, so it is the class that is extended.
    """
    airflows: Any = type(decorated)

    class WandbTask(airflows):  # type: ignore[misc]  # known only when it runs
        def expand(self, **map_kwargs: Any) -> Any:
            return _with_our_defaults(super().expand(**map_kwargs))

        def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
            return _with_our_defaults(super().expand_kwargs(kwargs, strict=strict))

    decorated.__class__ = WandbTask
    return decorated


def wandb_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a function that takes a W&B client as its argument `api`, best its last.

    `wandb_conn_id`, `deferrable`, `max_throttles`, `retries` and `retry_policy` are as in our
    operators, mapped or not; the other arguments are those of `@task`. Errors of ours that the
    function lets through are retried by their advice.

    The task has a link to the connection's project, and one to the run that the function names:
    `ti.xcom_push(key=WandbRunLink.xcom_key, value=run.url)`.

    Example:
        >>> @task.wandb
        ... def count_runs(project, api):
        ...     return len(api.runs(project))
    """
    if python_callable is None:
        return cast("TaskDecorator", partial(wandb_task, **kwargs))
    decorated = task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_WandbDecoratedOperator,
        **kwargs,
    )
    return cast("TaskDecorator", _mapping_with_our_defaults(decorated))
