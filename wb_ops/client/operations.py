"""Every GraphQL query that is ever sent, with its name and kind; `mutations` has the writes.

Source: captured from SDK 0.31.0; an unknown field would be an error, so only fields that the
SDK itself selects are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Operation:
    """One GraphQL request: its document and its variables.

    `is_write` decides what a lost answer means: a query is asked again, a write is verified.
    """

    name: str
    document: str
    variables: Mapping[str, object] = field(default_factory=dict)
    is_write: bool = False


RUN_FIELDS = """
  id name displayName state group jobType sweepName tags notes description commit readOnly
  createdAt heartbeatAt historyLineCount historyKeys config summaryMetrics
  user { name username }
"""

USER_FIELDS = """
  id name username email admin entity deletedAt teams { edges { node { name } } }
"""

VIEWER = f"query Viewer {{ viewer {{ {USER_FIELDS} }} }}"

_PROJECT_FIELDS = f"id name createdAt isBenchmark user {{ {USER_FIELDS} }}"

PROJECT = f"""
query GetProject($entity: String!, $project: String!) {{
  project(name: $project, entityName: $entity) {{ {_PROJECT_FIELDS} }}
}}
"""

PROJECTS = f"""
query GetProjects($entity: String, $cursor: String, $perPage: Int) {{
  models(entityName: $entity, after: $cursor, first: $perPage) {{
    edges {{ node {{ {_PROJECT_FIELDS} }} }}
    pageInfo {{ endCursor hasNextPage }}
  }}
}}
"""

_SWEEP_FIELDS = """
  id name displayName method state description bestLoss config createdAt updatedAt
  runCount runCountExpected
"""

SWEEP = f"""
query GetSweep($entity: String!, $project: String!, $name: String!) {{
  project(name: $project, entityName: $entity) {{
    sweep(sweepName: $name) {{ {_SWEEP_FIELDS} }}
  }}
}}
"""

SWEEPS = f"""
query GetSweeps($entity: String!, $project: String!, $cursor: String, $perPage: Int) {{
  project(name: $project, entityName: $entity) {{
    sweeps(after: $cursor, first: $perPage) {{
      edges {{ node {{ {_SWEEP_FIELDS} }} }}
      pageInfo {{ endCursor hasNextPage }}
    }}
  }}
}}
"""

RUNS = f"""
query Runs($entity: String!, $project: String!, $cursor: String, $perPage: Int,
           $order: String, $filters: JSONString) {{
  project(name: $project, entityName: $entity) {{
    runCount(filters: $filters)
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {{
      edges {{ node {{ {RUN_FIELDS} }} cursor }}
      pageInfo {{ endCursor hasNextPage }}
    }}
  }}
}}
"""

# Two counts that tell whether a field is one that the server filters on.
FILTER_PROBE = """
query FilterProbe($entity: String!, $project: String!, $any: JSONString, $none: JSONString) {
  project(name: $project, entityName: $entity) {
    any: runCount(filters: $any)
    none: runCount(filters: $none)
  }
}
"""

# The place of a run whose fields cannot be read: what it is called, and the cursor after it.
RUN_NAMES = """
query RunNames($entity: String!, $project: String!, $cursor: String, $perPage: Int,
               $order: String, $filters: JSONString) {
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {
      edges { node { id name } cursor }
      pageInfo { endCursor hasNextPage }
    }
  }
}
"""

RUN = f"""
query Run($entity: String!, $project: String!, $name: String!) {{
  project(name: $project, entityName: $entity) {{
    run(name: $name) {{ {RUN_FIELDS} }}
  }}
}}
"""

# Not part of a listing: nearly nobody reads it, and it is as large as a summary.
SYSTEM_METRICS = """
query RunSystemMetrics($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { systemMetrics }
  }
}
"""

RUN_STATE = """
query RunState($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { state }
  }
}
"""

HISTORY_SOURCES = """
query RunParquetHistory($entity: String!, $project: String!, $name: String!,
                        $liveKeys: [String!]!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) {
      historyLineCount historyKeys
      parquetHistory(liveKeys: $liveKeys) { parquetUrls liveData }
    }
  }
}
"""

HISTORY_COUNTERS = """
query RunHistoryKeys($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { historyLineCount historyKeys }
  }
}
"""

HISTORY_PAGE = """
query HistoryPage($entity: String!, $project: String!, $name: String!,
                  $minStep: Int64!, $maxStep: Int64!, $samples: Int!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { history(minStep: $minStep, maxStep: $maxStep, samples: $samples) }
  }
}
"""

SAMPLED_HISTORY = """
query RunSampledHistory($entity: String!, $project: String!, $name: String!,
                        $specs: [JSONString!]!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { sampledHistory(specs: $specs) }
  }
}
"""

FULL_HISTORY = """
query RunFullHistory($entity: String!, $project: String!, $name: String!, $samples: Int) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { history(samples: $samples) }
  }
}
"""

EVENTS = """
query RunEvents($entity: String!, $project: String!, $name: String!, $samples: Int) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { events(samples: $samples) }
  }
}
"""

FILES = """
query RunFiles($entity: String!, $project: String!, $name: String!, $fileCursor: String,
               $fileLimit: Int, $fileNames: [String], $pattern: String) {
  project(name: $project, entityName: $entity) {
    run(name: $name) {
      files(names: $fileNames, after: $fileCursor, first: $fileLimit, pattern: $pattern) {
        edges { node { id name url directUrl sizeBytes mimetype updatedAt md5 } cursor }
        pageInfo { endCursor hasNextPage }
      }
    }
  }
}
"""


_SOURCES = """
  historyLineCount historyKeys parquetHistory(liveKeys: $liveKeys) { parquetUrls liveData }
"""


def history_sources_of(operation: Callable[..., Operation], run_ids: Sequence[str]) -> Operation:
    """Build one query for the history sources of many runs, as `run0`, `run1`, ... of a project.

    `operation(name, document, **variables)` adds the project.
    """
    document, names = _of_runs("RunParquetHistory", _SOURCES, run_ids, "$liveKeys: [String!]!")
    return operation("RunParquetHistory", document, liveKeys=["_step"], **names)


def runs_by_id(operation: Callable[..., Operation], run_ids: Sequence[str]) -> Operation:
    """Build one query for some runs of a project by their ids, as `run0`, `run1`, ...

    Each is looked up by its key: a filter over ids would make the server go through all runs.
    """
    document, names = _of_runs("Runs", RUN_FIELDS, run_ids)
    return operation("Runs", document, **names)


def _of_runs(
    name: str, fields: str, run_ids: Sequence[str], *declared: str
) -> tuple[str, dict[str, str]]:
    """A query for the same fields of many runs, and the variables that name them."""
    names = {f"name{index}": run_id for index, run_id in enumerate(run_ids)}
    types = ["$entity: String!", "$project: String!", *declared, *(f"${n}: String!" for n in names)]
    runs = "\n".join(
        f"    run{index}: run(name: $name{index}) {{ ...Fields }}" for index in range(len(run_ids))
    )
    document = f"""
query {name}({", ".join(types)}) {{
  project(name: $project, entityName: $entity) {{
{runs}
  }}
}}
fragment Fields on Run {{ {fields} }}
"""
    return document, names
