from __future__ import annotations

import pytest

from delen import host_profiler, profiler


@pytest.fixture
def brief_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick profile is measured as quickly as can be: for tests that are not about it."""
    least = profiler.Effort(seconds=0.0, least_runs=8, spread=0.25, tries=1, strict=False)
    monkeypatch.setattr("delen.assembly.QUICK", least)
    monkeypatch.setattr("delen.profiler.QUICK", least)
    monkeypatch.setattr("delen.host_profiler.QUICK", host_profiler.Effort(1, seconds=1.0))
