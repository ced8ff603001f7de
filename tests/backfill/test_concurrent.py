"""Many processes and the real SDK write to the same runs at once: nothing of theirs is missing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api, BackfillRequest, Warehouse, write_backfill
from wb_ops.backfill.targets import Target
from wb_ops.devserver import DevServer

HERE = Path(__file__).parent
WRITERS = int(os.environ.get("WB_OPS_WRITERS", "4"))
RUNS = int(os.environ.get("WB_OPS_WRITER_RUNS", "50"))
# One warehouse for all of them, or one each: they know nothing of each other in either case.
IS_SHARED = os.environ.get("WB_OPS_WRITERS_SHARE") == "1"
EDITS = int(os.environ.get("WB_OPS_SDK_EDITS", "6"))
LIVE = int(os.environ.get("WB_OPS_SDK_LIVE", "2"))
# The SDK sends its lines and its whole summary this often; 15 s unless it is told otherwise.
SENDS_EVERY_S = os.environ.get("WB_OPS_SDK_SENDS_EVERY_S", "0.5")
THEIRS = '"h": {"bins": [1e400, NaN]}'


@pytest.fixture
def environ(server: DevServer, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.api_key,
        "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "HOME": str(tmp_path),
    }  # fmt: skip


@pytest.fixture
def sdk(
    server: DevServer, environ: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index:03}",
         "summary": f'{{"acc": 0.50, {THEIRS}}}'}
        for index in range(RUNS)
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(HERE / "sdk_writers.py"), str(EDITS), str(LIVE), SENDS_EVERY_S],
        env=environ, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()


def start(server: DevServer, folder: Path, writer: int) -> subprocess.Popen[str]:
    url = f"duckdb:///{folder / ('w.duckdb' if IS_SHARED else f'w{writer}.duckdb')}"
    return subprocess.Popen(
        [sys.executable, str(HERE / "backfill_once.py"), server.url, server.api_key, url,
         f"key{writer}", str(writer), "journal", "running"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return dict(json.loads(output.splitlines()[-1]))


def texts_of(api: Api) -> dict[str, str]:
    return {node["name"]: node["summaryMetrics"] for node in api.source("ann/trials").iter_nodes()}


def missing(texts: dict[str, str]) -> Counter[str]:
    """How many of our keys each run lacks."""
    lacks: Counter[str] = Counter()
    for run_id, text in texts.items():
        summary = json.loads(text)
        lacks[run_id] = sum(summary.get(f"key{writer}") != writer for writer in range(WRITERS))
    return +lacks


def test_many_writers_on_the_same_runs(
    server: DevServer,
    api: Api,
    warehouse: Warehouse,
    tmp_path: Path,
    sdk: subprocess.Popen[str],
):
    finished = [f"r{index:03}" for index in range(RUNS)]
    live = [f"live{number}" for number in range(LIVE)]
    reports = [report_of(one) for one in [start(server, tmp_path, n) for n in range(WRITERS)]]
    assert {api.run(f"ann/trials/{run_id}").state for run_id in live} == {"running"}
    steps = int(sdk.communicate(timeout=200)[0].splitlines()[-1])
    assert sdk.returncode == 0

    # Each value is told as what it was when it was read back; in a finished run it was there.
    told = {name: Counter[str]() for name in ("written", "unverified", "conflicts")}
    for report in reports:
        for name, counts in told.items():
            counts.update(report[name])
        print({name: len(x) if isinstance(x, list) else x for name, x in report.items()})
    for run_id in [*finished, *live]:
        assert sum(counts[run_id] for counts in told.values()) == WRITERS
    # On a machine with no time to spare some are in dispute for all of their ten rounds.
    disputed = {run_id for run_id in finished if told["unverified"][run_id]}
    assert sum(told["unverified"][run_id] for run_id in disputed) <= WRITERS * RUNS / 10
    assert not any(told["conflicts"][run_id] for run_id in finished)

    texts = texts_of(api)
    lacks = missing(texts)
    print("live runs:", {name: sum(c[one] for one in live) for name, c in told.items()})
    print("of", WRITERS * LIVE, "values missing at their end:", sum(lacks[one] for one in live))
    print("finished runs that lack values:", {one: n for one, n in lacks.items() if one[0] == "r"})
    # W&B's own loop sends the whole summary that it once read: what came since is lost to it.
    assert set(lacks) <= {*finished[:EDITS], *live, *disputed}
    assert_theirs_are_there(api, texts, steps)

    # Now that nobody else writes, what the SDK's whole summaries took away comes to stay.
    for writer in range(WRITERS):
        values = {f"key{writer}": writer}
        request = BackfillRequest("ann", "trials", compute=lambda run, values=values: values)
        write_backfill(request, api, warehouse)
    texts = texts_of(api)
    assert missing(texts) == {}
    assert_theirs_are_there(api, texts, steps)


def assert_theirs_are_there(api: Api, texts: dict[str, str], steps: int) -> None:
    """What the SDK logged and edited, and the members of nobody."""
    for index in range(RUNS):
        summary = json.loads(texts[f"r{index:03}"])
        assert summary.get("edited") == (index if index < EDITS else None)
        # The SDK writes numbers in its own way; ours keep their text.
        assert index < EDITS or THEIRS in texts[f"r{index:03}"]
    for number in range(LIVE):
        summary = json.loads(texts[f"live{number}"])
        assert (summary["last"], summary["steps"], summary["_step"]) == (steps, steps - 1, steps)
        assert api.run(f"ann/trials/live{number}").history_table().num_rows == steps + 1


def test_the_sdk_reads_what_was_written(server: DevServer, tmp_path: Path, environ: dict[str, str]):
    server.seed_run("ann", "trials", "r0", summary="{}")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "backfill_once.py"), server.url, server.api_key,
         f"duckdb:///{tmp_path / 'w.duckdb'}", "best",
         '{"acc": 0.5, "nan": NaN, "inf": -Infinity, "big": 9007199254740993}', "journal"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert report_of(process)["written"] == ["r0"]
    code = "import wandb; print(repr(wandb.Api().run('ann/trials/r0').summary['best']))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True,
        timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.strip().splitlines()[-1] == (
        "{'acc': 0.5, 'nan': nan, 'inf': -inf, 'big': 9007199254740993}"
    )


def test_the_sdk_reads_config_tags_and_notes(
    server: DevServer, api: Api, warehouse: Warehouse, tmp_path: Path, environ: dict[str, str]
):
    for run_id in ("r0", "r1"):
        server.seed_run(
            "ann", "trials", run_id, config={"lr": 0.1}, tags=["old", "kept"], notes="as it was"
        )
    written: dict[Target, dict[str, object]] = {
        "config": {"lr": 0.25, "layers": [1, {"width": 2}]},
        "tags": {"good": True, "old": False},
    }
    for target, values in written.items():
        request = BackfillRequest(
            "ann", "trials", compute=lambda run, values=values: values, target=target
        )
        write_backfill(request, api, warehouse)
    notes = BackfillRequest(
        "ann", "trials", target="notes",
        compute=lambda run: {"notes": "set" if run.id == "r0" else ""},
    )  # fmt: skip
    write_backfill(notes, api, warehouse)
    code = (
        "import wandb; api = wandb.Api(); runs = [api.run(f'ann/trials/r{n}') for n in (0, 1)]; "
        "print([(dict(run.config), sorted(run.tags), run.notes or None) for run in runs])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True,
        timeout=100, check=True,
    )  # fmt: skip
    config = {"lr": 0.25, "layers": [1, {"width": 2}]}
    assert ast.literal_eval(done.stdout.strip().splitlines()[-1]) == [
        (config, ["good", "kept"], "set"),
        (config, ["good", "kept"], None),
    ]
