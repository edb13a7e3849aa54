"""A device in simulated time: networks that run on it, what they truly take, what they are said to.

A request runs segment after segment on one executor until its exit, alone or in a batch. True
joules and seconds of each run scatter, and so do the joules that are predicted for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Block: TypeAlias = tuple[float, float, float]
"""Began, ended (seconds), and joules of even power between."""

BATCHING = 0.7
"""What one more sample of a batch takes, relative to the first."""
PAUSE = 1e-4
"""Seconds between two runs."""


@dataclass(frozen=True)
class Network:
    """A chain of segments: seconds and true joules of each for one sample, and how often its exit
    is the one that answers."""

    seconds: tuple[float, ...]
    joules: tuple[float, ...]
    leaves: tuple[float, ...]


class Arrival(NamedTuple):
    """A request of ``tenant`` at a moment; it leaves at ``exit``, or where its answer is sure."""

    time: float
    tenant: str = "default"
    exit: int | None = None


class Run(NamedTuple):
    """One run of a segment for ``requests``: true ``joules``, and those ``predicted`` for it."""

    segment: int
    requests: tuple[str, ...]
    began: float
    ended: float
    joules: float
    predicted: float


@dataclass
class Request:
    """What a request truly took, in joules, and when."""

    tenant: str
    exit: int
    began: float
    ended: float = 0.0
    joules: float = 0.0


@dataclass
class Served:
    """Everything that ran, in order, and the requests by their names."""

    runs: list[Run] = field(default_factory=list)
    requests: dict[str, Request] = field(default_factory=dict)

    def blocks(self) -> list[Block]:
        return [(run.began, run.ended, run.joules) for run in self.runs]


Clocks: TypeAlias = Callable[[float], tuple[float, float]]
"""By how much seconds and joules of a run at a moment are greater than at full speed."""


def serve(
    network: Network,
    arrivals: Sequence[Arrival],
    predicted: Sequence[float],
    rng: np.random.Generator,
    most: int = 4,
    clocks: Clocks = lambda now: (1.0, 1.0),
    until: float = np.inf,
) -> Served:
    """Run ``arrivals`` one after another, up to ``most`` of those that wait together."""
    served, now = Served(), 0.0
    waiting = list(arrivals)[::-1]
    while waiting and now < until:
        now = max(now, waiting[-1].time)
        batch: list[tuple[str, int]] = []
        while waiting and len(batch) < most and waiting[-1].time <= now:
            arrival = waiting.pop()
            exit = arrival.exit
            if exit is None:
                exit = int(rng.choice(len(network.leaves), p=network.leaves))
            name = f"r{len(served.requests)}"
            served.requests[name] = Request(arrival.tenant, exit, now)
            batch.append((name, exit))
        now = _run(served, network, batch, predicted, rng, clocks, now)
    return served


def _run(
    served: Served,
    network: Network,
    batch: list[tuple[str, int]],
    predicted: Sequence[float],
    rng: np.random.Generator,
    clocks: Clocks,
    now: float,
) -> float:
    for segment in range(len(network.seconds)):
        names = tuple(name for name, exit in batch if exit >= segment)
        if not names:
            break
        scale = 1 + BATCHING * (len(names) - 1)
        slower, dearer = clocks(now)
        seconds = network.seconds[segment] * scale * slower * float(np.exp(rng.normal(0, 0.15)))
        joules = network.joules[segment] * scale * dearer * (1 + 0.02 * float(rng.normal()))
        told = predicted[segment] * scale * (1 + 0.02 * float(rng.normal()))
        served.runs.append(Run(segment, names, now, now + seconds, joules, told))
        now += seconds
        for name in names:
            served.requests[name].joules += joules / len(names)
            served.requests[name].ended = now
        now += PAUSE
    return now


class Energy:
    """Joules drawn up to a moment by blocks of even power, which may overlap."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        table = np.array(blocks, float).reshape(-1, 3)
        watts = table[:, 2] / (table[:, 1] - table[:, 0])
        times = np.concatenate([[-1e3], table[:, 0], table[:, 1], [1e5]])
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        level = np.cumsum(np.concatenate([[0.0], watts, -watts, [0.0]])[order])
        self._joules = np.concatenate([[0.0], np.cumsum(np.diff(self._times) * level[:-1])])

    def upto(self, moments: ArrayLike) -> Floats:
        return np.asarray(np.interp(moments, self._times, self._joules))
