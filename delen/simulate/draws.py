"""What requests are about: a sample for each, drawn from the population of its model."""

from __future__ import annotations

from collections.abc import Mapping

from delen.errors import ModelNotFound
from delen.simulate.model import SimulatedModel
from delen.simulate.trace import Trace


def draw_samples(
    trace: Trace, models: Mapping[str, SimulatedModel], default: str, seed: int
) -> list[int]:
    """The sample that each request is about, the same in every run of one seed.

    ModelNotFound naming a model that is not among ``models``.
    """
    rows: dict[str, list[int]] = {}
    for row, arrival in enumerate(trace.arrivals):
        rows.setdefault(arrival.model or default, []).append(row)
    samples = [0] * len(trace)
    for name, of_model in rows.items():
        if name not in models:
            known = ", ".join(sorted(models))
            raise ModelNotFound(f"the trace asks for the model {name!r}; simulated: {known}")
        drawn = models[name].population.draw(len(of_model), seed).tolist()
        for row, sample in zip(of_model, drawn, strict=True):
            samples[row] = sample
    return samples
