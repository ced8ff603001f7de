"""A run's summary as a mapping; what is written is merged into the server's newest document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from wb_ops.client.documents import dump_value
from wb_ops.tables.values import parse_json


class Summary(MutableMapping[str, Any]):
    """The summary of one run: read like a dict, written by `update()`.

    Assignments and `del` stay local until `update()`, as in W&B's SDK. Unlike there, only the
    keys that were set or deleted here are changed: the document is read fresh first.
    """

    def __init__(
        self, text: str | None, write: Callable[[dict[str, str], set[str]], str | None]
    ) -> None:
        self._write = write
        self._load(text)

    def _load(self, text: str | None) -> None:
        document = parse_json(text) if text else {}
        self._values: dict[str, Any] = document if isinstance(document, dict) else {}
        self._changed: set[str] = set()
        self._removed: set[str] = set()

    @property
    def _json_dict(self) -> dict[str, Any]:
        """The values as plain JSON types, the name under which W&B's guide uses them."""
        return dict(self._values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._changed.add(key)
        self._removed.discard(key)

    def __delitem__(self, key: str) -> None:
        del self._values[key]
        self._removed.add(key)
        self._changed.discard(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Summary({self._values!r})"

    def update(self, values: Mapping[str, Any] | None = None, /) -> None:  # type: ignore[override]  # W&B's name and form
        """Set `values` and send every change made here; costs three requests.

        The summary is read fresh, our keys are replaced in it, every other key keeps its JSON
        text, and the result is read back.

        Raises:
            CommError: OutcomeUnknown if the answer was lost and the value is not there
                (retry: verify).
        """
        for key, value in (values or {}).items():
            self[key.strip()] = value
        if self._changed or self._removed:
            changes = {key: dump_value(self._values[key]) for key in sorted(self._changed)}
            self._load(self._write(changes, set(self._removed)))
