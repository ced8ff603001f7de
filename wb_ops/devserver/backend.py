"""Everything that both origins share: state, keys, exports, faults, the request log."""

from __future__ import annotations

from dataclasses import dataclass

from wb_ops.devserver.auth import Accounts, ApiKey
from wb_ops.devserver.database import Database
from wb_ops.devserver.exports import Exports
from wb_ops.devserver.faults import Faults
from wb_ops.devserver.filestore import FileStore
from wb_ops.devserver.lines import Lines
from wb_ops.devserver.listing import Listing
from wb_ops.devserver.requestlog import RequestLog
from wb_ops.devserver.signing import Signer
from wb_ops.devserver.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a server behaves where W&B's behaviour varies."""

    has_parquet: bool = True
    parquet_rows_per_file: int = 10_000
    shuffles_urls: bool = True
    url_ttl_s: float = 3600.0
    features: frozenset[str] = frozenset()


class Backend:
    """The state of one dev server."""

    def __init__(
        self,
        *,
        url: str,
        storage_url: str,
        path: str,
        accounts: Accounts,
        options: Options,
    ) -> None:
        self.url = url
        self.storage_url = storage_url
        self.accounts = accounts
        self.options = options
        self.database = Database(path)
        self.store = Store(self.database)
        self.lines = Lines(self.database, self.store)
        self.files = FileStore(self.database)
        self.listing = Listing(self.store)
        self.exports = Exports(self.lines, options.parquet_rows_per_file, options.shuffles_urls)
        self.signer = Signer(storage_url, options.url_ttl_s)
        self.faults = Faults()
        self.requests = RequestLog()

    def reset(self) -> None:
        """Forget runs, faults and requests; keys and addresses stay."""
        self.database.clear()
        self.faults.clear()
        self.requests.clear()

    def close(self) -> None:
        """Close the database and remove the exports."""
        self.exports.close()
        self.database.close()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What resolvers know about the request: who asks, and which oddities were ordered."""

    backend: Backend
    account: ApiKey | None
    quirks: frozenset[str]

    @property
    def signed_in(self) -> ApiKey:
        """The account; anonymous requests get no further than ``viewer``."""
        if self.account is None:
            raise PermissionError("not signed in")
        return self.account


FEATURES = (
    "ARTIFACT_TAGS",
    "CLIENT_IDS",
    "FILESTREAM_GZIP",
    "LARGE_FILENAMES",
    "MARK_RUN_FILES_UPLOADED",
    "STRUCTURED_CONSOLE_LOGS",
    "TOTAL_COUNT_IN_FILE_CONNECTION",
)
"""Server features that the SDK asks about; all are off unless a server is made with them."""
