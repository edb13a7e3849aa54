"""A device in simulated time whose true energies are known, and the sensor that reads it.

The sensor is that of Jetson boards (an INA3221): it averages the power over its conversion time,
holds the average until the next one is done, in steps of its quantum and with noise; a program
polls it with jitter. Nothing here waits: minutes of plant take a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delen.core.work import Share, Work
from power.sources.series import Samples

Floats: TypeAlias = NDArray[np.float64]
POLL = 0.05
JITTER = 0.1


class Power:
    """Watts over time: ``static`` and, on top, blocks of even power, which may overlap.

    Block i spends ``joules[i]`` from ``began[i]`` to ``ended[i]`` (seconds, ended > began).
    """

    def __init__(
        self, static: float, began: ArrayLike = (), ended: ArrayLike = (), joules: ArrayLike = ()
    ) -> None:
        first, last = np.asarray(began, float), np.asarray(ended, float)
        watts = np.asarray(joules, float) / (last - first)
        times = np.concatenate([first, last])
        order = np.argsort(times, kind="stable")
        steps = np.concatenate([watts, -watts])[order]
        self.static = static
        self._times = np.concatenate([[-1e3], times[order]])
        self._watts = static + np.concatenate([[0.0], np.cumsum(steps)])
        spent = np.diff(self._times) * self._watts[:-1]
        self._joules = np.concatenate([[0.0], np.cumsum(spent)])

    def watts(self, times: ArrayLike) -> Floats:
        """The true power at each of ``times``."""
        return self._watts[self._before(np.asarray(times, float))]

    def joules(self, times: ArrayLike, lag: float = 0.0) -> Floats:
        """True joules spent up to each of ``times``, from a moment before all blocks on; with a
        ``lag``, those that a first-order low-pass of that time constant has let through."""
        moments = np.asarray(times, float)
        at = self._before(moments)
        since = moments - self._times[at]
        spent = self._joules[at] + since * self._watts[at]
        if lag <= 0:
            return spent
        smooth = self._watts[at] + (self._lagged(lag)[at] - self._watts[at]) * np.exp(-since / lag)
        return spent - lag * (smooth - self.static)

    def _before(self, times: Floats) -> NDArray[np.intp]:
        return np.maximum(np.searchsorted(self._times, times, "right") - 1, 0)

    def _lagged(self, lag: float) -> Floats:
        kept = np.exp(-np.diff(self._times) / lag)
        level = self.static
        levels = [level]
        for watts, share in zip(self._watts[:-1].tolist(), kept.tolist(), strict=True):
            level = watts + (level - watts) * share
            levels.append(level)
        return np.asarray(levels)


@dataclass(frozen=True)
class Sensor:
    """An averaging sensor: every ``window`` seconds the mean power over them, held meanwhile.

    ``lag`` is the time constant of a first-order low-pass before it (0: none), ``noise`` the
    standard deviation of one average and ``quantum`` its step, both in watts.
    """

    window: float = 0.0066
    lag: float = 0.0
    quantum: float = 0.04
    noise: float = 0.02

    def read(self, power: Power, times: ArrayLike, seed: int) -> Floats:
        """What it shows at each of ``times``; its phase and noise are drawn from ``seed``."""
        rng = np.random.default_rng(seed)
        moments = np.asarray(times, float)
        phase = rng.uniform(0, self.window)
        updates, held = np.unique(np.floor((moments - phase) / self.window), return_inverse=True)
        ends = phase + updates * self.window
        seen = power.joules(ends, self.lag) - power.joules(ends - self.window, self.lag)
        watts = seen / self.window + rng.normal(0, self.noise, len(ends))
        if self.quantum > 0:
            watts = np.round(watts / self.quantum) * self.quantum
        return np.asarray(watts[held.reshape(-1)])

    def poll(
        self, power: Power, began: float, ended: float, seed: int, interval: float = POLL
    ) -> Samples:
        """Its readings from ``began`` to ``ended`` every ``interval`` seconds, jittered by 10 %."""
        times = polls(began, ended, seed, interval)
        return Samples(times, self.read(power, times, seed))


def polls(began: float, ended: float, seed: int, interval: float = POLL) -> Floats:
    """Moments of polling from ``began`` until past ``ended``, ``interval`` apart and jittered."""
    rng = np.random.default_rng([seed, 1])
    count = int((ended - began) / (interval * (1 - JITTER))) + 2
    steps = interval * rng.uniform(1 - JITTER, 1 + JITTER, count)
    times = began + np.concatenate([[0.0], np.cumsum(steps)])
    return times[: int(np.searchsorted(times, ended)) + 1]


@dataclass(frozen=True)
class Network:
    """A chain of segments: seconds and true joules of each for one sample, and how often its
    exit is the one that answers. ``batching`` is what one more sample of a batch costs of both,
    relative to the first."""

    name: str
    seconds: tuple[float, ...]
    joules: tuple[float, ...]
    leaves: tuple[float, ...]
    batching: float = 0.7

    def scale(self, batch: int) -> float:
        return 1 + self.batching * (batch - 1)


@dataclass
class Served:
    """What ran: the works as the engine reports them, the joules that each truly took, and the exit
    that answered each request."""

    works: list[Work] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    exits: dict[str, int] = field(default_factory=dict)

    def power(self, static: float, others: tuple[tuple[float, float, float], ...] = ()) -> Power:
        """The device's power: also ``others``, blocks (began, ended, watts) of other programs."""
        return Power(
            static,
            [work.began for work in self.works] + [began for began, _, _ in others],
            [work.ended for work in self.works] + [ended for _, ended, _ in others],
            self.joules + [(ended - began) * watts for began, ended, watts in others],
        )


def serve(
    network: Network,
    arrivals: Floats,
    predicted: tuple[float, ...],
    seed: int,
    most: int = 4,
    spread: float = 0.05,
) -> Served:
    """Run a request per arrival through ``network`` on one executor, up to ``most`` in a batch.

    ``predicted`` are the joules that the works claim per segment for one sample, in place of the
    true ones. The true joules and seconds of each batch scatter by ``spread`` of themselves.
    """
    rng = np.random.default_rng([seed, 2])
    leaves = rng.choice(len(network.seconds), len(arrivals), p=network.leaves)
    served, now, first = Served(), 0.0, 0
    while first < len(arrivals):
        now = max(now, float(arrivals[first]))
        waiting = int(np.searchsorted(arrivals, now, "right")) - first
        batch = [first + i for i in range(min(max(waiting, 1), most))]
        first += len(batch)
        for request in batch:
            served.exits[f"r{request}"] = int(leaves[request])
        for segment in range(len(network.seconds)):
            batch = [request for request in batch if leaves[request] >= segment]
            if not batch:
                break
            scale = network.scale(len(batch))
            time_jitter, energy_jitter = np.maximum(1 + spread * rng.standard_normal(2), 0.5)
            ended = now + network.seconds[segment] * scale * float(time_jitter)
            shares = tuple(Share(f"r{request}", "default") for request in batch)
            joules = predicted[segment] * scale
            served.works.append(Work(network.name, segment, len(batch), now, ended, joules, shares))
            served.joules.append(network.joules[segment] * scale * float(energy_jitter))
            now = ended
    return served
