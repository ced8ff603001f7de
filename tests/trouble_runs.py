"""Runs with what training scripts do at their worst, given to a dev server and exported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from logged_values import logged_tables

from wb_ops import Api, ExportRequest, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

ODD = {"x/y~z": [math.nan, {"": -math.inf}], "NaN": "NaN", "big": 2**70, "one": 1.0, "e": 1e22,
       "empty": [{}, [], ""], "ünï": "损失 \t\"", "deep": {"a.b": {"a": None}}, "zero": [-0.0, 0],
       "small": 1e-7, "\0": "\ud800\u241b"}  # fmt: skip

Seed = dict[str, Any]
REQUEST = ExportRequest("ann", "trials", tables=("runs", "history", "system_metrics"))


def seed(run_id: str, history: list[str], events: Sequence[str] = (), **fields: Any) -> Seed:
    plain = {"raw_config": "{}", "summary": "{}"}
    return {"run_id": run_id, "history": history, "events": events, **plain, **fields}


def hand_made() -> Iterator[Seed]:
    """What training scripts do at their worst."""
    wide = {f"layer{n}/{kind}": n / 7 for n in range(700) for kind in ("mean", "std")}
    yield seed("wide", [json.dumps({"_step": step, **wide}) for step in range(3)])
    names = ["Loss", "loss", "LOSS", "train/loss", "train.loss", "train_loss", "损失", "a b", "é"]
    yield seed("names", [json.dumps({"_step": 0, **{name: at for at, name in enumerate(names)}})])
    specials = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]
    yield seed("floats", [json.dumps({"_step": at, "x": one}) for at, one in enumerate(specials)])
    mixed = [1, 2.5, "text", True, None, 2**60 + 1, {"deep": 3}, [1, 2.5, math.nan]]
    yield seed("mixed", [json.dumps({"_step": at, "m": value}) for at, value in enumerate(mixed)])
    integers = [2**53, 2**53 + 1, -(2**62), 2**63, 2**64 + 1, 2**70, 10**400]
    yield seed("integers", [json.dumps({"_step": n, "i": one}) for n, one in enumerate(integers)])
    yield seed("gaps", [json.dumps({"_step": 10**at, "x": at}) for at in range(10)])
    yield seed("again", [json.dumps({"_step": 5, f"k{at % 3}": at}) for at in range(9)])
    times = [0, 0.0000005, 1585015311.680554, 1.7e9 + 1 / 3, 253402300799]
    lines = [json.dumps({"_timestamp": one, "_runtime": one / 7}) for one in times]
    yield seed("times", lines, [json.dumps({"_timestamp": t, "system.x": -0.0}) for t in times])
    nested = {"system.network": {"sent": 1, "recv": 2**53 + 1}, "system.gpu.0.temp": math.nan}
    events = [json.dumps({"_timestamp": at // 2, "_wandb": True, **nested}) for at in range(4)]
    odd = json.dumps({"odd": {"value": ODD}, "bare": ODD, "_wandb": {"value": {"t": 1}}})
    yield seed("odd", [], events, raw_config=odd, summary=json.dumps(ODD), notes="it's \0 odd")


def export(server: DevServer, url: str) -> None:
    warehouse = connect(url)
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        report = execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    assert report.unsound == []


def seeded(server: DevServer, seeds: list[Seed]) -> dict[str, pa.Table]:
    """Give the runs to the server, read by files and by windows in turn; what they logged."""
    for at, one in enumerate(seeds):
        parquet = one.get("parquet", ("auto", "off")[at % 2])
        server.seed_run("ann", "trials", **{**one, "parquet": parquet})
    return logged_tables(seeds)
