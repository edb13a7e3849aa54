"""A network as a chain of exported stages, and what its exits are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import ExitSpec
from delen.core.variant import Size
from multiexit_models.calibrate.provenance import Evaluated
from multiexit_models.data.dataset import Labelled
from multiexit_models.export.exported import Exported, chain_logits
from multiexit_models.progress import Bar


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of exported stages, what it costs and what it must compute.

    ``macs`` are the multiply-adds of a sample that ends at each exit, ``head_macs`` those of the
    exit's own head. ``logits`` are the network's ``[exits, n, classes]`` for inputs ``[n, ...]``,
    computed in another way than by the chain. ``digest`` is of the network's weights. ``smaller``
    is the chain at each of its smaller input sizes.
    """

    exported: Exported
    macs: Sequence[int]
    head_macs: Sequence[int]
    logits: Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
    digest: str
    smaller: Sequence[ScaledChain] = ()


@dataclass(frozen=True, eq=False)
class ScaledChain:
    """A chain on inputs of a smaller ``size``: what it costs, and its ``exported`` stages where it
    has its own, because height and width are not free in those of the largest size."""

    size: Size
    macs: Sequence[int]
    head_macs: Sequence[int]
    exported: Exported | None = None


def evaluate(exported: Exported, data: Labelled, bar: Bar) -> Evaluated:
    bar.close()
    logits = chain_logits(exported, data.inputs, on_sample=bar.sample)
    return Evaluated(logits, data.labels, data.groups)


def exit_specs(
    graphs: Mapping[str, bytes],
    features: Sequence[tuple[int, ...]],
    macs: Sequence[int],
    temperatures: Sequence[float],
    tested: Evaluated,
) -> tuple[ExitSpec, ...]:
    columns = zip(graphs, [*features, None], macs, temperatures, tested.accuracy(), strict=True)
    return tuple(ExitSpec(*column) for column in columns)
