"""What could be reached in a run on the same device: by a clairvoyant, and by who sees no label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from delen.profile.cost_model import CostModel
from delen.simulate.bounds.fluid import fluid_bound
from delen.simulate.bounds.label_blind import label_blind_tasks
from delen.simulate.bounds.least_costs import LeastCosts, Tasks
from delen.simulate.device import DeviceSettings, durations
from delen.simulate.draws import draw_samples
from delen.simulate.model import SimulatedModel
from delen.simulate.trace import Trace

Sizes = Sequence[tuple[SimulatedModel, LeastCosts]]
MakeTasks = Callable[[Trace, NDArray[np.int64], Sizes], Tasks]


def upper_bound(
    trace: Trace, models: Mapping[str, SimulatedModel], device: DeviceSettings, seed: int
) -> float:
    """The effective accuracy that no schedule exceeds on average over the noise of ``device``."""

    def tasks(part: Trace, samples: NDArray[np.int64], sizes: Sizes) -> Tasks:
        return Tasks.of(part, samples, [(model.calibration, costs) for model, costs in sizes])

    return _bound(trace, models, device, seed, tasks)


def label_blind_bound(
    trace: Trace, models: Mapping[str, SimulatedModel], device: DeviceSettings, seed: int
) -> float:
    """An estimate of the effective accuracy that no schedule exceeds which knows all arrivals, but
    of each sample only what its exits have said so far."""

    def tasks(part: Trace, samples: NDArray[np.int64], sizes: Sizes) -> Tasks:
        return label_blind_tasks(part, samples, [(model.planner, costs) for model, costs in sizes])

    return _bound(trace, models, device, seed, tasks)


def _bound(
    trace: Trace,
    models: Mapping[str, SimulatedModel],
    device: DeviceSettings,
    seed: int,
    make_tasks: MakeTasks,
) -> float:
    default = next(iter(models))
    samples = np.array(draw_samples(trace, models, default, seed), np.int64)
    names = np.array([arrival.model or default for arrival in trace])
    longest, parts = 0.0, []
    for name, model in models.items():
        rows = np.flatnonzero(names == name)
        part = Trace(tuple(trace.arrivals[row] for row in rows))
        sizes = [(each, _least_costs(each, device)) for each in model.sizes]
        longest_run = max(costs.longest for _, costs in sizes)
        longest = max(longest, max(device.interference) * longest_run)
        parts.append(make_tasks(part, samples[rows], sizes))
    return fluid_bound(Tasks.join(parts), device.lanes, device.slow, longest).effective_accuracy


def _least_costs(model: SimulatedModel, device: DeviceSettings) -> LeastCosts:
    return LeastCosts.of(
        CostModel(model.actual, model.energy, model.level),
        model.max_batch,
        durations if device.noise else None,
        model.host.batch if device.lanes == 1 else 0.0,
        device.network,
    )
