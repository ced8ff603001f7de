"""Histories of all kinds: rows as they are logged, as the server's JSON, and in parquet files."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from simulated_world import STATES, ExportedFile, Row, SimulatedRun, World

SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
FLOATS = (0.1, 1.0, -2.5, 1e300, 5e-324, -0.0, math.nan, math.inf, -math.inf)
INTS = (0, -5, 2**31, 2**53 + 1, -(2**62), 2**63 - 1)
TEXTS = ("plain", "grüße 🚀", "NaN", "", "line\nbreak", "\x00\x01", "null", "[1]", '{"a": 1}')
HISTOGRAMS = (
    {"_type": "histogram", "values": [1, 2, 3], "bins": [0.0, 0.5, 1.0, 1.5]},
    {"_type": "histogram", "values": [4], "bins": [-0.5, 0.5]},
    {"_type": "histogram", "values": [1, 2],
     "packedBins": {"min": 0.0, "size": 0.5, "count": 2}},
)  # fmt: skip
IMAGE = {"_type": "image-file", "path": "media/images/x_0.png", "size": 12, "width": 1}
LABELS = ({"_type": "label", "text": "grüße"}, {"_type": "label", "by": "ann", "text": ""})
LISTS = ([1, 2], [], [3])
FLOAT_LISTS = ([0.5, math.nan], [1.0], [], [-math.inf, -0.0])
UNSIGNED = (0, 2**63, 2**64 - 1)
KINDS = {
    "float": FLOATS, "number": (1, 0.5, 3, -7, 2.0), "int": INTS, "text": TEXTS,
    "bool": (True, False), "histogram": HISTOGRAMS, "image": (IMAGE,), "label": LABELS,
    "list": LISTS, "float list": FLOAT_LISTS, "unsigned": UNSIGNED,
    # Beside a number, a text "NaN" of the same key would be one too.
    "word": TEXTS[:2],
}  # fmt: skip
# Of a key of such a kind one file holds integers and another one something else.
CHANGING = {"mixed": ("int", "float", "word", "bool", "histogram"), "wide": ("int", "float")}
# Where numbers of both kinds are logged, a whole float may be read as an integer is.
LOOSE = {"number", "mixed", "wide"}
NAMES = ("x", "Loss", "loss/val", "größe", "with space", "_private", "n.a", "n.b", "q" * 70)
MANY_STEPS = 6_001
HUGE_GAP = 10**9
BLOB_BYTES = 40_000


def seed_histories(world: World) -> None:
    rng = world.rng
    world.has_parquet = rng.random() < 0.85
    world.takes_many = rng.random() < 0.8
    world.is_inclusive = rng.random() < 0.2
    for index in range(rng.randint(1, 6)):
        run = _seeded_run(rng, f"r{index}", world.has_parquet)
        run.is_poison = rng.random() < world.fault_rate / 4
        world.runs.append(run)


def _seeded_run(rng: random.Random, name: str, has_parquet: bool) -> SimulatedRun:
    run = SimulatedRun(name, [f"{name} v0"], state=rng.choice(STATES))
    is_long = rng.random() < 0.01
    run.kinds = {"x": "float"} if is_long else _kinds(rng)
    run.as_text = {key for key, kind in run.kinds.items() if kind == "float" and rng.random() < 0.3}
    is_nested = rng.random() < 0.5
    steps = _steps(rng, MANY_STEPS if is_long else rng.randint(0, 60))
    exported = rng.randint(0, len(steps)) if has_parquet else 0
    for part in _cut(rng, steps[:exported]):
        rows = _logged(rng, run, part, steps[-1])
        run.files.append(exported_file(rng, rows, run.kinds, is_shuffled=rng.random() < 0.3))
        _log(rng, run, rows, is_nested)
    for step in steps[exported:]:
        # Each row is a part: what is live may be of another kind in each.
        _log(rng, run, _logged(rng, run, [step], steps[-1]), is_nested)
    run.first_live = steps[exported] if exported < len(steps) else None
    was_logged_again = _log_again(rng, run)
    overlaps = bool(run.files) and rng.random() < 0.3
    if overlaps:
        run.first_live = rng.choice(steps[:exported])
    run.may_export = has_parquet and not (was_logged_again or overlaps)
    return run


def _kinds(rng: random.Random) -> dict[str, str]:
    kinds = {key: rng.choice([*KINDS, *CHANGING]) for key in rng.sample(NAMES, rng.randint(1, 5))}
    return kinds | ({"blob": "blob"} if rng.random() < 0.02 else {})


def _steps(rng: random.Random, count: int) -> list[int]:
    start, gap = rng.choice([0, 5, 10**9]), rng.choice([1, 1, 1000])
    jump_at = rng.randrange(count + 1) if rng.random() < 0.1 else count
    return [start + gap * at + HUGE_GAP * (at >= jump_at) for at in range(count)]


def _cut(rng: random.Random, steps: Sequence[int]) -> list[Sequence[int]]:
    cuts = sorted(rng.sample(range(len(steps) + 1), min(3, len(steps) + 1)))
    return [steps[a:b] for a, b in pairwise([0, *cuts, len(steps)]) if b > a]


def _logged(rng: random.Random, run: SimulatedRun, steps: Sequence[int], last: int) -> list[Row]:
    """Rows of these steps, some of them in two calls; a changing key is of one kind in them."""
    kinds = {key: rng.choice(CHANGING.get(kind, (kind,))) for key, kind in run.kinds.items()}
    rows = []
    for step in steps:
        for _ in range(2 if rng.random() < 0.05 else 1):
            chosen = [key for key in kinds if rng.random() < 0.8]
            rows.append({"_step": step, **{key: _value(rng, kinds[key]) for key in chosen}})
    if last in steps:
        # A number among the live rows says that a text "NaN" beside it is one too.
        rows[-1] |= dict.fromkeys(run.as_text, 0.5)
    return rows


def _value(rng: random.Random, kind: str) -> Any:
    return rng.randbytes(BLOB_BYTES).hex() if kind == "blob" else rng.choice(KINDS[kind])


def _log(rng: random.Random, run: SimulatedRun, rows: Sequence[Row], is_nested: bool) -> None:
    for row in rows:
        run.add(row, _line(rng, run, row, is_nested))


def _line(rng: random.Random, run: SimulatedRun, row: Row, is_nested: bool) -> str:
    """The row as the server's JSON: special floats bare or as texts, keys with dots as objects."""
    line: Row = {}
    for key, value in row.items():
        if key in run.as_text:
            value = next((text for text, one in SPECIAL.items() if _is(value, one)), value)
        if key.startswith("n.") and is_nested:
            line.setdefault("n", {})[key.removeprefix("n.")] = value
        else:
            line[key] = value
    absent = [key for key in run.kinds if key not in row and not key.startswith("n.")]
    return json.dumps(line | {key: None for key in absent if rng.random() < 0.2})


