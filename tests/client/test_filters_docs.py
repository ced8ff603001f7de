"""The page about filters: every block does what it shows."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from wb_ops import Api
from wb_ops.devserver import DevServer

PAGE = Path(__file__).parents[2] / "docs" / "filters.md"


def seed(server: DevServer) -> None:
    learning_rates = {"a1": 0.01, "b2": 0.2, "c3": 0.3, "d4": 0.4}
    server.seed_runs(
        {
            "entity": "my-team", "project": "my-project", "run_id": run_id,
            "config": {"lr": lr, "model.depth": round(lr * 20)},
            "state": "running" if run_id == "d4" else "finished",
            "created_at": f"2026-01-0{day}T00:00:00",
        }
        for day, (run_id, lr) in enumerate(learning_rates.items(), 1)
    )  # fmt: skip


def test_every_block_of_the_page_does_what_it_shows(server: DevServer, api: Api):
    """Later blocks use the names of earlier ones."""
    seed(server)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 5
    report: list[str] = []
    page = doctest.DocTestParser().get_doctest(
        "\n".join(blocks), {"api": api}, PAGE.name, str(PAGE), 0
    )
    failed, attempted = doctest.DocTestRunner().run(page, out=report.append)
    assert failed == 0, "".join(report)
    assert attempted > len(blocks)
