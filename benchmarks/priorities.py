"""``python -m benchmarks.priorities``: what strict priorities cost all apps together.

Apps with the bounds of the dispatch grid get priorities from 1 to 9, which the operator lets them
have beside others. They *oppose* deadlines where the tightest cap has the last priority, as in the
grid's ``inverted`` cells, and *agree* with them where it has the first. The same requests are
played without priorities. Printed is by how many points the effective accuracy of all apps falls,
in simulation, at several loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import (
    DEFAULT,
    HERE,
    NANO_NAME,
    TX2_NAME,
    Cell,
    Size,
    model_of,
    trace_of,
)
from benchmarks.dispatch_kinds import INVERTED
from delen.core.bounds import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Trace
from policies.plugins import DISPATCH_POLICIES, find_plugin

LOADS = (0.5, 0.9, 1.2, 1.5)
TENANTS = (3, 9)
SEEDS = 5
SIZE = Size(640, 6.4)

_MIRROR = HIGHEST_PRIORITY + LOWEST_PRIORITY


def opposed(priority: int) -> int:
    return priority


def agreeing(priority: int) -> int:
    return _MIRROR - priority


def without(priority: int) -> int:
    return DEFAULT_PRIORITY


def prioritised(trace: Trace, change: Callable[[int], int]) -> Trace:
    """``trace`` with each request's priority changed."""
    return Trace(
        tuple(
            replace(arrival, priority=change(arrival.priority or DEFAULT_PRIORITY))
            for arrival in trace.arrivals
        )
    )


def effective(model: SimulatedModel, trace: Trace, seed: int) -> float:
    """The effective accuracy of all requests of ``trace``, in per cent."""
    policy = find_plugin(DISPATCH_POLICIES, DEFAULT)()
    priorities = dict.fromkeys(trace.tenants, HIGHEST_PRIORITY)
    settings = RunSettings(seed=seed, priorities=priorities)
    outcomes = run(trace, {model.name: model}, policy, policy, settings)
    return 100 * float(outcomes.effective.mean())


def costs(
    device: str, tenants: int, load: float, seeds: int = SEEDS, size: Size = SIZE
) -> list[Figure]:
    """The points that priorities cost ``tenants`` on ``device`` at ``load``, in ``seeds`` runs."""
    model = model_of(device)
    falls: dict[str, list[float]] = {"opposed": [], "agreeing": []}
    for seed in range(seeds):
        trace = trace_of(Cell(device, INVERTED, tenants, load), model, size, seed)
        usual = effective(model, prioritised(trace, without), seed)
        for name, change in (("opposed", opposed), ("agreeing", agreeing)):
            falls[name].append(usual - effective(model, prioritised(trace, change), seed))
    return [
        Figure(f"{device}, {tenants} apps, load {load:g}: {name}", tuple(values), "points")
        for name, values in falls.items()
    ]


def main() -> list[Figure]:
    figures = [
        figure
        for device in (HERE, NANO_NAME, TX2_NAME)
        for tenants in TENANTS
        for load in LOADS
        for figure in costs(device, tenants, load)
    ]
    return report("What strict priorities cost, effective accuracy of all apps together", figures)


if __name__ == "__main__":
    main()