def _is(one: object, other: float) -> bool:
    return isinstance(one, float) and (one == other or (math.isnan(one) and math.isnan(other)))


def _log_again(rng: random.Random, run: SimulatedRun) -> bool:
    """Export some rows once more, out of order, with other values; whether that was done."""
    exported = [row for file in run.files for row in file.rows]
    if not exported or rng.random() < 0.5:
        return False
    for _ in range(rng.randint(1, 2)):
        rows = [dict(row) for row in rng.sample(exported, rng.randint(1, len(exported)))]
        if min(row["_step"] for row in rows) in {file.first_step for file in run.files}:
            # Of two files that begin at one step nobody can say which is the later one.
            continue
        for row in rows:
            for key in row.keys() - {"_step"}:
                if rng.random() < 0.3 and run.kinds[key] in KINDS:
                    row[key] = _value(rng, run.kinds[key])
        run.files.append(exported_file(rng, rows, run.kinds, is_shuffled=False))
    return True


def exported_file(
    rng: random.Random, rows: Sequence[Row], kinds: dict[str, str], *, is_shuffled: bool
) -> ExportedFile:
    """A file of these rows, without the cells that its columns cannot hold."""
    rows = rng.sample(rows, len(rows)) if is_shuffled else rows
    steps = [row["_step"] for row in rows]
    columns: dict[str, pa.Array] = {}
    for key in kinds:
        column = _column(rng, [row.get(key) for row in rows])
        if column is not None:
            columns[key] = column
    step_type = rng.choice([pa.int64(), pa.int64(), pa.float64(), pa.uint64(), pa.int32()])
    table = pa.table({"_step": pa.array(steps, pa.int64()).cast(step_type), **columns})
    content = io.BytesIO()
    pq.write_table(
        table, content, row_group_size=rng.choice([3, 7, 1000]),
        compression=rng.choice(["snappy", "zstd", "none"]), write_statistics=rng.random() < 0.8,
    )  # fmt: skip
    held = [{key: row[key] for key in row if key == "_step" or key in columns} for row in rows]
    return ExportedFile(held, content.getvalue())


def _column(rng: random.Random, values: Sequence[Any]) -> pa.Array | None:
    """The values as a column of one of the types that W&B may have written; None if of none."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return rng.choice([None, pa.nulls(len(values))])
    if kinds == {dict}:
        if all(value is None or value["_type"] == "label" for value in values):
            pairs = [None if value is None else list(value.items()) for value in values]
            return pa.array(pairs, pa.map_(pa.string(), pa.string()))
        texts = [None if value is None else json.dumps(value) for value in values]
        return rng.choice([pa.array(values), pa.array(texts), pa.array(texts, pa.json_())])
    if kinds == {list}:
        kinds = {type(member) for value in values for member in value or ()}
        return pa.array(values, pa.list_(pa.float64() if kinds == {float} else pa.int64()))
    if kinds == {str}:
        texts = pa.array(values)
        return rng.choice([texts, texts.cast(pa.large_string()), texts.dictionary_encode()])
    if kinds == {bool}:
        return pa.array(values)
    if kinds == {int}:
        return pa.array(
            values, _integer_type(rng, [value for value in values if value is not None])
        )
    if kinds <= {int, float} and all(type(v) is not int or abs(v) <= 2**53 for v in values):
        return pa.array([None if value is None else float(value) for value in values])
    return None


def _integer_type(rng: random.Random, values: Sequence[int]) -> pa.DataType:
    fitting = [pa.int64()] if max(values) < 2**63 else []
    if min(values) >= 0:
        fitting.append(pa.uint64())
    if min(values) >= -(2**31) and max(values) < 2**31:
        fitting.append(pa.int32())
    return rng.choice(fitting)
