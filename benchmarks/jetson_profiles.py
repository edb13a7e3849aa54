"""Published figures of networks on Jetsons that are not here, as plain values.

Sources (neither is part of this project; ``DELEN_TEST_DATA`` names the folder that has them):

- Dělen (Liang et al., IoTDI 2023; umassos/delen, MIT): a ResNet-50 with four exits on a Jetson
  Nano, with accuracy on Food-101, GFLOP and mJ of each exit.
- ETF (SEC 2023; umassos/energy-time-fairness, Apache-2.0): time, GPU power and energy of every
  kernel of a ResNet-18 and a ResNet-50 on a Jetson TX2 at 13 GPU clocks. These have no exits and
  no accuracies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

NANO_WATTS = 3.93
"""Mean power that Dělen's energies and the run times in its README imply. Its profile has no
latencies: those here are energy / power, and so inferred."""

TX2_CLOCKS_HZ = (1_300_500_000, 726_750_000)
"""The fastest GPU clock that ETF measured, and the one of least energy."""

STAGES = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
"""Residual blocks of each stage (He et al., CVPR 2016, table 1)."""

_BLOCK_END = "bias_add_add_nn_relu"
_HEAD = ("global_avg_pool2d", "reshape", "dense")


@dataclass(frozen=True, slots=True)
class SegmentFigures:
    """A segment with its exit for one sample: seconds and joules."""

    latency: float
    energy: float


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """A network on a device; ``accuracies`` are those of its exits, ``note`` what is assumed."""

    network: str
    device: str
    power_mode: str
    segments: tuple[SegmentFigures, ...]
    accuracies: tuple[float, ...]
    note: str

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.accuracies):
            raise ValueError(
                f"{self.network} has {len(self.segments)} segments and "
                f"{len(self.accuracies)} accuracies"
            )

    @property
    def latencies(self) -> tuple[float, ...]:
        """Seconds from the start to each exit."""
        return tuple(accumulate(segment.latency for segment in self.segments))

    @property
    def energies(self) -> tuple[float, ...]:
        """Joules from the start to each exit."""
        return tuple(accumulate(segment.energy for segment in self.segments))


def delen_nano(folder: Path) -> NetworkFigures:
    """Dělen's ResNet-50 on a Jetson Nano, from the profiles in ``folder``."""
    exits = _read(folder / "delen_jetson_nano_resnet50.json")
    energies = [exit["energy"] / 1e3 for exit in exits]
    steps = [after - before for before, after in pairwise([0.0, *energies])]
    return NetworkFigures(
        network="resnet50",
        device="Jetson Nano",
        power_mode="default",
        segments=tuple(SegmentFigures(step / NANO_WATTS, step) for step in steps),
        accuracies=tuple(exit["accuracy"] for exit in exits),
        note=f"accuracies and energies as published; latencies are energy / {NANO_WATTS} W",
    )


def etf_tx2(folder: Path, network: str, clock: int = TX2_CLOCKS_HZ[0]) -> NetworkFigures:
    """ETF's ``network`` (one of STAGES) on a Jetson TX2 at the GPU ``clock`` in Hz.

    Exits are put after each of the four stages. A segment is the kernels of its stage (the first
    with those before it) and a head, taken to cost what the one at the network's end does, which
    is more than a head on an earlier stage's fewer channels would. The accuracies are *assumed*:
    they are those of the four exits of Dělen's ResNet-50 on Food-101, for the ResNet-18 too.

    Raises ValueError for a network or clock that is not there, and where the kernels are not
    those of the network.
    """
    if network not in STAGES:
        raise ValueError(f"no network {network!r}; there are {', '.join(STAGES)}")
    document = _read(folder / f"etf_jetson_tx2_{network}.json")
    if str(clock) not in document["exec_time"]:
        clocks = ", ".join(document["exec_time"])
        raise ValueError(f"no clock of {clock} Hz; there are {clocks}")
    kernels = {
        name: SegmentFigures(
            kernel["exec_time"][str(clock)] / 1e6, kernel["energy"][str(clock)] / 1e6
        )
        for name, kernel in document["kernel_profile"].items()
    }
    stages, head = _stages(kernels, STAGES[network])
    return NetworkFigures(
        network=network,
        device="Jetson TX2",
        power_mode=f"gpu-{clock / 1e6:g}MHz",
        segments=tuple(_sum([*stage, *head]) for stage in stages),
        accuracies=delen_nano(folder).accuracies,
        note="times and energies from ETF's kernels, a head at each exit; accuracies assumed: "
        "those of Dělen's ResNet-50 on Food-101",
    )


def _stages(
    kernels: Mapping[str, SegmentFigures], blocks: Sequence[int]
) -> tuple[list[list[SegmentFigures]], list[SegmentFigures]]:
    """The kernels of each stage, and those of the head; a block ends where its input is added."""
    limits = list(accumulate(blocks))
    stages: list[list[SegmentFigures]] = [[] for _ in blocks]
    head: list[SegmentFigures] = []
    ended = 0
    for name, figures in kernels.items():
        if any(part in name for part in _HEAD):
            head.append(figures)
            continue
        stage = sum(ended >= limit for limit in limits)
        if stage == len(blocks):
            raise ValueError(f"{name} comes after the {limits[-1]} blocks that there should be")
        stages[stage].append(figures)
        ended += _BLOCK_END in name
    if ended != limits[-1] or len(head) != len(_HEAD):
        raise ValueError(f"there are {ended} blocks and {len(head)} kernels of a head")
    return stages, head


def _sum(parts: Sequence[SegmentFigures]) -> SegmentFigures:
    return SegmentFigures(sum(part.latency for part in parts), sum(part.energy for part in parts))


def _read(file: Path) -> Any:
    return json.loads(file.read_text())
