"""A pytest fixture for users' own Dags and assets; pytest loads this module in every project."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wb_ops.devserver.server import DevServer


@pytest.fixture
def wandb_server() -> Iterator[DevServer]:
    """A fresh W&B-compatible server: pass its ``url`` and ``api_key`` to what is tested."""
    from wb_ops.devserver.server import DevServer

    with DevServer() as server:
        yield server
