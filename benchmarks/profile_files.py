"""``python -m benchmarks.profile_files FOLDER``: the published networks as delen's profile files.

The sources are read where ``DELEN_TEST_DATA`` says (see ``jetson_profiles``). The folder
``benchmarks/profiles`` holds what this makes of them, and a README that says what is published and
what is assumed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.common import data_folder
from benchmarks.jetson_profiles import NetworkFigures, delen_nano, etf_tx2
from delen.profile.profile import Device, Metering, Profile, Quantiles, SegmentCost
from delen.profile.store import save_profile

FOLDER = Path(__file__).resolve().parent / "profiles"
NANO, TX2_RESNET50, TX2_RESNET18 = (
    FOLDER / f"{name}.json" for name in ("nano-resnet50", "tx2-resnet50", "tx2-resnet18")
)

SPREAD = {"p50": 1.0, "p90": 1.011, "p95": 1.0141, "p99": 1.02}
"""Quantiles over the median, which neither source has. Dělen's README has a condition of 20 ms
stop at 25.7 to 26.6 ms, 1.7 % to either side: so the 99th percentile is taken to be 2 % above the
median, and the others as those of a normal distribution."""

_CPU_CORES = {"Jetson Nano": 4, "Jetson TX2": 6}
_RUNTIMES = {"Jetson Nano": "tensorrt", "Jetson TX2": "tvm"}
_SCOPES = {"Jetson Nano": "module", "Jetson TX2": "gpu"}
_ANSWER = Quantiles(0.0, 0.0, 0.0, 0.0)


def to_profile(figures: NetworkFigures, name: str) -> Profile:
    """``figures`` as the profile of the model ``name``, at batch 1: no larger one is published."""
    whole = figures.latencies[-1]
    return Profile(
        model=name,
        bundle="none: published figures",
        device=Device(
            processor=f"NVIDIA {figures.device}",
            cores=_CPU_CORES[figures.device],
            backend=_RUNTIMES[figures.device],
            provider=_RUNTIMES[figures.device],
            threads=1,
            power_mode=figures.power_mode,
        ),
        created="2023",
        quick=False,
        answer=_ANSWER,
        segments=tuple(
            {
                1: SegmentCost(
                    Quantiles(**{q: segment.latency * factor for q, factor in SPREAD.items()}),
                    processor=0.0,
                    energy=segment.energy,
                )
            }
            for segment in figures.segments
        ),
        energy=Metering(
            "published", _SCOPES[figures.device], idle_watts=0.0, blocks=1, block_seconds=whole
        ),
        accuracies=figures.accuracies,
    )


def batch_friendly(profile: Profile, largest: int = 16) -> Profile:
    """A device on which batches pay: one more sample adds a quarter of the time of one, and of its
    energy (as Jellyfish, RTSS 2022, takes it for its GPU)."""

    def times(cost: SegmentCost, batch: int) -> SegmentCost:
        factor = 0.75 + 0.25 * batch
        energy = None if cost.energy is None else factor * cost.energy
        return replace(cost, latency=cost.latency.times(factor), energy=energy)

    segments = tuple(
        {batch: times(sizes[1], batch) for batch in range(1, largest + 1)}
        for sizes in profile.segments
    )
    return replace(profile, model=f"{profile.model}-batches", segments=segments)


def long_tailed(profile: Profile) -> Profile:
    """A device on which one run in ten takes 1.3 times as long as usual, one in a hundred three
    times."""

    def tail(cost: SegmentCost) -> SegmentCost:
        usual = cost.latency.p50
        return replace(cost, latency=Quantiles(usual, 1.3 * usual, 1.8 * usual, 3.0 * usual))

    segments = tuple(
        {batch: tail(cost) for batch, cost in sizes.items()} for sizes in profile.segments
    )
    return replace(profile, model=f"{profile.model}-long-tail", segments=segments)


def make(sources: Path, folder: Path) -> tuple[Path, ...]:
    """Write the three files into ``folder`` from the published ``sources``."""
    networks = {
        NANO.name: delen_nano(sources),
        TX2_RESNET50.name: etf_tx2(sources, "resnet50"),
        TX2_RESNET18.name: etf_tx2(sources, "resnet18"),
    }
    files = []
    for name, figures in networks.items():
        file = folder / name
        save_profile(to_profile(figures, file.stem), file)
        files.append(file)
    return tuple(files)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for made in make(data_folder() / "profiles", Path(sys.argv[1])):
        print(made)
