"""The samples that requests are about, drawn from the calibration tables of their models."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from delen.errors import ModelNotFound
from delen.simulate.model import SimulatedModel
from delen.simulate.trace import Trace


def draw_samples(
    trace: Trace, models: Mapping[str, SimulatedModel], default: str, seed: int
) -> array[int]:
    """The sample of each request, with replacement, the same in every run of one seed.

    ModelNotFound names a model that is not among ``models``.
    """
    asked = [arrival.model or default for arrival in trace]
    samples = np.empty(len(asked), np.int64)
    for name in dict.fromkeys(asked):
        if name not in models:
            known = ", ".join(sorted(models))
            raise ModelNotFound(f"the trace asks for the model {name!r}; simulated: {known}")
        rows = np.array([other == name for other in asked], bool)
        count = models[name].calibration.samples
        samples[rows] = np.random.default_rng(seed).integers(count, size=int(rows.sum()))
    return array("q", samples.tobytes())
