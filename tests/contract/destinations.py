"""What the contract suite needs of a destination beside the protocol `Warehouse`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import adbc_driver_postgresql.dbapi as adbc
import boto3
import duckdb
import fsspec
import pyarrow as pa
import pytest
import requests
from held_file import held

from wb_ops import Warehouse, connect
from wb_ops.tables.schemas import RUNS
from wb_ops.warehouse import Batch, Owner

NEWER_TABLES = ("runs_flat", "history_long", "system_metrics")


class Destination(ABC):
    """A fresh, empty place, and what somebody else may do to it."""

    url: str

    @classmethod
    @abstractmethod
    def opened(
        cls, folder: Path, request: pytest.FixtureRequest
    ) -> AbstractContextManager[Destination]:
        """Make the place; `folder` is empty."""

    def connect(self, lock_timeout_s: float = 10, **options: object) -> Warehouse:
        """A warehouse on it."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        sign = "&" if "?" in self.url else "?"
        return connect(self.url + (sign + query if query else ""), lock_timeout_s=lock_timeout_s)

    @abstractmethod
    def set_schema_version(self, dataset: str, version: int) -> None:
        """Make a dataset look as if another version of wb_ops had written it."""

    @abstractmethod
    def downgrade(self, dataset: str) -> None:
        """Take away what schema version 2 has brought."""

    @abstractmethod
    def held(self, dataset: str) -> AbstractContextManager[None]:
        """Another process writes into a dataset, for as long as this is open."""

    @abstractmethod
    def read_only(self) -> AbstractContextManager[Warehouse]:
        """The same place, where nothing can be written."""

    @abstractmethod
    def missing(self) -> Warehouse:
        """A place that is not there."""


class DuckDBDestination(Destination):
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"duckdb:///{path}"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[Destination]:
        # Not in `folder`, into which root alone can look.
        with tempfile.TemporaryDirectory(prefix="wb_ops-duckdb-") as place:
            Path(place).chmod(0o755)
            yield cls(Path(place, "warehouse.duckdb"))

    def execute(self, sql: str) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)

    def set_schema_version(self, dataset: str, version: int) -> None:
        self.execute(f"update {dataset}._wb_state set schema_version = {version}")

    def downgrade(self, dataset: str) -> None:
        drops = [f"drop table {dataset}.{table} cascade" for table in NEWER_TABLES]
        self.execute("; ".join([f"drop view {dataset}.history_tall", "drop view all_runs", *drops]))
        self.set_schema_version(dataset, 1)

    @contextmanager
    def held(self, dataset: str) -> Iterator[None]:
        with held(self.path):
            yield

    @contextmanager
    def read_only(self) -> Iterator[Warehouse]:
        self.path.chmod(0o444)
        with as_nobody():
            yield connect(self.url, lock_timeout_s=0.5)

    def missing(self) -> Warehouse:
        return connect(f"duckdb:///{self.path.parent}/no/such/folder/x.duckdb")


class ParquetDestination(Destination):
    """A folder of parquet parts."""

    kind = "parquet"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"{self.kind}:///{path}"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[Destination]:
        # Not below pytest's own folder: `read_only` reads it as somebody else.
        with TemporaryDirectory(prefix="wb_ops-lake-") as place:
            os.chmod(place, 0o755)
            yield cls(Path(place) / "lake")

    def set_schema_version(self, dataset: str, version: int) -> None:
        warehouse = self.connect()
        state = warehouse.read_tables(dataset, ["_wb_state"])["_wb_state"]
        owner = Owner(state["entity"][0].as_py(), state["project"][0].as_py())
        index = state.schema.get_field_index("schema_version")
        versions = pa.array([version] * state.num_rows, pa.int64())
        newer = state.set_column(index, state.schema.field(index), versions)
        runs = RUNS.empty_table()
        warehouse.commit(Batch(dataset, owner, "load-x", runs, meta={"_wb_state": newer}))

    def downgrade(self, dataset: str) -> None:
        self.set_schema_version(dataset, 1)
        newest = max((self.path / dataset / "_manifests").iterdir())
        newest.write_text(without_newer_tables(newest.read_text()))

    @contextmanager
    def held(self, dataset: str) -> Iterator[None]:
        hold = (
            "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print(1, flush=True); input()"
        )
        with holding([sys.executable, "-c", hold, str(self.path / dataset / "_lock")]):
            yield

    @contextmanager
    def read_only(self) -> Iterator[Warehouse]:
        self.path.mkdir(exist_ok=True)
        self.path.chmod(0o555)
        with as_nobody():
            yield connect(self.url, lock_timeout_s=0.5)

    def missing(self) -> Warehouse:
        return connect(f"{self.kind}:///{self.path.parent}/no/such/folder")


