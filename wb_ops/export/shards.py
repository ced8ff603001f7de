"""A part of a plan that is read anywhere: its rows are staged in the plan's folder.

`shards/2-of-8/` holds the staged parquet files, a `batch-*.json` for each group of runs that was
read and checked, and at the end `done.json`. A shard that is killed goes on after its last batch.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import count
from uuid import uuid4

from wb_ops.client.api import Api
from wb_ops.client.local_files import temporary_folder
from wb_ops.client.source import RunSource
from wb_ops.errors import InvalidRequest
from wb_ops.export.folder import Folder, open_folder
from wb_ops.export.parts import read_planned, read_weights
from wb_ops.export.planned import ExportPlan, load_plan
from wb_ops.export.reading import ConcurrentReader, by_key_set
from wb_ops.export.sealed import Sealed, advices_of, batched, facts_of, late_advices, seal
from wb_ops.export.staged import StagedRows, StagedRun
from wb_ops.export.staging import Stager
from wb_ops.export.stored import StoredRun, dump_stored, load_stored

DONE = "done.json"
# About how many rows are read in the time of a request.
ROWS_PER_REQUEST = 1000


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a plan. Small and plain: `asdict` and `Shard(**values)` carry it."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InvalidRequest(f"shard index={self.index} of count={self.count} does not exist.")

    @property
    def folder(self) -> str:
        """Where its files are, below the plan's folder."""
        return f"shards/{self.index}-of-{self.count}/"

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a shard read. `failed` counts runs that could not be read; receipts say why."""

    index: int
    count: int
    runs: int
    history_rows: int
    failed: int
    requests: int
    size_bytes: int


def execute_shard(plan_uri: str, shard: Shard, api: Api) -> ShardResult:
    """Read the runs of one shard and stage them in the plan's folder; no warehouse is needed.

    Safe to repeat: what is staged already is not read again, and a shard that is done does
    nothing. A run's own failure goes into its receipt.

    Raises:
        NotFound: there is no such plan (retry: never).
        InvalidRequest: the plan is of another W&B server (retry: never).
        CommError: by the table in `errors`; what was read before is kept.
        WarehouseError: the folder cannot be written.
    """
    plan = load_plan(plan_uri)
    if plan.base_url != api.transport.settings.base_url:
        raise InvalidRequest(
            f"The plan is of {plan.base_url}, this Api of {api.transport.settings.base_url}."
        )
    folder = open_folder(plan_uri)
    done = read_result(folder, shard)
    return done or _ShardExecution(plan, shard, api, folder).run()


def read_result(folder: Folder, shard: Shard) -> ShardResult | None:
    """What a shard did; None: it is not done."""
    done = folder.read(shard.folder + DONE)
    return None if done is None else ShardResult(**json.loads(done))


@dataclass(slots=True)
class _ShardExecution:
    plan: ExportPlan
    shard: Shard
    api: Api
    folder: Folder
    # Batches are committed by name: in the order in which one attempt read them.
    numbers: Iterator[int] = field(default_factory=count)

    def run(self) -> ShardResult:
        traffic = self.api.transport.traffic
        sent, received = traffic.requests, traffic.received_bytes
        stored = read_stored(self.folder, self.shard)
        mine = run_ids_of(self.folder, self.shard)
        if missing := mine - {one.run_id for one in stored}:
            self._read(missing)
            stored = read_stored(self.folder, self.shard)
        failed = {one.run_id for run in stored for one in run.receipts if one.status == "failed"}
        result = ShardResult(
            index=self.shard.index,
            count=self.shard.count,
            runs=len(stored),
            history_rows=sum(one.rows for one in stored),
            failed=len(failed),
            requests=traffic.requests - sent,
            size_bytes=traffic.received_bytes - received,
        )
        self.folder.write(self.shard.folder + DONE, json.dumps(asdict(result)).encode())
        return result

    def _read(self, wanted: set[str]) -> None:
        request = self.plan.request
        source = self.api.source(str(request.owner))
        with temporary_folder("wb_ops-shard-") as local:
            stager = Stager(
                source,
                self.api.reader,
                local,
                self.plan.load_id,
                request.redact_secrets,
                compression="lz4",
            )
            runs = by_key_set(list(read_planned(self.folder, wanted)))
            staged = ConcurrentReader(stager, request.max_workers).iter_staged(runs)
            # Before the folder goes, those who write into it end.
            with closing(batched(staged, request.max_cells)) as batches:
                for batch in batches:
                    self._keep(batch.runs, source, is_cut_off=batch.stopped is not None)
                    if batch.stopped is not None:
                        raise batch.stopped

    def _keep(self, batch: Sequence[StagedRun], source: RunSource, *, is_cut_off: bool) -> None:
        """Move a batch into the plan's folder; its JSON, which makes it count, is the last."""
        sealed = seal(self.plan.request, source, batch, is_cut_off=is_cut_off)
        rows = [self._stored(one, run) for one, run in zip(sealed, batch, strict=True)]
        if rows:
            name = f"{self.shard.folder}batch-{next(self.numbers):06}-{uuid4().hex}.json"
            self.folder.write(name, dump_stored(rows))

    def _stored(self, sealed: Sealed, staged: StagedRun) -> StoredRun:
        return StoredRun(
            run_id=sealed.run_id,
            node=sealed.node,
            receipts=sealed.receipts,
            history=self._uploaded(sealed.history),
            system=self._uploaded(sealed.system),
            tail_from=sealed.tail_from,
            keys=sealed.keys,
            written_by=sealed.written_by,
            rows=sealed.rows,
            columns=tuple(sorted(staged.columns)),
            advices=(*advices_of([staged]), *late_advices(sealed.receipts)),
            facts=facts_of([staged]),
        )

    def _uploaded(self, parts: Sequence[StagedRows] | None) -> tuple[str, ...] | None:
        if parts is None:
            return None
        names = tuple(f"{self.shard.folder}{uuid4().hex}.parquet" for _ in parts)
        for part, name in zip(parts, names, strict=True):
            self.folder.put(part.path, name)
            part.discard()
        return names


def read_stored(folder: Folder, shard: Shard) -> list[StoredRun]:
    """The runs that a shard has staged so far, each once."""
    found: dict[str, StoredRun] = {}
    for name in folder.list_names():
        if name.startswith(f"{shard.folder}batch-") and (data := folder.read(name)) is not None:
            for run in load_stored(data):
                found.setdefault(run.run_id, run)
    return list(found.values())


def run_ids_of(folder: Folder, shard: Shard) -> set[str]:
    """The runs of a shard: the largest first, each to the shard that has the fewest rows."""
    weights = read_weights(folder)
    totals = [(0, index) for index in range(shard.count)]
    mine = set()
    for run_id in sorted(weights, key=lambda run_id: (-weights[run_id], run_id)):
        rows, index = heapq.heappop(totals)
        # A run without rows costs its requests.
        heapq.heappush(totals, (rows + weights[run_id] + ROWS_PER_REQUEST, index))
        if index == shard.index:
            mine.add(run_id)
    return mine
