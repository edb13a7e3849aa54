"""Dělen's conditions, as its files state them and as its dispatch policy plays them."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.delen_conditions import PUBLISHED, Published, claims
from benchmarks.profile_files import NANO
from delen.core.plan import ExitView
from delen.profile.reader import load_profile
from policies.exit.conditions import parse_conditions


@pytest.mark.parametrize("published", PUBLISHED)
def test_its_own_files_stop_at_the_published_exit(published: Published, data_folder: Path) -> None:
    file = data_folder / "profiles" / f"delen_conditions_{1e3 * published.condition:.0f}ms.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    segments = load_profile(NANO).segments
    conditions = parse_conditions(json.loads(file.read_text()), len(segments))
    times = accumulate(costs[1].latency.p50 for costs in segments)
    stops = [
        exit
        for exit, (condition, elapsed) in enumerate(zip(conditions, times, strict=True))
        if condition.holds(_view(exit, elapsed))
    ]
    assert stops[0] == published.exit


def _view(exit: int, elapsed: float) -> ExitView:
    return SimpleNamespace(exit=exit, elapsed=elapsed)  # type: ignore[return-value]


def test_how_far_a_time_is_off_the_published_range() -> None:
    published = Published(0.02, 1, 0.025, 0.026)
    assert published.off(0.0255) == 0
    assert published.off(0.024) == pytest.approx(1 / 24)
    assert published.off(0.0273) == pytest.approx(0.05)


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_claim_holds(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.delen_conditions.REQUESTS", 40)
    monkeypatch.setattr("benchmarks.delen_conditions.SEEDS", 1)
    missed = [figure.line() for figure in claims(published) if figure.holds is False]
    assert not missed
