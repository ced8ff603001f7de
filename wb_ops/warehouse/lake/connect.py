"""From a URL to a lake: `parquet:///FOLDER`, `delta:///FOLDER`, `parquet+s3://BUCKET/PREFIX`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.lake.parts import ParquetTables
from wb_ops.warehouse.lake.snapshot import Format
from wb_ops.warehouse.lake.storage import FsspecStorage, LocalStorage, Storage
from wb_ops.warehouse.lake.warehouse import LakeWarehouse
from wb_ops.warehouse.sql import Limits

# Wider tables are slow to open in every reader of parquet.
HISTORY_COLUMNS = 1000
FLAT_COLUMNS = 500


def connect_lake(
    parts: SplitResult,
    *,
    lock_timeout_s: float,
    history_columns: int = HISTORY_COLUMNS,
    flat_columns: int = FLAT_COLUMNS,
) -> LakeWarehouse:
    """Return the lake behind a URL; opens nothing yet.

    Raises:
        WarehouseRefused: the URL is not one, holds credentials, or a package is missing
            (retry: never).
    """
    kind, _, protocol = parts.scheme.partition("+")
    _check(parts, kind, protocol)
    url = f"{parts.scheme}://{parts.netloc}{parts.path}"
    limits = Limits(history_columns, flat_columns, flat_columns)
    try:
        storage, format_ = _storage(parts, protocol), _format(kind)
    except ImportError as exc:
        extras = f"{kind},{'s3' if protocol == 's3' else 'fsspec'}" if protocol else kind
        more = f", and fsspec's package for {protocol}" if protocol not in ("", "s3") else ""
        raise WarehouseRefused(
            f"A package is not installed ({exc}): pip install 'wb-ops[{extras}]'{more}.", exc
        ) from exc
    return LakeWarehouse(url, storage, format_, limits, lock_timeout_s=lock_timeout_s)


def _check(parts: SplitResult, kind: str, protocol: str) -> None:
    # Not quoted: what is wrong with it may be a secret in it.
    if "@" in parts.netloc or parts.fragment:
        raise WarehouseRefused(
            f"A {kind} URL holds no user and no password: it is stored and shown. Credentials "
            "come from the environment, such as AWS_ACCESS_KEY_ID or AWS_PROFILE."
        )
    if protocol:
        if not parts.netloc:
            raise WarehouseRefused(
                f"{parts.scheme}:// names no bucket: use {kind}+{protocol}://BUCKET/FOLDER."
            )
    elif parts.netloc or not parts.path.strip("/"):
        raise WarehouseRefused(
            f"{kind}:// names no folder: use {kind}:///FOLDER, with three slashes."
        )


def _storage(parts: SplitResult, protocol: str) -> Storage:
    if not protocol:
        return LocalStorage(Path(parts.path[1:]))
    try:
        return FsspecStorage(f"{protocol}://{parts.netloc}{parts.path}")
    except ValueError as exc:
        raise WarehouseRefused(f"{protocol}:// is no storage that fsspec knows.", exc) from exc


def _format(kind: str) -> Format:
    if kind == "parquet":
        return Format(kind, ParquetTables)
    from wb_ops.warehouse.lake.deltas import DeltaTables

    return Format(kind, DeltaTables)
