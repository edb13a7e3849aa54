"""Loads, unloads and reloads of bundles that change, in between requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.soak import CAP_MB, soak

ALLOCATOR_MB = 60.0
"""More than the allocator keeps by chance, and far less than all that is loaded in between."""


@pytest.mark.parametrize("cap_mb", [0.0, CAP_MB])
def test_models_that_come_and_go_never_mix_versions_and_leave_nothing_behind(
    own_state: Callable[[], Path], cap_mb: float
) -> None:
    outcome = soak(own_state(), operations=60, requests=900, rounds=3, seed=1, cap_mb=cap_mb)
    assert outcome.undocumented == []
    assert outcome.other_versions == []
    assert outcome.tracebacks == 0
    assert outcome.compared >= 5
    assert outcome.later.threads <= outcome.earlier.threads
    assert outcome.later.files <= outcome.earlier.files
    assert outcome.later.memory_mb - outcome.earlier.memory_mb < ALLOCATOR_MB