class DeltaDestination(ParquetDestination):
    """A folder of Delta tables."""

    kind = "delta"


class ParquetBucket(ParquetDestination):
    """A folder of parquet parts in a bucket of an S3 server."""

    def __init__(self, server: str, place: str) -> None:
        self.server, self.place = server, place
        self.url = f"{self.kind}+s3://{place}"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[Destination]:
        server, bucket = map(request.getfixturevalue, ("s3_server", "bucket"))
        yield cls(server, f"{bucket}/some/lake")

    def downgrade(self, dataset: str) -> None:
        self.set_schema_version(dataset, 1)
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        newest = max(files.ls(f"{self.place}/{dataset}/_manifests", detail=False))
        files.write_text(newest, without_newer_tables(files.read_text(newest)))

    @contextmanager
    def held(self, dataset: str) -> Iterator[None]:
        hold = (
            "import sys; from wb_ops import connect\n"
            "with connect(sys.argv[1])._locked(sys.argv[2]):\n"
            "    print(1, flush=True); input()"
        )
        with holding([sys.executable, "-c", hold, self.url, dataset]):
            yield

    @contextmanager
    def read_only(self) -> Iterator[Warehouse]:
        """Somebody who may read; the server asks for rights as long as this is open."""
        iam = boto3.client("iam")
        user = f"reader-{uuid.uuid4().hex}"
        iam.create_user(UserName=user)
        may_read = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [may_read]})
        iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        credentials = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in credentials.items():
                patch.setenv(name, value)
            requests.post(f"{self.server}/moto-api/reset-auth", data="0", timeout=10)
            try:
                yield connect(self.url, lock_timeout_s=0.5)
            finally:
                requests.post(f"{self.server}/moto-api/reset-auth", data="inf", timeout=10)

    def missing(self) -> Warehouse:
        return connect(f"{self.kind}+s3://no-such-bucket/lake")


class DeltaBucket(ParquetBucket):
    """A folder of Delta tables in a bucket."""

    kind = "delta"


class PostgresDestination(Destination):
    """A database of its own on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, request: pytest.FixtureRequest) -> Iterator[Destination]:
        yield cls(request.getfixturevalue("new_database")())

    def set_schema_version(self, dataset: str, version: int) -> None:
        administer(self.url, f"update {dataset}._wb_state set schema_version = {version}")

    def downgrade(self, dataset: str) -> None:
        drops = [f"drop table {dataset}.{table} cascade" for table in NEWER_TABLES]
        administer(self.url, "drop view wb_ops.all_runs", *drops)
        self.set_schema_version(dataset, 1)

    @contextmanager
    def held(self, dataset: str) -> Iterator[None]:
        hold = (
            "import sys; from wb_ops import connect\n"
            "with connect(sys.argv[1])._transaction(sys.argv[2]):\n"
            "    print(1, flush=True); input()"
        )
        with holding([sys.executable, "-c", hold, self.url, dataset]):
            yield

    @contextmanager
    def read_only(self) -> Iterator[Warehouse]:
        name = urlsplit(self.url).path.removeprefix("/")
        administer(self.url, f"alter database {name} set default_transaction_read_only = on")
        yield self.connect()

    def missing(self) -> Warehouse:
        return connect("postgresql://ann@127.0.0.1:1/nowhere")


def without_newer_tables(text: str) -> str:
    """A manifest as schema version 1 had it."""
    manifest = json.loads(text)
    tables = manifest["tables"]
    manifest["tables"] = {name: tables[name] for name in tables.keys() - set(NEWER_TABLES)}
    return json.dumps(manifest)


def administer(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    with adbc.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


@contextmanager
def holding(command: list[str]) -> Iterator[None]:
    """Run a program that prints a line when it holds, and lets go at its end of input."""
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        yield
    finally:
        holder.communicate("\n", timeout=20)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write what is read-only: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
