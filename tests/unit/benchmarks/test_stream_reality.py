"""How far a simulated stream is from a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.stream_reality import Summary, compare, scale_for, simulate
from benchmarks.stream_session import Outcome, Session
from policies.client.api import FrameOption

OPTIONS = (
    FrameOption((16, 16), 768.0, 0.002, 0.8, 2),
    FrameOption((32, 32), 3072.0, 0.004, 0.9, 2),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.txt"
    file.write_text("8\n" * 10)
    return file


def outcome(frames: int) -> Outcome:
    index = np.ones(frames, int)
    return Outcome(
        OPTIONS,
        0.002,
        index,
        np.full(frames, 0.01),
        np.full(frames, 0.004),
        np.full(frames, 0.006),
        np.arange(frames) / 30,
        {"replaced": 1},
        frames * 3600,
    )


def test_an_outcome_survives_being_written() -> None:
    one = outcome(3)
    other = Outcome.from_json(one.to_json())
    assert other.options == list(OPTIONS)
    assert (other.index == one.index).all()
    assert (other.dropped, other.passed) == (one.dropped, one.passed)


def test_the_simulator_plays_the_same_trace(trace: Path) -> None:
    session = Session(str(trace), 1.0, 3.0, "state", controller="fixed")
    played = simulate(session, outcome(90), seed=0, in_bursts=False)
    assert len(played) == 90
    assert np.isfinite(played.latency).all()
    assert (played.index == 0).all()
    assert np.median(played.latency) == pytest.approx(0.0076, abs=0.001)


def test_summaries_are_of_all_frames() -> None:
    latency = np.array([0.05, 0.2, np.nan, 0.05])
    summary = Summary.of(np.array([0, 1, -1, 1]), latency, 2)
    assert summary.sizes.tolist() == [0.25, 0.5]
    assert summary.missed == 0.5
    assert 0.05 < summary.p95 <= 0.2
    sizes, missed, p95 = compare(summary, summary)
    assert [figure.median for figure in (sizes, missed, p95)] == [0, 0, 0]


def test_the_scale_lets_the_frames_through_where_the_link_is_good(trace: Path) -> None:
    assert scale_for(trace, 3072) == pytest.approx(30 * (3072 + 400) / 1e6)
