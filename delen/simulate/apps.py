"""Apps: who sends the requests of a trace, and with which bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from delen.core.bounds import Bounds
from delen.core.plan import OperatingPoint
from delen.simulate.arrivals import Arrivals, Bursts, Camera, Poisson
from delen.simulate.requests import Requests
from delen.simulate.trace import Arrival, Trace

Kind = Literal["poisson", "bursts", "cameras"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FRAMES_PER_SECOND = 10.0
"""The rate of one of the ``cameras``; their number makes up the rate of an app."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """The bounds of a part of an app's requests; ``share`` is relative to those of other parts."""

    share: float
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class App:
    """A tenant ``name`` whose requests arrive by ``arrivals`` with bounds of ``mix``.

    With ``streams``, that many sources of the app each send by ``arrivals``, each as a stream of
    its own; the streams of two apps of one name are numbered on. ValueError for a mix without a
    share above 0.
    """

    name: str
    arrivals: Arrivals
    mix: tuple[Mixed, ...] = (Mixed(1.0, Bounds()),)
    model: str | None = None
    priority: int | None = None
    streams: int | None = None

    def __post_init__(self) -> None:
        shares = [mixed.share for mixed in self.mix]
        if not all(share >= 0 for share in shares) or not sum(shares) > 0:
            raise ValueError(f"{self.name}: shares are {shares}; none below 0, and one above 0")
        if self.streams is not None and self.streams < 1:
            raise ValueError(f"{self.name}: streams is {self.streams}; it must be at least 1")

    @property
    def rate(self) -> float:
        """Mean requests a second of all streams."""
        return self.arrivals.rate * (self.streams or 1)


def draw(apps: Sequence[App], duration: float, seed: int) -> Requests:
    """The requests of all ``apps`` in ``duration`` seconds.

    Each app draws from a generator of its own, so that an app's requests stay the same when
    another is added or removed behind it. InvalidInput names the field of an app that is wrong.
    """
    kinds: list[Arrival] = []
    times, asked = [np.empty(0)], [np.empty(0, np.int64)]
    streams: Counter[str] = Counter()
    for app, sequence in zip(apps, np.random.SeedSequence(seed).spawn(len(apps)), strict=True):
        rng = np.random.default_rng(sequence)
        shares = np.array([mixed.share for mixed in app.mix])
        for _ in range(app.streams or 1):
            stream = None
            if app.streams is not None:
                stream = f"{app.name}-{streams[app.name]}"
                streams[app.name] += 1
            times.append(app.arrivals.times(duration, rng))
            chosen = rng.choice(len(shares), len(times[-1]), p=shares / shares.sum())
            asked.append(len(kinds) + chosen)
            kinds += [
                Arrival(0.0, app.name, app.model, stream, app.priority, mixed.bounds)
                for mixed in app.mix
            ]
    unsorted = np.concatenate(times)
    order = np.argsort(unsorted, kind="stable")
    return Requests(unsorted[order], np.concatenate(asked)[order], tuple(kinds))


def make_trace(apps: Sequence[App], duration: float, seed: int) -> Trace:
    """The requests of ``draw`` as a trace."""
    return Trace(tuple(draw(apps, duration, seed)))


def latency_cap(point: OperatingPoint, factor: float = 3.0) -> Bounds:
    """``factor`` times the latency of ``point``."""
    return Bounds(max_latency=factor * point.latency)


def energy_cap(point: OperatingPoint, factor: float = 1.1) -> Bounds:
    """``factor`` times the energy of ``point``; ValueError if that is unknown."""
    if point.energy is None:
        raise ValueError(f"the energy of exit {point.exit} is unknown: no cap can be set from it")
    return Bounds(max_energy=factor * point.energy)


def accuracy_floor(point: OperatingPoint, slack: float = 0.03) -> Bounds:
    """The accuracy of ``point`` less the ``slack`` that a guarantee needs."""
    return Bounds(min_accuracy=max(0.0, point.accuracy - slack))


def standard_mixes(points: Sequence[OperatingPoint]) -> tuple[tuple[Mixed, ...], ...]:
    """Ten mixes of bounds for the network with these exits as the planner sees them.

    The first, for a single tenant, has some of all. Relative to the useful exits: caps on latency
    at three and ten times an exit's, floors a little below an exit's accuracy, caps on energy a
    little above an exit's, pairs of them, and none. If energies are unknown, caps on latency
    replace those on energy.
    """
    useful = [point for point in points if not point.dominated]
    first, middle, last = useful[0], useful[len(useful) // 2], useful[-1]

    def energy(point: OperatingPoint) -> Bounds:
        return latency_cap(point, 6.0) if point.energy is None else energy_cap(point)

    tight, loose = latency_cap(middle), latency_cap(last, 10.0)
    floor = accuracy_floor(middle)
    both = Bounds(max_latency=loose.max_latency, min_accuracy=floor.min_accuracy)
    capped = Bounds(max_latency=loose.max_latency, max_energy=energy(middle).max_energy)
    everything = tuple(
        Mixed(1.0, bounds) for bounds in (tight, loose, floor, energy(middle), both, Bounds())
    )
    singles = (
        latency_cap(last),
        floor,
        energy(middle),
        loose,
        both,
        latency_cap(first, 4.0),
        capped,
        accuracy_floor(first),
        energy(last),
    )
    return (everything, *((Mixed(1.0, bounds),) for bounds in singles))


def standard_apps(
    count: int, rate: float, kind: Kind, points: Sequence[OperatingPoint]
) -> tuple[App, ...]:
    """1 to 10 tenants that together send ``rate`` requests a second, all of one ``kind``.

    Each has one of ``standard_mixes``; a single one has the first.
    """
    mixes = standard_mixes(points)
    if not 1 <= count <= len(mixes):
        raise ValueError(f"count is {count}; it must be from 1 to {len(mixes)}")
    chosen = mixes if count in (1, len(mixes)) else mixes[1:]
    make = _MAKERS[kind]
    return tuple(make(f"app{index}", rate / count, mix) for index, mix in enumerate(chosen[:count]))


def _poisson_app(name: str, rate: float, mix: tuple[Mixed, ...]) -> App:
    return App(name, Poisson(rate), mix)


def _bursty_app(name: str, rate: float, mix: tuple[Mixed, ...]) -> App:
    return App(name, Bursts(rate), mix)


def _camera_app(name: str, rate: float, mix: tuple[Mixed, ...]) -> App:
    cameras = max(1, round(rate / FRAMES_PER_SECOND))
    fps = rate / cameras
    return App(name, Camera(fps, jitter=0.1 / fps), mix, streams=cameras)


_MAKERS: dict[Kind, Callable[[str, float, tuple[Mixed, ...]], App]] = {
    "poisson": _poisson_app,
    "bursts": _bursty_app,
    "cameras": _camera_app,
}
