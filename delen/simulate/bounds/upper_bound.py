"""The upper bound of a run: what a clairvoyant could reach on the same device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from delen.profile.cost_model import CostModel
from delen.simulate.bounds.fluid import fluid_bound
from delen.simulate.bounds.least_costs import LeastCosts, Tasks
from delen.simulate.device import DeviceSettings, durations
from delen.simulate.draws import draw_samples
from delen.simulate.model import SimulatedModel
from delen.simulate.trace import Trace


def upper_bound(
    trace: Trace, models: Mapping[str, SimulatedModel], device: DeviceSettings, seed: int
) -> float:
    """The effective accuracy that no schedule exceeds on average over the noise of ``device``."""
    default = next(iter(models))
    samples = np.array(draw_samples(trace, models, default, seed), np.int64)
    names = np.array([arrival.model or default for arrival in trace])
    longest, parts = 0.0, []
    for name, model in models.items():
        rows = np.flatnonzero(names == name)
        part = Trace(tuple(trace.arrivals[row] for row in rows))
        offers = [(each.calibration, _least_costs(each, device)) for each in model.sizes]
        longest_run = max(costs.longest for _, costs in offers)
        longest = max(longest, max(device.interference) * longest_run)
        parts.append(Tasks.of(part, samples[rows], *offers[0], offers[1:]))
    return fluid_bound(Tasks.join(parts), device.lanes, device.slow, longest).effective_accuracy


def _least_costs(model: SimulatedModel, device: DeviceSettings) -> LeastCosts:
    return LeastCosts.of(
        CostModel(model.actual, model.energy, model.level),
        model.max_batch,
        durations if device.noise else None,
        model.host.batch if device.lanes == 1 else 0.0,
        device.network,
    )
