"""Variables of the environment in YAML: one that is not set is an error, wherever it stands.

Dagster makes `None` of it: the key or the server that was meant would be replaced by the default
one, and a text around it would have "None" in it.
"""

from __future__ import annotations

import os

from jinja2 import StrictUndefined


class EnvironmentScope:
    """What `env` is in YAML: `env.NAME`, and `env("NAME", "default")`."""

    def __getattr__(self, name: str) -> str | Unset:
        if name.startswith("jinja"):  # jinja asks whether it has marks of its own
            raise AttributeError(name)
        return os.environ.get(name) or Unset(
            f"The variable {name} is empty: set it where this location is loaded, in its "
            "environment or in a .env file beside it."
        )

    def __call__(self, name: str, *default: str | None) -> str | Unset | None:
        return (os.environ.get(name) or default[0]) if default else getattr(self, name)


class Unset(StrictUndefined):
    """Fails where it is used, except in `{{ env.NAME or "default" }}`."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override] # what it extends never returns
        return False
