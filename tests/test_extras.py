"""What `pip install "wb-ops[all]"` brings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text())["project"][
    "optional-dependencies"
]


def extras_in(requirement: str) -> set[str]:
    found = re.fullmatch(r"wb-ops\[(.+)\]", requirement)
    assert found is not None
    return set(found[1].split(","))


def test_all_is_every_extra_and_development_has_them_too():
    (everything,) = EXTRAS["all"]
    assert extras_in(everything) == EXTRAS.keys() - {"all", "dev"}
    assert "wb-ops[all]" in EXTRAS["dev"]
