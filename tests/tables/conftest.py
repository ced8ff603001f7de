"""The corpus of real W&B runs, where it is at hand; property tests without time limits."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

# Both checks measure time: the first draw of a fresh checkout builds a table of all characters,
# which takes seconds, and a busy machine misses any deadline.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    if not CORPUS.is_dir():
        pytest.skip("the corpus of real runs is not part of the repository")
    return CORPUS


@pytest.fixture(scope="session")
def corpus_runs(corpus: Path) -> list[dict[str, object]]:
    with pa.input_stream(str(corpus / "runs.jsonl.zst"), compression="zstd") as stream:
        return [json.loads(line) for line in stream.read().decode().splitlines()]
