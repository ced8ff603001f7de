"""What a file system or an object store's library raises, as our errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused, WarehouseUnavailable
from wb_ops.warehouse.base import BUSY_RETRY_S, FULL_DISK, MAKE_ROOM
from wb_ops.warehouse.lake.locks import LockHeld, Overtaken
from wb_ops.warehouse.urls import without_secrets

_REFUSED = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
_REFUSED_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG}
_REFUSED_WORDS = re.compile(
    r"access ?denied|forbidden|\b40[134]\b|permission|read-only|credential|signature"
    r"|no ?such ?bucket|invalidaccesskey|not found|schema|invariant",
    re.IGNORECASE,
)
_CONFLICT_WORDS = re.compile(r"conflict|already exists|max.*commit", re.IGNORECASE)


@contextmanager
def failures(url: str, lock_timeout_s: float) -> Iterator[None]:
    """Raise what the block raises under our names; errors that are ours, and bugs, as they are."""
    try:
        yield
    except LockHeld as exc:
        what = f"is held by another writer for longer than {lock_timeout_s:g} s"
        raise busy(url, what, exc) from exc
    except Overtaken as exc:
        raise busy(url, "was written by another writer that took over the lock", exc) from exc
    except WarehouseError:
        raise
    except Exception as exc:
        # The drivers share no base class; what is not theirs is a bug and leaves as it is.
        error = _mapped(url, exc)
        if error is None:
            raise
        raise error from exc


def busy(url: str, what: str, exc: Exception | None) -> WarehouseBusy:
    """Somebody else writes; the batch can be committed again."""
    return WarehouseBusy(
        f"{url} {what}: try again, or export into a folder of its own.",
        exc,
        path=url,
        retry_after_s=BUSY_RETRY_S,
    )


def _mapped(url: str, exc: Exception) -> WarehouseError | None:
    name, module = type(exc).__name__, type(exc).__module__.split(".")[0]
    text = without_secrets(f"{url}: {exc}")
    if FULL_DISK.search(text):
        return WarehouseRefused(f"{text}. {MAKE_ROOM}", exc, path=url)
    if isinstance(exc, OSError) and (isinstance(exc, _REFUSED) or exc.errno in _REFUSED_NUMBERS):
        return WarehouseRefused(text, exc, path=url)
    is_foreign = module in (
        "_internal",
        "deltalake",
        "botocore",
        "aiobotocore",
        "duckdb",
        "_duckdb",
    )
    if not is_foreign and not isinstance(exc, OSError):
        return None
    if name in ("CommitFailedError", "TransactionError") or (
        module in ("_internal", "deltalake") and _CONFLICT_WORDS.search(text)
    ):
        return busy(url, "was written by another writer at the same time", exc)
    if module in ("duckdb", "_duckdb") or _REFUSED_WORDS.search(f"{name} {text}"):
        return WarehouseRefused(text, exc, path=url)
    return WarehouseUnavailable(text, exc, path=url)
