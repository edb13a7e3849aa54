"""Loads, unloads and reloads of bundles that change, in between requests."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import MOST_MB, soak


def test_models_that_come_and_go_never_mix_versions_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    outcome = soak(tmp_path, operations=60, requests=900, rounds=3, seed=1)
    assert outcome.undocumented == []
    assert outcome.other_versions == []
    assert outcome.tracebacks == 0
    assert outcome.compared >= 5
    assert outcome.end.threads <= outcome.start.threads
    assert outcome.end.files <= outcome.start.files
    assert outcome.end.memory_mb - outcome.start.memory_mb < MOST_MB
