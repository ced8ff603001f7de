"""Secrets written into code: a key is kept out of Dagster's snapshots, a password is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import dagster as dg

from wb_ops.warehouse.urls import passwords_in

if TYPE_CHECKING:
    from wb_ops.dagster.resource import WandbResource

IN_SNAPSHOTS = "Dagster would keep it in its snapshots, which the UI shows"


def is_literal(value: str | None) -> TypeGuard[str]:
    """Whether a resource was given a value, rather than the name of a variable or nothing."""
    return value is not None and not isinstance(value, dg.EnvVar)


def definition_without_key(resource: WandbResource) -> dg.ResourceDefinition:
    """Return a definition that knows all of a resource but its literal key, which is added later.

    A launchpad's values replace all that the code gives, so that the server may be another one:
    the key is added for the server it was given for, and for no other.

    Raises:
        DagsterInvalidDefinitionError: the resource's class leaves no way to do so.
    """
    cls, key, nested = type(resource), resource.api_key, resource.nested_resources
    _refuse_key_of_subclass(resource)
    names = resource.model_fields_set - {"api_key"}
    shown = cls(**{name: getattr(resource, name) for name in names})

    @contextmanager
    def wandb_resource(context: dg.InitResourceContext) -> Iterator[Any]:
        config: dict[str, Any] = dict(context.resource_config)
        url = resource.base_url
        own_url = url.get_value() if isinstance(url, dg.EnvVar) else url
        if config.get("api_key") is None and config.get("base_url") == own_url:
            config["api_key"] = key
        with cls(**config, **nested).process_config_and_initialize_cm() as access:
            yield access

    schema: Any = shown.get_resource_definition().config_schema
    return dg.ResourceDefinition(wandb_resource, schema, description=cls.__doc__)


def _refuse_key_of_subclass(resource: WandbResource) -> None:
    needs_key = type(resource).model_fields["api_key"].is_required()
    has_partial = any(
        not isinstance(one, dg.ResourceDefinition | dg.ConfigurableResource)
        and hasattr(one, "resource_cls")
        for one in resource.nested_resources.values()
    )
    if needs_key or has_partial:
        why = "is required" if needs_key else "stands beside values that a launchpad gives"
        raise dg.DagsterInvalidDefinitionError(
            f"{type(resource).__name__}(api_key=...): this is a literal key, and {IN_SNAPSHOTS}. "
            f"It cannot be kept out where it {why}. Name an environment variable: "
            'api_key=dg.EnvVar("WANDB_API_KEY").'
        )


def refuse_key_beside_launchpad(api_key: str | None) -> None:
    """Raise for a literal key of a resource whose other values a launchpad gives.

    Raises:
        DagsterInvalidDefinitionError: it is one.
    """
    if is_literal(api_key):
        raise dg.DagsterInvalidDefinitionError(
            "WandbResource.configure_at_launch(api_key=...): this is a literal key, and "
            f'{IN_SNAPSHOTS}. Name an environment variable: api_key=dg.EnvVar("WANDB_API_KEY").'
        )


def refuse_password(url: str | None) -> None:
    """Raise for a literal URL with a password in it.

    Raises:
        DagsterInvalidDefinitionError: it is one.
    """
    if is_literal(url) and passwords_in(url):
        raise dg.DagsterInvalidDefinitionError(
            "WarehouseResource(url=...): there is a password in this literal URL, and "
            f"{IN_SNAPSHOTS}. Name an environment variable instead: "
            'url=dg.EnvVar("WB_OPS_WAREHOUSE"), or leave the password to PGPASSWORD.'
        )
