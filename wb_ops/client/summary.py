"""A run's summary as a mapping; what is written is merged into the server's newest document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from wb_ops.client.documents import dump_value, renew
from wb_ops.errors import MalformedResponse
from wb_ops.tables.values import parse_json


class Summary(MutableMapping[str, Any]):
    """The summary of one run: read like a dict, written by `update()`.

    Keys are attributes too (`run.summary.loss = 0.1`), and assignments and `del` stay local until
    `update()`, as in W&B's SDK. Unlike there, only the keys that were changed or deleted here are
    written: the document is read fresh first.
    """

    def __init__(
        self, text: str | None, write: Callable[[dict[str, str], set[str], bool], str | None]
    ) -> None:
        self._write = write
        self._values: dict[str, Any] = {}
        self.take(text)

    def take(self, text: str | None) -> None:
        """Hold the document as the server has it now; changes made here are gone."""
        self._text = text
        renew(self._values, _document(text))

    @property
    def _json_dict(self) -> dict[str, Any]:
        """The values as plain JSON types, the name under which W&B's guide uses them."""
        return dict(self._values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key.strip()] = value

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name not in self._values:
                raise AttributeError(f"The summary has no key {name!r}.")
            return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Summary({self._values!r})"

    @property
    def has_changes(self) -> bool:
        """Whether something was changed here that `update()` has not sent."""
        return any(self.changes())

    def update(  # type: ignore[override]  # W&B's name and form
        self, values: Mapping[str, Any] | None = None, /, *, include_running: bool = False
    ) -> None:
        """Set `values` and send every change made here, nested ones too; three requests.

        The summary is read fresh, our keys are replaced in it, every other key keeps its JSON
        text, and the result is read back.

        Raises:
            InvalidRequest: the run still runs, and `include_running` is not given: its next write
                would replace the summary (retry: never).
            CommError: OutcomeUnknown if the answer was lost and the value is not there
                (retry: verify).
        """
        for key, value in (values or {}).items():
            self[key] = value
        changes, removed = self.changes()
        if changes or removed:
            self.take(self._write(changes, removed, include_running))

    def changes(self) -> tuple[dict[str, str], set[str]]:
        """Compare with the document as it was read: (name -> new JSON text, names taken out)."""
        before = {name: dump_value(value) for name, value in _document(self._text).items()}
        now = {name: dump_value(value) for name, value in self._values.items()}
        changes = {name: text for name, text in now.items() if before.get(name) != text}
        return changes, set(before) - set(now)


def _document(text: str | None) -> dict[str, Any]:
    try:
        document = parse_json(text) if text else {}
    except ValueError as exc:
        raise MalformedResponse("A run's summary is no JSON.", exc) from exc
    return document if isinstance(document, dict) else {}
