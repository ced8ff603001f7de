"""Compares computed values with the runs as they are; decides, writes nothing."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from wb_ops.backfill.journal import Entry, last_written
from wb_ops.backfill.planned import (
    PlannedValue,
    capped,
    csv_text,
    diff_text,
    digest,
    table_text,
)
from wb_ops.backfill.policy import UNLISTED, decide, stale_histories, why_not
from wb_ops.backfill.recipes import Recipe
from wb_ops.backfill.replay import planned_again
from wb_ops.backfill.request import BackfillRequest
from wb_ops.backfill.stored import read_document, request_document
from wb_ops.backfill.targets import NOTES, read_values
from wb_ops.backfill.values import Values, values_of
from wb_ops.client.api import Api
from wb_ops.client.source import Node
from wb_ops.errors import CommError, InvalidRequest, MalformedResponse
from wb_ops.warehouse import Warehouse

# A log of 20,000 lines helps nobody; `to_csv()` has them all.
MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill will write; `str(plan)` is for people, `values` for programs."""

    request: BackfillRequest
    backfill_id: str
    values: tuple[PlannedValue, ...]

    @property
    def to_set(self) -> tuple[PlannedValue, ...]:
        """The values that will be written, and the members of others that will be put back."""
        return tuple(value for value in self.values if value.action in ("set", "put_back"))

    @property
    def counts(self) -> dict[str, int]:
        """How many values have each action; skipped ones by their reason."""
        return dict(sorted(Counter(_label(value) for value in self.values).items()))

    @property
    def hash(self) -> str:
        """Equal for plans that do the same; planning again without a change gives it again."""
        return digest(str(self.request.owner), self.values)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {label}" for label, count in self.counts.items())
        head = f"backfill {self.backfill_id} of {self.request.owner}: {counts or 'nothing'}"
        return "\n".join([head, *capped([f"  {value}" for value in self.to_set], MAX_SHOWN)])

    def to_table(self, limit: int | None = MAX_SHOWN) -> str:
        """Return every value with its action and reason as aligned columns, at most `limit`."""
        return table_text(self.values, limit)

    def to_diff(self, limit: int | None = MAX_SHOWN) -> str:
        """Return what will be written as a diff, at most `limit` lines."""
        return diff_text(self.to_set, limit)

    def to_csv(self) -> str:
        """Return all values as CSV; `old` and `new` are JSON texts."""
        return csv_text(self.values)

    def to_json(self) -> str:
        """Return the plan as one JSON object; `old` and `new` are JSON texts."""
        return json.dumps(
            {
                "backfill_id": self.backfill_id,
                "project": str(self.request.owner),
                "hash": self.hash,
                "counts": self.counts,
                "request": request_document(self.request),
                "values": [asdict(value) for value in self.values],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> BackfillPlan:
        """Return the plan that `to_json` gave, to be executed later or elsewhere.

        Its values carry what each run held when it was planned: what somebody has changed since
        is a conflict when it is executed.

        Raises:
            InvalidRequest: it is no such text, or its values are not those of its hash
                (retry: never).
        """
        found, request, values = read_document(text)
        plan = cls(request, str(found["backfill_id"]), values)
        if plan.hash != found.get("hash"):
            raise InvalidRequest(
                f"The plan's values have the hash {plan.hash}, the plan says {found.get('hash')}: "
                "it was changed after it was made. Plan again."
            )
        return plan


def plan_backfill(
    request: BackfillRequest, api: Api, warehouse: Warehouse, journal: Warehouse | None = None
) -> BackfillPlan:
    """Compute the values and compare them with the runs as they are now.

    Costs one request for 1,000 runs, and what `compute` reads. `journal` is where the backfill will
    be recorded, if not in `warehouse`: one that can only be read is then enough for `sql`. Execute
    with it, and give it alone for an undo or a resume.

    Raises:
        CommError: by the table in `errors`.
        InvalidRequest, WarehouseRefused: the SQL or a value cannot be used (retry: never).
    """
    journal = journal or warehouse
    journal.check(request.dataset_name, request.owner)
    source = api.source(str(request.owner))
    if request.undo or request.resume:
        backfill_id, again = planned_again(request, source, journal)
        return BackfillPlan(request, backfill_id or _new_id(), tuple(again))
    broken: dict[str, CommError] = {}
    listed = source.iter_nodes(request.filters, on_broken=broken.__setitem__)
    nodes = {node["name"]: node for node in listed}
    writable = [node for node in nodes.values() if not why_not(request, node)]
    computed, reasons = values_of(request, api, warehouse, _to_compute(request, writable))
    reasons |= dict.fromkeys(broken, UNLISTED)
    planned = _Planner(request, warehouse, journal, nodes, reasons).planned(
        {**_not_computed(request, [*nodes, *broken]), **computed}
    )
    return BackfillPlan(request, _new_id(), tuple(planned))


class _Planner:
    """Decides about each value; reads of warehouse and journal what the request needs."""

    def __init__(
        self,
        request: BackfillRequest,
        warehouse: Warehouse,
        journal: Warehouse,
        nodes: Mapping[str, Node],
        reasons: Mapping[str, str],
    ) -> None:
        self._request = request
        self._nodes = nodes
        self._reasons = reasons
        is_checked = request.sql is not None and not request.include_incomplete
        self._stale = stale_histories(request, warehouse, nodes) if is_checked else {}
        self._ours: dict[tuple[str, str], Entry] = {}
        if request.policy == "overwrite_if_older":
            self._ours = last_written(journal, request.dataset_name, request.target, self._now)

    def _now(self, run_id: str, key: str) -> str | None:
        node = self._nodes.get(run_id)
        return _held(self._request, node).get(key) if node else None

    def planned(self, computed: Values) -> Iterator[PlannedValue]:
        for run_id, texts in sorted(computed.items()):
            node = self._nodes.get(run_id)
            why = (
                self._reasons.get(run_id, "")
                or why_not(self._request, node)
                or self._stale.get(run_id, "")
            )
            held: dict[str, str] = {}
            try:
                held = read_values(node, self._request.target) if node else {}
            except MalformedResponse:
                why = "unreadable"
            for key, text in texts.items():
                yield self._planned(run_id, key, text, node, held.get(key), why)

    def _planned(
        self, run_id: str, key: str, text: str | None, node: Node | None, old: str | None, why: str
    ) -> PlannedValue:
        target = self._request.target
        new = _wanted(self._request, key, text)
        if text is None and not why:
            kept = old is not None and self._request.policy == "only_missing"
            why = "has a value" if kept else "missing value"
        if why or node is None:
            return PlannedValue(run_id, key, old, new, "skipped", why, target)
        ours = self._ours.get((run_id, key))
        action, reason = decide(self._request, node, old, new, ours)
        return PlannedValue(run_id, key, old, new, action, reason, target)


def _to_compute(request: BackfillRequest, nodes: list[Node]) -> list[Node]:
    """Leave out the runs that have all that a recipe would write, where it would not be used."""
    recipe = request.compute
    if not isinstance(recipe, Recipe) or request.policy != "only_missing":
        return nodes
    return [node for node in nodes if not set(recipe.writes) <= set(_held(request, node))]


def _not_computed(request: BackfillRequest, run_ids: Iterable[str]) -> Values:
    """The keys of a recipe for every run: those that are not computed say why in the plan."""
    recipe = request.compute
    if not isinstance(recipe, Recipe):
        return {}
    return {run_id: dict.fromkeys(recipe.writes) for run_id in run_ids}


def _held(request: BackfillRequest, node: Node) -> dict[str, str]:
    try:
        return read_values(node, request.target)
    except MalformedResponse:
        return {}


def _wanted(request: BackfillRequest, key: str, text: str | None) -> str | None:
    """The text that shall be there: of a tag `true` or none, of the notes a string."""
    if text is None or request.target in ("summary", "config"):
        return text
    if request.target == "tags":
        if text not in ("true", "false"):
            raise InvalidRequest(f"tag {key!r}: {text} is neither true (add) nor false (remove).")
        return "true" if text == "true" else None
    if key != NOTES or not text.startswith('"'):
        raise InvalidRequest(f"target='notes' takes one text under the key 'notes', not {key!r}.")
    return text if json.loads(text) else None


def _new_id() -> str:
    return f"bf-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def _label(value: PlannedValue) -> str:
    return f"skipped ({value.reason})" if value.action == "skipped" else value.action
