"""How the fields of components are documented in YAML.

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
