"""Energy profiles by blocks, on a plant in simulated time whose true joules are known: the very
runner and evaluation of ``delen profile --energy``, at the two time constants of Jetson sensors."""

from __future__ import annotations

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.plant import Power, Sensor
from power.metering.block_energy import BlockEnergies, evaluate
from power.metering.blocks import BlockPlan, BlockRunner, Chain
from power.sources.sampler import SourceState
from power.sources.series import Samples

SEEDS = range(6)
POLLED = 0.02
IDLE_WATTS = 4.6
SECONDS = np.array([0.0031, 0.0024, 0.0024, 0.0027, 0.0018])
JOULES = np.array([0.0164, 0.0131, 0.0127, 0.0153, 0.0088])
BATCHES = (1, 8)
_SCATTER = 0.05
_WARMING = 0.01
_WARM_AFTER = 120.0


class Bench:
    """A network on the plant: running it moves the clock, and the sensor sees what it drew.

    A batch of n costs ``1 + 0.7 (n - 1)`` times as much as one sample. Every run scatters, and
    until the device is warm it draws up to a hundredth less.
    """

    def __init__(self, sensor: Sensor, seed: int, joules: np.ndarray = JOULES) -> None:
        self.interval = POLLED
        self.now = 0.0
        self.state_now = SourceState("ok", 0.0, None, None, 0)
        self._sensor = sensor
        self._joules = joules
        self._rng = np.random.default_rng([seed, 3])
        self._ran: list[tuple[float, float, float]] = []

    def true(self, segment: int, batch: int) -> float:
        return float(self._joules[segment] * scale(batch))

    def work(self, chain: Chain) -> None:
        """One run, as a whole: no sensor tells its segments apart."""
        jitter = np.maximum(1 + _SCATTER * self._rng.standard_normal(2), 0.5)
        size = scale(chain.batch)
        seconds = SECONDS[: chain.exit + 1].sum() * size * jitter[0]
        joules = self._joules[: chain.exit + 1].sum() * size * jitter[1]
        joules *= 1 - _WARMING * np.exp(-self.now / _WARM_AFTER)
        self.draw(seconds, joules)

    def draw(self, seconds: float, joules: float) -> None:
        """Spend ``joules`` beyond idle over the next ``seconds``."""
        self._ran.append((self.now, self.now + seconds, joules))
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def state(self) -> SourceState:
        return self.state_now

    def window(self, began: float, ended: float) -> Samples | None:
        ran = [run for run in self._ran if run[1] > began - 10]
        power = Power(IDLE_WATTS, *np.array(ran).T)
        seed = int(self._rng.integers(2**31))
        samples = self._sensor.poll(power, began - 1, ended, seed, self.interval)
        return samples.between(began, ended)

    def measure(self, plan: BlockPlan, chains: list[Chain]) -> BlockEnergies:
        runner = BlockRunner(self.work, self, lambda: "steady", self.clock, self.wait)
        return evaluate(runner.run(chains, plan), plan, self.interval)


def scale(batch: int) -> float:
    return 1 + 0.7 * (batch - 1)


def main() -> list[Figure]:
    figures = []
    chains = [Chain(batch, exit) for batch in BATCHES for exit in range(len(JOULES))]
    for window in (0.0066, 0.42):
        exits, segments, covered, delays = [], [], [], []
        for seed in SEEDS:
            bench = Bench(Sensor(window), seed)
            found = bench.measure(BlockPlan(seed=seed), chains)
            delays.append(1e3 * found.delay)
            for batch in BATCHES:
                true = np.array([bench.true(k, batch) for k in range(len(JOULES))])
                costs = [found.segments[k][batch] for k in range(len(JOULES))]
                joules = np.array([cost.marginal for cost in costs])
                errors = np.abs(joules.cumsum() / true.cumsum() - 1)
                exits.append(100 * errors.max())
                segments.append(100 * np.abs(joules / true - 1).max())
                inside = [c.low <= t <= c.high for c, t in zip(costs, true, strict=True)]
                covered.append(100 * float(np.mean(inside)))
        name = f"at {1e3 * window:g} ms"
        figures += [
            Figure(f"worst exit's error, {name}", tuple(exits), "%"),
            Figure(f"worst exit's error of all seeds, {name}", (max(exits),), "%", 2.0),
            Figure(f"worst segment's error, {name}", tuple(segments), "%"),
            Figure(f"true joules inside their intervals, {name}", tuple(covered), "%"),
            Figure(f"sensor's delay as found, {name}", tuple(delays), "ms"),
        ]
    return report("Energy profiles by blocks of 10 s, on a plant whose joules are known", figures)


if __name__ == "__main__":
    main()
