"""``python -m benchmarks.isolation``: what a flood does to a calm app that stays within its share.

The calm app sends 0.3 of what the device runs a second to the deepest exit, with caps on latency of
three times what the middle and the last exit take. Beside it comes, under one name or many, three
times of what the device runs: with each kind of bounds, with none, with bounds that nothing can
keep, with the highest priority, in bursts, from many streams. Claimed is what shares are for: the
calm app's violations (refused for the load, or late) rise by at most one point, and the accuracy of
its answers falls by at most three: a flood must not make them shallower either. On the shipped
network by this machine's profile and on Dělen's ResNet-50 on a Jetson Nano, in simulation; the calm
app's requests are the same in all runs of a seed.

A name costs nothing, so that a flood under many lasting names has as many shares (``scheduler.
shares``); against that helps a weight, and the claim is made for a calm app that was given one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import DEFAULT, HERE, NANO_NAME, full_seconds, model_of
from benchmarks.standard_apps import accuracy_floor, energy_cap, latency_cap, make_trace
from delen.core.bounds import HIGHEST_PRIORITY, Bounds
from delen.core.plan import OperatingPoint
from delen.scheduler.shares import MOST_UNSET
from delen.simulate.apps import App, Mixed
from delen.simulate.arrivals import Bursts, Poisson
from delen.simulate.draws import draw_samples
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Trace
from policies.plugins import DISPATCH_POLICIES, find_plugin

CALM_LOAD, FLOOD_LOAD = 0.3, 3.0
REQUESTS, SECONDS = 600, 15.0
"""A run is of so many requests of the calm app at least, and so many seconds: until what the flood
may use at once (``shares.REQUESTS``) is long used up."""
SEEDS = 5
MOST_VIOLATIONS, MOST_ACCURACY = 1.0, 3.0
"""Points by which violations may rise, and accuracy fall."""

CALM, FLOOD = "calm", "flood"


@dataclass(frozen=True, slots=True)
class Flood:
    """What is sent beside the calm app, under so many ``names`` (None: a new one each time), while
    the calm app has ``weight`` (None: nobody gave it one). ``claimed``: it does no harm."""

    title: str
    app: App
    names: int | None = 1
    weight: float | None = None
    claimed: bool = True


def calm_app(points: Sequence[OperatingPoint], rate: float) -> App:
    useful = [point for point in points if not point.dominated]
    middle, last = useful[len(useful) // 2], useful[-1]
    return App(CALM, Poisson(rate), _mix(latency_cap(middle), latency_cap(last)))


def floods(points: Sequence[OperatingPoint], rate: float) -> list[Flood]:
    """What the flood of ``rate`` requests a second may look like."""
    useful = [point for point in points if not point.dominated]
    first, middle, last = useful[0], useful[len(useful) // 2], useful[-1]

    def app(*bounds: Bounds) -> App:
        return App(FLOOD, Poisson(rate), _mix(*bounds))

    capped = app(latency_cap(middle), latency_cap(last))
    floored = app(accuracy_floor(middle), accuracy_floor(last))
    unbound = app(Bounds())
    lasting = 2 * MOST_UNSET
    return [
        Flood("caps on latency", capped),
        Flood("floors", floored),
        Flood("caps on energy", app(energy_cap(middle))),
        Flood("caps and floors", app(latency_cap(last, 10.0), accuracy_floor(last))),
        Flood("no bounds", unbound),
        Flood("impossible bounds", app(latency_cap(first, 0.01), Bounds(min_accuracy=1.0))),
        Flood("priority 1, caps", replace(capped, priority=HIGHEST_PRIORITY)),
        Flood("priority 1, floors", replace(floored, priority=HIGHEST_PRIORITY)),
        Flood("bursts, caps", replace(capped, arrivals=Bursts(rate))),
        Flood("bursts, floors", replace(floored, arrivals=Bursts(rate))),
        Flood("50 streams", replace(capped, arrivals=Poisson(rate / 50), streams=50)),
        Flood("a new name each time, caps", capped, None),
        Flood("a new name each time, no bounds", unbound, None),
        Flood(f"{lasting} names, the calm app of weight 1", capped, lasting, 1.0, claimed=False),
        Flood(f"{lasting} names, the calm app of weight 10", capped, lasting, 10.0),
        Flood(f"{lasting} names, the same, floors", floored, lasting, 10.0),
    ]


def renamed(trace: Trace, names: int | None) -> Trace:
    """The requests of FLOOD under so many names in turn."""
    if names == 1:
        return trace
    return Trace(
        tuple(
            replace(arrival, tenant=f"{FLOOD}-{row if names is None else row % names}")
            if arrival.tenant == FLOOD
            else arrival
            for row, arrival in enumerate(trace.arrivals)
        )
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """What the calm app got: the percentage of its requests that were refused, or not answered in
    time, and by how many points its answers are less accurate than the deepest exit would have
    been on the same samples. (Its samples are others beside each flood.)"""

    violations: float
    lost: float


def kept(model: SimulatedModel, trace: Trace, weights: Mapping[str, float], seed: int) -> Kept:
    """What the calm app of ``trace`` gets."""
    policy = find_plugin(DISPATCH_POLICIES, DEFAULT)()
    settings = RunSettings(weights=weights, seed=seed)
    outcomes = run(trace, {model.name: model}, policy, policy, settings)
    rows = outcomes.tenant == outcomes.tenants.index(CALM)
    calm, samples = outcomes[rows], draw_samples(trace, {model.name: model}, model.name, seed)
    deepest = model.calibration.correct[np.array(samples)[rows], model.planner.useful.deepest]
    answered = calm.answered
    lost = deepest[answered].astype(float) - calm.correct[answered]
    return Kept(
        100 * float((calm.missed | ~answered).mean()),
        100 * float(lost.mean()) if answered.any() else 100.0,
    )


def kept_beside(model: SimulatedModel, calm: App, flood: Flood, duration: float, seed: int) -> Kept:
    """What the calm app gets with ``flood`` beside it."""
    weights = {} if flood.weight is None else {CALM: flood.weight}
    trace = renamed(make_trace([calm, flood.app], duration, seed), flood.names)
    return kept(model, trace, weights, seed)


def changes(device: str, seeds: int) -> list[Figure]:
    """By how many points the calm app's violations rise beside each flood, and its accuracy falls,
    in ``seeds`` runs."""
    model = model_of(device)
    points, full = model.planner.points(model.costs()), full_seconds(model)
    calm = calm_app(points, CALM_LOAD / full)
    duration = max(SECONDS, REQUESTS * full / CALM_LOAD)
    alone = [kept(model, make_trace([calm], duration, seed), {}, seed) for seed in range(seeds)]
    figures = [
        Figure(f"{device}, calm alone: violations", tuple(each.violations for each in alone), "%"),
    ]
    for flood in floods(points, FLOOD_LOAD / full):
        beside = [kept_beside(model, calm, flood, duration, seed) for seed in range(seeds)]
        pairs = list(zip(alone, beside, strict=True))
        rises = tuple(after.violations - before.violations for before, after in pairs)
        falls = tuple(after.lost - before.lost for before, after in pairs)
        for name, values, most in (
            ("violations", rises, MOST_VIOLATIONS),
            ("accuracy, fall", falls, MOST_ACCURACY),
        ):
            limit = most if flood.claimed else None
            figures.append(Figure(f"{device}, {flood.title}: {name}", values, "points", limit))
    return figures


def _mix(*bounds: Bounds) -> tuple[Mixed, ...]:
    return tuple(Mixed(1.0, each) for each in bounds)


def main() -> list[Figure]:
    figures = [figure for device in (HERE, NANO_NAME) for figure in changes(device, SEEDS)]
    return report("Isolation: what a flood changes for a calm app", figures)


if __name__ == "__main__":
    main()
