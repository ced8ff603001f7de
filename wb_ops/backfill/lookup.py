"""Runs by their ids, such that a failing server never passes for a deletion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wb_ops.client.source import Node, RunSource
from wb_ops.client.writing import read_runs
from wb_ops.errors import CommError

RUNS_PER_REQUEST = 25


@dataclass(slots=True)
class Found:
    """The runs, and why the server could not give some; what is in neither was deleted."""

    nodes: dict[str, Node] = field(default_factory=dict)
    broken: dict[str, CommError] = field(default_factory=dict)


def look_up(source: RunSource, run_ids: Sequence[str]) -> Found:
    """Read runs, 200 in a request; those that are missing there are asked for by id once more.

    Raises:
        CommError: by the table in `errors`, but not for a single run.
    """
    found = Found()
    found.nodes = source.fetch_nodes(run_ids, on_broken=found.broken.__setitem__)
    missing = [one for one in run_ids if one not in found.nodes and one not in found.broken]
    for at in range(0, len(missing), RUNS_PER_REQUEST):
        found.nodes |= read_runs(source, missing[at : at + RUNS_PER_REQUEST])
    return found
