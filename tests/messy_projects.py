"""Runs as messy as people's: texts, numbers, keys and documents of every kind."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

RUNS = 200
SEED = 31
STATES = (
    "finished",
    "running",
    "failed",
    "crashed",
    "killed",
    "preempting",
    "preempted",
    "pending",
)
TEXTS = (
    "plain",
    "grüße 🚀",
    "tab\there",
    "line\nbreak",
    "\x00\x01\x1f",
    "\ud800",
    "NaN",
    "",
    "'\"\\",
)
NUMBERS = (
    0, -1, 2**53 + 1, -(2**62), 0.1, 1.0, 1e308, 5e-324, -0.0,
    math.nan, math.inf, -math.inf, True, False, None,
)  # fmt: skip
KEYS = ("lr", "a/b", "a.b", "größe", "with space", "value", "desc", "Loss", "_private", "x" * 80)
HISTOGRAM = {"_type": "histogram", "values": [1, 2, 3], "bins": [0.0, 0.5, 1.0, 1.5]}
IMAGE = {"_type": "image-file", "path": "media/images/x_0.png", "size": 12, "width": 1, "height": 1}


def value(rng: random.Random, depth: int = 2) -> Any:
    kind = rng.random()
    if depth and kind < 0.15:
        return {rng.choice(KEYS): value(rng, depth - 1) for _ in range(rng.randrange(3))}
    if depth and kind < 0.25:
        return [value(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind < 0.3:
        return rng.choice((HISTOGRAM, IMAGE))
    return rng.choice(TEXTS) if kind < 0.55 else rng.choice(NUMBERS)


def document(rng: random.Random) -> dict[str, Any]:
    return {key: value(rng) for key in rng.sample(KEYS, rng.randrange(len(KEYS)))}


def raw_config(rng: random.Random) -> str:
    members: dict[str, Any] = {"_wandb": {"value": {"t": {"1": [1]}, "python_version": "3.11"}}}
    for key, content in document(rng).items():
        is_bare = rng.random() < 0.1 and not (isinstance(content, dict) and "value" in content)
        members[key] = content if is_bare else {"value": content, "desc": None}
    text = json.dumps(members)
    # A raw control character inside a string, as programs log it.
    return text.replace('"plain"', '"pl\tain"') if rng.random() < 0.2 else text


def history(rng: random.Random) -> list[dict[str, Any]]:
    step = rng.choice((0, 0, 7, 10**9))
    kinds = {key: rng.choice(("float", "int", "text", "bool", "media")) for key in KEYS[:5]}
    rows = []
    for _ in range(rng.choice((0, 1, 12, 25))):
        row: dict[str, Any] = {"_step": step, "_timestamp": 1.7e9 + step / 7, "_runtime": step / 7}
        row |= {key: cell(rng, kind) for key, kind in kinds.items() if rng.random() < 0.7}
        rows.append(row)
        step += rng.choice((1, 1, 1, 3, 900))
    return rows


def cell(rng: random.Random, kind: str) -> Any:
    if kind == "float":
        return rng.choice((0.1, 1.0, -2.5, 1e300, math.nan, math.inf, -math.inf))
    if kind == "int":
        return rng.choice((0, -5, 2**31, 2**53 + 1, -(2**62)))
    if kind == "text":
        return rng.choice(("plain", "grüße 🚀", "NaN", "line\nbreak"))
    return rng.random() < 0.5 if kind == "bool" else HISTOGRAM


def messy_run(rng: random.Random, index: int) -> dict[str, Any]:
    words = [text for text in TEXTS if "\ud800" not in text and "\x00" not in text]
    rows = history(rng)
    state = STATES[index % len(STATES)]
    return {
        "entity": "ann", "project": "messy", "run_id": f"r{index:03}.x-{rng.randrange(99)}",
        "state": state, "display_name": rng.choice([*words, None]),
        "user": rng.choice(("ann", "bö")),
        "raw_config": raw_config(rng), "summary": json.dumps(document(rng)),
        "system_metrics": json.dumps(document(rng)), "tags": rng.sample(words, rng.randrange(4)),
        "notes": rng.choice([*words, None]), "description": rng.choice((None, "about", "")),
        "group": rng.choice((None, "g 1", "grüppe")), "job_type": rng.choice((None, "train")),
        "commit": rng.choice((None, "0123abc")), "sweep": rng.choice((None, "sw0", "sw1")),
        "read_only": rng.random() < 0.1, "history": rows,
        "parquet": rng.choice(("auto", "auto", "off")) if state != "running" else "auto",
        "created_at": f"2026-01-01T00:{index // 60:02}:{index % 60:02}.{index:03}000",
        "heartbeat_at": "2026-02-01T12:00:00",
        "events": [{"system.cpu": i / 3, "_timestamp": i} for i in range(index % 3)],
        "files": {
            "wandb-metadata.json": json.dumps({"os": rng.choice(TEXTS), "gpu": index}),
            "media/images/grüße 1.png": bytes(range(256)) * (index % 3),
            "out.json": "{}",
        } if index % 4 else {},
    }  # fmt: skip


def messy_runs() -> Iterator[dict[str, Any]]:
    rng = random.Random(SEED)
    return (messy_run(rng, index) for index in range(RUNS))


def writable_run(index: int, project: str) -> dict[str, Any]:
    """A run without what `wandb` cannot write back: see test_sdk_defects.py."""
    run = messy_run(random.Random(index), index)
    for name in ("raw_config", "summary"):
        run[name] = json.dumps(without_specials(json.loads(run[name], strict=False)))
    return run | {"project": project, "run_id": f"w{index}", "state": "finished",
                  "read_only": False, "sweep": None}  # fmt: skip


def without_specials(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_specials(member) for key, member in value.items()}
    if isinstance(value, list):
        return [without_specials(member) for member in value]
    is_special = isinstance(value, float) and not math.isfinite(value)
    return 0.5 if is_special or value == "\ud800" else value
