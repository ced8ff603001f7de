"""The page about the client does not lie: its examples run, in order, as W&B's guide has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api
from wb_ops.devserver import DevServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(autouse=True)
def my_project(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.seed_sweep(
        entity="my-team", project="my-project", sweep_id="sweep1",
        config={"name": "search", "metric": {"name": "loss", "goal": "minimize"}},
    )  # fmt: skip
    for number in (1, 2):
        rows = [{"_step": i, "loss": 1 / (i + number), "accuracy": i / 9} for i in range(9)]
        server.seed_run(
            "my-team", "my-project", f"r{number}", config={"lr": number / 10, "_hidden": 1},
            display_name=f"fox-{number}", history=rows, sweep="sweep1",
            events=[{"system.gpu.0.temp": 70 + number, "_timestamp": 1}],
            files={"a.json": "{}", "output.log": "hello\n", "wandb-metadata.json": '{"os": "L"}'},
            created_at=f"2026-01-0{number}T00:00:00",
        )  # fmt: skip
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)


def test_the_examples_run_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], api: Api, tmp_path: Path
):
    names: dict[str, Any] = {}
    for number, code in enumerate(BLOCKS, 1):
        exec(compile(code, f"docs/client.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "2 fox-1 r2" in printed
    assert "lr 0.1 0.2" in printed
    assert "9 9 ['_step', 'loss', 'accuracy']" in printed
    assert "search FINISHED +summary_metrics.loss 2 fox-2" in printed
    assert "6/6" in printed
    assert {"r1 9", "r2 9"} <= set(printed.splitlines())
    assert "NotFound never False" in printed
    header = (tmp_path / "project.csv").read_text().splitlines()[0]
    assert header == ",name,lr,_step,loss,accuracy"
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == [
        "a.json", "wandb-metadata.json",
    ]  # fmt: skip
    run = api.run("my-team/my-project/r1")
    assert "loss" not in run.summary
    assert run.summary["final_loss"] == 1 / 9
    assert (run.config["dataset"], run.tags, run.notes) == ("v2", ["reviewed"], "good")
