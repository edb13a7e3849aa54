from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import Bundle, load_bundle
from delen.engine.backends.base import SegmentRun
from delen.errors import ProfileError
from delen.measure.segments import Effort, batch_sizes, measure_profile, quantiles
from delen.profile.profile import Device

BOARD = Device("test board", 2, "onnxruntime", "cpu", 3, "default")
STRICT = Effort(seconds=0.0, least_runs=20, spread=0.25, tries=3, strict=True)
LENIENT = replace(STRICT, strict=False)


class Clock:
    """Stands in for the module ``time`` of the profiler; the network moves it."""

    def __init__(self) -> None:
        self.now = self.processor = 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.processor


class FakeNetwork:
    """Segment k of a batch of n takes ``(k + 1) * n`` ms times the next of ``factors``."""

    def __init__(self, clock: Clock, factors: Any) -> None:
        self.clock = clock
        self.factors = factors
        self.factor = 1.0
        self.seen: list[tuple[int, int]] = []

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        if segment == 0:
            self.factor = next(self.factors)
            assert all(sample.shape == (4, 4, 1) for sample in samples)
            assert all(sample.dtype == np.uint8 for sample in samples)
        self.seen.append((segment, len(samples)))
        seconds = 1e-3 * (segment + 1) * len(samples) * self.factor
        self.clock.now += seconds
        self.clock.processor += 0.8 * seconds
        count = len(samples)
        features = [object()] * count if segment < 2 else []
        return SegmentRun(features, np.zeros((count, 4), np.float32), np.zeros(count, np.float32))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("delen.measure.segments.time", clock)
    return clock


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])],
)
def test_batch_sizes_double_up_to_the_largest(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


def test_a_steady_network_is_measured_as_it_is(bundle: Bundle, clock: Clock) -> None:
    progress: list[tuple[int, int, str]] = []
    network = FakeNetwork(clock, repeat(1.0))
    profile = measure_profile(bundle, network, BOARD, STRICT, lambda *step: progress.append(step))
    assert (profile.model, profile.bundle, profile.device) == ("tiny", bundle.digest, BOARD)
    assert not profile.quick
    for segment, costs in enumerate(profile.segments):
        assert list(costs) == [1, 2, 4, 8]
        for batch, cost in costs.items():
            seconds = 1e-3 * (segment + 1) * batch
            assert cost.latency.p50 == pytest.approx(seconds)
            assert cost.latency.p99 == pytest.approx(seconds)
            assert cost.processor == pytest.approx(0.8 * seconds * BOARD.threads)
            assert cost.energy is None
    assert [done for done, _, _ in progress] == list(range(6))
    assert {total for _, total, _ in progress} == {5}


def test_each_run_goes_through_all_segments(bundle: Bundle, clock: Clock) -> None:
    network = FakeNetwork(clock, repeat(1.0))
    measure_profile(bundle, network, BOARD, STRICT)
    assert [segment for segment, _ in network.seen] == [0, 1, 2] * (len(network.seen) // 3)


def test_it_measures_for_the_seconds_asked(bundle: Bundle, clock: Clock) -> None:
    short, long = (FakeNetwork(clock, repeat(1.0)) for _ in range(2))
    measure_profile(bundle, short, BOARD, STRICT)
    measure_profile(bundle, long, BOARD, replace(STRICT, seconds=3.0))
    runs = [sum(seen == (0, 1) for seen in network.seen) for network in (short, long)]
    assert runs[0] >= 20
    assert runs[1] >= 3.0 / 0.006


def test_an_unsteady_network_is_refused_after_all_tries(bundle: Bundle, clock: Clock) -> None:
    network = FakeNetwork(clock, cycle([1.0, 3.0]))
    with pytest.raises(ProfileError, match="batch 1 is too unsteady") as caught:
        measure_profile(bundle, network, BOARD, STRICT)
    assert "best of 3 tries; 25% is accepted" in str(caught.value)
    assert len(network.seen) >= 3 * 3 * STRICT.least_runs


def test_an_unsteady_network_is_taken_where_that_is_allowed(bundle: Bundle, clock: Clock) -> None:
    profile = measure_profile(bundle, FakeNetwork(clock, cycle([1.0, 1.0, 3.0])), BOARD, LENIENT)
    assert profile.quick
    cost = profile.segments[0][1].latency
    assert (cost.p50, cost.p99) == pytest.approx((0.001, 0.003))


def test_a_try_that_is_steady_is_accepted(bundle: Bundle, clock: Clock) -> None:
    def calms_down() -> Any:
        yield from [1.0, 4.0] * 15
        yield from repeat(2.0)

    profile = measure_profile(bundle, FakeNetwork(clock, calms_down()), BOARD, STRICT)
    assert profile.segments[0][1].latency.p50 == pytest.approx(0.002)


def test_quantiles_are_never_below_what_was_measured() -> None:
    found = quantiles(np.arange(1.0, 11.0))
    assert (found.p50, found.p90, found.p99) == (6.0, 10.0, 10.0)
