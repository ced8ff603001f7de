"""How the fields of components are read from YAML, and documented there.

Dagster's schema of the YAML, which editors and `dg` show, keeps of a field that can be left out
only what its resolver says of it, not what pydantic's `Field` says.
"""

from __future__ import annotations

from typing import Any

import dagster as dg


def field(description: str, *examples: Any) -> dg.Resolver:
    """A field that Dagster reads as usual."""
    resolver: dg.Resolver = dg.Resolver.default(
        description=description, examples=list(examples) or None
    )
    return resolver


def text(description: str, *examples: str) -> dg.Resolver:
    """A text field whose `{{ env.NAME }}` has to be set."""
    return dg.Resolver(
        resolve_text,
        inject_before_resolve=False,
        description=description,
        examples=list(examples) or None,
    )


def resolve_text(context: dg.ResolutionContext, given: Any) -> Any:
    """Return what YAML says, with the values of its variables.

    Raises:
        ValueError: a variable is not set. Dagster makes nothing of it, and the key or the server
            that was meant would be replaced by the default one.
    """
    value = context.resolve_value(given)
    if given and value in (None, ""):
        raise ValueError(
            f"{given} is empty: set the variable where this location is loaded, in its "
            "environment or in a .env file beside it."
        )
    return value
