"""What all operators share: where W&B is, where the warehouse is, how to retry and to wait."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.links import WandbProjectLink, push_project
from wb_ops.airflow.operators.deferral import (
    default_deferrable,
    default_max_throttles,
    defer_throttled,
    throttles_of,
)
from wb_ops.airflow.retry_policy import DEFAULT_RETRY_POLICY, RETRIES, policy_argument
from wb_ops.airflow.warehouses import mask_passwords, open_warehouse, without_password

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy

    from wb_ops.client.api import Api
    from wb_ops.warehouse import Warehouse

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class WandbOperator(BaseOperator):
    """Base of all operators: a connection, retries by the errors' advice, waits elsewhere.

    Args:
        wandb_conn_id: a connection of type `wandb`.
        deferrable: wait for rate limits and for a busy warehouse in the triggerer; by default
            Airflow's [operators] default_deferrable.
        max_throttles: how many such waits one try may have; by default [wandb] max_throttles.
        retries, retry_policy: as in BaseOperator. These defaults are part of the signature, so
            that `default_args` win over them and mapped tasks have them too.
    """

    template_fields: Sequence[str] = ("wandb_conn_id",)
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbProjectLink(),)

    def __init__(
        self,
        *,
        wandb_conn_id: str = WandbHook.default_conn_name,
        deferrable: bool | None = None,
        max_throttles: int | None = None,
        retries: int | None = RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **policy_argument(retry_policy), **kwargs)
        self.wandb_conn_id = wandb_conn_id
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.max_throttles = default_max_throttles() if max_throttles is None else max_throttles

    @property
    def hook(self) -> WandbHook:
        """The hook of the task's connection."""
        return WandbHook(self.wandb_conn_id)

    def execute(self, context: Context) -> Any:
        """Do the task's work; see the class."""
        return self._attempt(context, 0)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Do the task's work after a wait in the triggerer."""
        return self._attempt(context, throttles_of(event))

    def render_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render as Airflow does; a password that comes out is masked before it is stored."""
        rendered = super().render_template(*args, **kwargs)
        if isinstance(rendered, str):
            mask_passwords(rendered)
        return rendered

    def _attempt(self, context: Context, throttles: int) -> Any:
        allowed = self.max_throttles if self.deferrable else 0
        return defer_throttled(self, partial(self._work, context), throttles, allowed)

    @abstractmethod
    def _work(self, context: Context) -> Any:
        """Do everything, from the start; return what goes into XCom."""

    def _link(self, api: Api, entity: str, project: str, context: Context) -> None:
        push_project(context, api.transport.settings.base_url, entity, project)


class WandbProjectOperator(WandbOperator):
    """Base of the operators that work on the runs of one W&B project.

    Args:
        entity, project: the W&B project; by default those of the connection.
        filters: which runs: a MongoDB-style dict, or JSON text of one.
    """

    template_fields: Sequence[str] = (
        *WandbOperator.template_fields,
        "entity",
        "project",
        "filters",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json"}

    def __init__(
        self,
        *,
        entity: str | None = None,
        project: str | None = None,
        filters: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.entity = entity
        self.project = project
        self.filters = filters

    def _resolve_project(self, api: Api, context: Context) -> tuple[str, str]:
        """Return entity and project, and link to them."""
        entity = self.entity or api.default_entity
        project = self.project or api.transport.settings.project or ""
        self._link(api, entity, project, context)
        return entity, project


class TakesWarehouse(WandbOperator):
    """Base of the operators that work on a warehouse.

    Args:
        warehouse: its URL, such as duckdb:////data/wandb.duckdb, or conn://my_warehouse for the
            Airflow connection of that id, of the type Postgres. What is given here is stored and
            shown by Airflow, so a URL with a password is refused.

    Raises:
        InvalidRequest: `warehouse` holds a password (retry: never).
    """

    template_fields: Sequence[str] = (*WandbOperator.template_fields, "warehouse")

    def __init__(self, *, warehouse: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.warehouse = warehouse
        _refuse_passwords(warehouse)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As Airflow's; a mapped operator is not built while the Dag file is parsed."""
        _refuse_passwords(kwargs.get("warehouse"))
        return _refusing_passwords(super().partial(**kwargs))

    def _open_warehouse(self) -> Warehouse:
        return open_warehouse(self.warehouse)


def _refusing_passwords(partial_operator: Any) -> Any:
    """Have `expand` and `expand_kwargs` look at literal URLs, which Airflow stores as they are.

    Both are methods of what Airflow's `partial` returns, so it is that class which is extended.
    """
    airflows: Any = type(partial_operator)

    class TakesWarehouses(airflows):  # type: ignore[misc]  # known only when it runs
        __slots__ = ()

        def expand(self, **mapped_kwargs: Any) -> Any:
            _refuse_passwords(_defaults(self.kwargs))
            _refuse_passwords(mapped_kwargs.get("warehouse"))
            return super().expand(**mapped_kwargs)

        def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
            _refuse_passwords(_defaults(self.kwargs))
            for one in kwargs if isinstance(kwargs, Sequence) else ():
                _refuse_passwords(one.get("warehouse") if isinstance(one, Mapping) else None)
            return super().expand_kwargs(kwargs, strict=strict)

    partial_operator.__class__ = TakesWarehouses
    return partial_operator


def _defaults(arguments: Mapping[str, Any]) -> list[object]:
    """What `default_args` say, which Airflow gives to a mapped operator only in the worker."""
    places = [arguments.get("default_args")]
    places += [getattr(arguments.get(one), "default_args", None) for one in ("dag", "task_group")]
    return [(place or {}).get("warehouse") for place in places]


def _refuse_passwords(given: object) -> None:
    """Refuse one while the Dag file is parsed, when nothing is stored yet.

    Given is a URL, what a task is mapped over (a list of URLs, a dict of them), or an XComArg.
    What its templates make is looked at when they are rendered.
    """
    if isinstance(given, Mapping):
        given = [*given, *given.values()]
    for one in given if isinstance(given, list | tuple) else [given]:
        if isinstance(one, str):
            without_password(_TEMPLATE.sub("", one))


class WandbWarehouseOperator(TakesWarehouse, WandbProjectOperator):
    """Base of the operators that work on a W&B project and on a warehouse.

    Args:
        dataset: the warehouse schema; by default named by rule from entity and project.
    """

    template_fields: Sequence[str] = (*WandbProjectOperator.template_fields, "warehouse", "dataset")

    def __init__(self, *, dataset: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
