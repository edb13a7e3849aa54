from __future__ import annotations

import pytest

from delen.measure import overhead, segments


@pytest.fixture
def brief_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick profile is measured as quickly as can be: for tests that are not about it."""
    least = segments.Effort(seconds=0.0, least_runs=8, spread=0.25, tries=1, strict=False)
    monkeypatch.setattr("delen.daemon.build_model.QUICK", least)
    monkeypatch.setattr("delen.measure.segments.QUICK", least)
    monkeypatch.setattr("delen.measure.overhead.QUICK", overhead.Effort(1, seconds=1.0))
