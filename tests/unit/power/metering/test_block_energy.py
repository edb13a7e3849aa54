from __future__ import annotations

import numpy as np
import pytest

from benchmarks.blocks import IDLE_WATTS, JOULES, Bench
from benchmarks.plant import Power, Sensor
from delen.errors import ProfileError
from power.metering.block_energy import evaluate, mean_watts, sensor_delay
from power.metering.blocks import Block, BlockPlan, BlockRunner, Chain
from power.sources.series import Samples

PLAN = BlockPlan()
SLOW = Sensor(window=0.42)


def chains(joules: np.ndarray, *batches: int) -> list[Chain]:
    return [Chain(batch, exit) for batch in batches for exit in range(len(joules))]


def run(bench: Bench, plan: BlockPlan, *which: Chain) -> list[Block]:
    steady = BlockRunner(bench.work, bench, lambda: "15W", bench.clock, bench.wait)
    return steady.run(which, plan)


@pytest.mark.parametrize("sensor", [Sensor(), SLOW, Sensor(lag=0.42)], ids=["fast", "slow", "lag"])
def test_exits_are_within_two_percent_of_the_truth(sensor: Sensor) -> None:
    bench = Bench(sensor, seed=1)
    found = bench.measure(PLAN, chains(JOULES, 1, 8))
    for batch in (1, 8):
        true = np.cumsum([bench.true(k, batch) for k in range(len(JOULES))])
        joules = np.cumsum([costs[batch].marginal for costs in found.segments])
        assert joules == pytest.approx(true, rel=0.02)
    assert found.idle_watts == pytest.approx(IDLE_WATTS, rel=0.005)


def test_intervals_lie_around_what_was_measured_and_gross_has_idle_in_it() -> None:
    bench = Bench(Sensor(), seed=2)
    blocks = run(bench, PLAN, Chain(1, 0))
    cost = evaluate(blocks, PLAN, bench.interval).segments[0][1]
    assert 0 < cost.low < cost.marginal < cost.high
    assert cost.high - cost.low < 0.05 * cost.marginal
    seconds = np.mean([(b.ended - b.began) / len(b.ends) for b in blocks])
    assert cost.gross - cost.marginal == pytest.approx(IDLE_WATTS * seconds, rel=0.01)


@pytest.mark.parametrize(
    ("sensor", "delay"),
    [(Sensor(), 0.0066), (SLOW, 0.42), (Sensor(lag=0.42), 0.42)],
    ids=["fast", "slow", "lag"],
)
def test_the_delay_of_the_sensor_is_found(sensor: Sensor, delay: float) -> None:
    blocks = run(Bench(sensor, seed=3), PLAN, *chains(JOULES, 1))
    assert sensor_delay(blocks) == pytest.approx(delay, abs=0.03)


def test_idle_power_that_drifts_is_followed() -> None:
    class Drifting(Bench):
        def window(self, began: float, ended: float) -> Samples | None:
            samples = super().window(began, ended)
            assert samples is not None
            return Samples(samples.times, samples.watts + 0.02 * samples.times)

    bench = Drifting(Sensor(), seed=4)
    found = bench.measure(PLAN, chains(JOULES[:2], 1))
    joules = np.cumsum([costs[1].marginal for costs in found.segments])
    assert joules == pytest.approx(JOULES[:2].cumsum(), rel=0.02)


def test_a_counter_that_moves_in_steps_is_read_by_its_slope() -> None:
    power = Power(5.0, [2.0], [12.0], [70.0])
    times = np.arange(0.0, 14.0, 0.02)
    counted = power.joules(np.floor(times / 0.1) * 0.1)
    samples = Samples(times, np.zeros(len(times)), counted)
    assert mean_watts(samples, 3.013, 11.978) == pytest.approx(12.0, rel=2e-3)


def test_blocks_too_short_for_the_sensor_are_refused_with_those_that_would_do() -> None:
    bench = Bench(SLOW, seed=5)
    plan = BlockPlan(seconds=4.0)
    with pytest.raises(ProfileError, match=r"settles in 2\.\d s.*they must last 7 s"):
        evaluate(run(bench, plan, Chain(1, 4)), plan, bench.interval)


class Disturbed(Bench):
    """Another program draws 2 W in some blocks."""

    def window(self, began: float, ended: float) -> Samples | None:
        samples = super().window(began, ended)
        assert samples is not None
        on = self._rng.random() < 0.4
        inside = (samples.times > began + 5) & (samples.times < ended - 5)
        return Samples(samples.times, samples.watts + 2.0 * (on & inside))


def test_an_interval_too_wide_is_refused_with_its_width() -> None:
    with pytest.raises(ProfileError, match=r"exit \d at batch 1 .*Stop what else") as caught:
        Disturbed(Sensor(), seed=0).measure(PLAN, chains(JOULES[:2], 1))
    assert " 5% " in str(caught.value)
    wide = BlockPlan(spread=0.5)
    assert Disturbed(Sensor(), seed=0).measure(wide, chains(JOULES[:2], 1)).segments


def test_work_that_draws_nothing_is_refused() -> None:
    with pytest.raises(ProfileError, match="Stop what else"):
        Bench(Sensor(noise=0.1), seed=0, joules=np.zeros(1)).measure(PLAN, [Chain(1, 0)])


def test_a_segment_within_the_noise_is_levelled_and_noted() -> None:
    joules = np.array([0.0164, 0.0, 0.0127])
    noted = False
    for seed in range(4):
        found = Bench(Sensor(), seed, joules).measure(PLAN, chains(joules, 1))
        costs = [segment[1] for segment in found.segments]
        assert all(0 <= cost.low <= cost.marginal <= cost.high for cost in costs)
        assert costs[1].marginal < 2e-4 < costs[2].marginal
        assert sum(c.marginal for c in costs) == pytest.approx(joules.sum(), rel=0.02)
        if costs[1].low == 0:
            noted = True
            assert "segment 1 at batch 1" in found.notes[0]
            assert costs[1].high > 0
    assert noted


def test_an_exit_that_takes_much_less_than_an_earlier_one_is_refused() -> None:
    joules = np.array([0.0164, -0.004])
    with pytest.raises(ProfileError, match=r"exit 1 at batch 1 .* exit 0.*Stop what else"):
        Bench(Sensor(), 0, joules).measure(PLAN, chains(joules, 1))
