"""A chain at a smaller input size: calibrated and checked on the same samples scaled down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import scale_down
from delen.bundle.manifest import InputSpec, ScaledSpec
from delen.core.variant import Size, format_size
from multiexit_models.calibrate.criterion import make_calibration
from multiexit_models.calibrate.provenance import exit_provenance
from multiexit_models.calibrate.temperature import fit_temperature
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.export.exported import check_chain, finish
from multiexit_models.export.network_chain import Chain, evaluate, exit_specs
from multiexit_models.progress import Bar

CHECKED_INPUTS = 256


@dataclass(frozen=True, eq=False)
class OfSize:
    """What a bundle has of one smaller input size."""

    spec: ScaledSpec
    files: dict[str, bytes]
    provenance: Mapping[str, Any]


def at_size(
    chain: Chain,
    index: int,
    data: Dataset,
    criterion: str,
    temperatures: Sequence[float],
    graphs: Mapping[str, bytes],
    bar: Bar,
) -> OfSize:
    """Calibrate and check smaller size ``index`` of ``chain``, on the same samples scaled down.
    Graphs of its own get temperatures of their own; the ``criterion`` is that of the largest."""
    scaled = chain.smaller[index]
    name = format_size(scaled.size)
    bar.stage(f"calibrating at {name}")

    def part(of: Labelled) -> Labelled:
        return Labelled(scaled_to(data.input, of.inputs, scaled.size), of.labels, of.groups)

    exported = chain.exported
    features = exported.smaller[index] if exported.smaller else ()
    if scaled.exported is not None:
        exported, features = scaled.exported, scaled.exported.features
        validated = evaluate(exported, part(data.validation), bar)
        temperatures = [fit_temperature(logits, validated.labels) for logits in validated.logits]
        own = finish(exported, criterion, temperatures, bar.segment)
        graphs = {graph.replace(".", f"-{name}.", 1): raw for graph, raw in own.items()}
    calibrated, tested = (evaluate(exported, part(of), bar) for of in (data.calibration, data.test))
    table = make_calibration(
        calibrated.logits, calibrated.labels, temperatures, criterion, calibrated.groups
    )
    checked = part(data.test.spread(CHECKED_INPUTS)).inputs
    differences = check_chain(
        chain.logits(checked), graphs, exported, criterion, temperatures, checked, bar.sample
    )
    exits = exit_specs(graphs, features, scaled.macs, temperatures, tested)
    file = f"calibration-{name}.npz"
    own_graphs = dict(graphs) if scaled.exported is not None else {}
    return OfSize(
        ScaledSpec(exits, file),
        {**own_graphs, file: table.to_npz()},
        {
            "size": list(scaled.size),
            "exits": exit_provenance(
                scaled.macs, scaled.head_macs, calibrated, tested, temperatures
            ),
            "max_logit_difference": differences,
        },
    )


def scaled_to(input: InputSpec, inputs: NDArray[Any], size: Size) -> NDArray[Any]:
    """Images ``[n, height, width, channels]`` of ``input`` at a smaller ``size``, as they are
    scaled down where they are served."""
    assert input.image is not None
    shape = (*size, *inputs.shape[3:])
    scaled = [scale_down(image, input.image, shape) for image in inputs]
    return np.stack(scaled) if scaled else np.empty((0, *shape), inputs.dtype)
