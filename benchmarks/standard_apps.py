"""The apps of the benchmarks: tenants with mixed bounds, set from a network's exits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from delen.core.bounds import Bounds
from delen.core.plan import OperatingPoint
from delen.simulate.apps import App, Mixed, draw
from delen.simulate.arrivals import Bursts, Camera, Poisson
from delen.simulate.trace import Trace

Kind = Literal["poisson", "bursts", "cameras"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FRAMES_PER_SECOND = 10.0
"""The rate of one of the ``cameras``; their number makes up the rate of an app."""


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
