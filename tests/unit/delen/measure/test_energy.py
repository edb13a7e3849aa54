from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.blocks import IDLE_WATTS, Bench
from benchmarks.plant import Sensor
from delen.bundle.manifest import Bundle, load_bundle
from delen.engine.backends.base import SegmentRun
from delen.errors import ConfigError, ProfileError
from delen.measure.energy import keep_energies, measure_energy, measured_batches, retained
from delen.profile.profile import Metering, Profile
from power.metering.blocks import BlockPlan

MakeProfile = Callable[..., Profile]
PLAN = BlockPlan(seconds=4.0)


class Board(Bench):
    """A simulated device on which segment k of a batch of n takes ``(k + 1) * n`` times 4 ms and
    40 mJ, as a meter and as a network."""

    def __init__(self) -> None:
        super().__init__(Sensor(), seed=0)
        self.source: Any = SimpleNamespace(name="ina3221", scope="module_input")
        self.ran: list[tuple[int, int]] = []

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        count = len(samples)
        self.ran.append((segment, count))
        self.draw(0.004 * (segment + 1) * count, 0.040 * (segment + 1) * count)
        features = [object()] * count if segment < 2 else []
        return SegmentRun(features, np.zeros((count, 4), np.float32), np.zeros(count, np.float32))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def board() -> Board:
    return Board()


def measure(
    bundle: Bundle, profile: Profile, board: Board, steady: str | None = "15W", **how: Any
) -> Profile:
    metered, _ = measure_energy(
        bundle,
        board,  # type: ignore[arg-type]
        profile,
        board,
        lambda: steady or str(board.now),
        PLAN,
        clock=board.clock,
        wait=board.wait,
        **how,
    )
    return metered


def test_a_profile_gets_the_energies_of_its_smallest_and_largest_batch(
    bundle: Bundle, board: Board, make_profile: MakeProfile
) -> None:
    profile = make_profile(0.004, 0.008, 0.012)
    metered = measure(bundle, profile, board)
    for segment, costs in enumerate(metered.segments):
        for batch in (1, 8):
            cost = costs[batch]
            assert cost.energy == pytest.approx(0.040 * (segment + 1) * batch, rel=0.03)
            assert cost.energy_interval is not None
            low, high = cost.energy_interval
            assert low <= cost.energy <= high
            idle = IDLE_WATTS * 0.004 * (segment + 1) * batch
            assert cost.gross == pytest.approx(cost.energy + idle, rel=0.03)
        assert costs[2].energy is None
        joules = metered.cost(segment, 2).energy
        assert joules == pytest.approx(0.040 * (segment + 1) * 2, rel=0.1)
        assert costs[1].latency == profile.segments[segment][1].latency
    assert metered.energy is not None
    assert metered.energy.idle_watts == pytest.approx(IDLE_WATTS, rel=0.01)
    assert metered.energy == Metering(
        "ina3221", "module_input", metered.energy.idle_watts, PLAN.rounds, PLAN.seconds
    )


def test_a_block_runs_the_segments_up_to_its_exit(
    bundle: Bundle, board: Board, make_profile: MakeProfile
) -> None:
    measure(bundle, make_profile(0.004, 0.008, 0.012, batches=(1,)), board)
    assert {count for _, count in board.ran} == {1}
    assert board.ran[:6] == [(0, 1), (0, 1), (1, 1), (0, 1), (1, 1), (2, 1)]
    followers = {(a[0], b[0]) for a, b in zip(board.ran, board.ran[1:], strict=False)}
    assert followers <= {(0, 0), (0, 1), (1, 2), (1, 0), (2, 0)}


def test_batches_that_are_asked_for_are_measured_too(
    bundle: Bundle, board: Board, make_profile: MakeProfile
) -> None:
    metered = measure(bundle, make_profile(0.004, 0.008, 0.012), board, batches=(2,))
    measured = [b for b, cost in metered.segments[0].items() if cost.energy is not None]
    assert measured == [1, 2, 8]


def test_energies_measured_before_are_replaced(
    bundle: Bundle, board: Board, make_profile: MakeProfile
) -> None:
    before = make_profile(0.004, 0.008, 0.012, energy=(1.0, 1.0, 1.0))
    metered = measure(bundle, before, board)
    assert metered.segments[0][4].energy is None
    assert metered.segments[0][4].gross is None
    assert metered.segments[0][1].energy == pytest.approx(0.040, rel=0.03)


def test_a_device_that_changes_meanwhile_gives_no_profile(
    bundle: Bundle, board: Board, make_profile: MakeProfile
) -> None:
    with pytest.raises(ProfileError, match="the device changed"):
        measure(bundle, make_profile(0.004, 0.008, 0.012), board, steady=None)


def test_a_batch_that_is_not_in_the_profile_is_refused(make_profile: MakeProfile) -> None:
    profile = make_profile(0.01, batches=(1, 2, 4))
    assert measured_batches((), profile) == [1, 4]
    assert measured_batches((2, 1), profile) == [1, 2, 4]
    for batch in (0, 3, 8):
        with pytest.raises(ConfigError, match=f"batch {batch} is not .* sizes are 1, 2, 4"):
            measured_batches((1, batch), profile)


def test_new_latencies_keep_the_energies_known(make_profile: MakeProfile) -> None:
    known = make_profile(0.01, 0.02, energy=(0.5, 0.25))
    fresh = make_profile(0.03, 0.04)
    kept = keep_energies(fresh, known)
    assert kept.energy == known.energy
    for segment in range(2):
        for batch, cost in kept.segments[segment].items():
            had = known.segments[segment][batch]
            assert cost.latency == fresh.segments[segment][batch].latency
            assert (cost.energy, cost.gross, cost.energy_interval) == (
                had.energy,
                had.gross,
                had.energy_interval,
            )
    assert keep_energies(known, replace(fresh, energy=None)).segments[0][1].energy is None


def test_enough_readings_are_kept_for_a_block_and_its_idles() -> None:
    for seconds in (2.0, 10.0, 60.0):
        plan = BlockPlan(seconds=seconds)
        assert retained(plan) >= 1.5 * plan.seconds + 2 * plan.idle
