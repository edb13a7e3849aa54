"""Puts the energies of segments, measured by blocks, into a profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.errors import ConfigError
from delen.measure.segments import noise_inputs, run_chain
from delen.profile.profile import Metering, Profile, SegmentCost
from power.metering.block_energy import evaluate
from power.metering.blocks import BlockPlan, BlockRunner, Chain, Meter, Progress
from power.sources.source import PowerSource

POLL = 0.02
"""Seconds between two readings of a block, where the source has them so often."""


class SourceMeter(Meter, Protocol):
    """A Sampler of ``source``."""

    @property
    def source(self) -> PowerSource: ...


def measured_batches(asked: Sequence[int], profile: Profile) -> list[int]:
    """``asked``, and the smallest and largest batch of ``profile``, between which all others are
    interpolated. ConfigError for a size that it does not have."""
    sizes = sorted(profile.segments[0])
    for batch in asked:
        if batch not in sizes:
            known = ", ".join(map(str, sizes))
            raise ConfigError(f"batch {batch} is not in the profile; its sizes are {known}")
    return sorted({sizes[0], sizes[-1], *asked})


def retained(plan: BlockPlan) -> float:
    """Seconds of readings that a Sampler must keep for ``measure_energy``: a block and its idles,
    twice over for blocks whose last run is long."""
    return 2 * (plan.seconds + 2 * plan.idle)


def measure_energy(
    bundle: Bundle,
    network: Network,
    profile: Profile,
    meter: SourceMeter,
    steady: Callable[[], str],
    plan: BlockPlan,
    batches: Sequence[int] = (),
    on_progress: Progress = lambda done, total, what: None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[Profile, tuple[str, ...]]:
    """``profile`` with the energies of each segment at ``measured_batches``, and notes on them.

    ``steady``, ``clock`` and ``wait`` are those of ``power.metering.blocks.BlockRunner``. Raises
    ProfileError where the blocks cannot be used, ConfigError for a batch that was not profiled.
    """
    inputs = noise_inputs(bundle)

    def work(chain: Chain) -> None:
        for _ in run_chain(network, inputs[: chain.batch], chain.exit + 1):
            pass

    exits = range(len(bundle.exits))
    chains = [Chain(batch, exit) for batch in measured_batches(batches, profile) for exit in exits]
    blocks = BlockRunner(work, meter, steady, clock, wait).run(chains, plan, on_progress)
    found = evaluate(blocks, plan, meter.interval)
    segments = tuple(
        {
            batch: replace(
                cost,
                energy=joules.marginal,
                gross=joules.gross,
                energy_interval=(joules.low, joules.high),
            )
            if (joules := energies.get(batch)) is not None
            else _without_energy(cost)
            for batch, cost in costs.items()
        }
        for costs, energies in zip(profile.segments, found.segments, strict=True)
    )
    source = meter.source
    metering = Metering(source.name, source.scope, found.idle_watts, plan.rounds, plan.seconds)
    return replace(profile, segments=segments, energy=metering), found.notes


def keep_energies(profile: Profile, known: Profile) -> Profile:
    """``profile`` with the energies of ``known``, an earlier one of the same bundle and device."""
    segments: list[Mapping[int, SegmentCost]] = []
    for costs, earlier in zip(profile.segments, known.segments, strict=True):
        kept = {}
        for batch, cost in costs.items():
            had = earlier.get(batch, cost)
            kept[batch] = replace(
                cost, energy=had.energy, gross=had.gross, energy_interval=had.energy_interval
            )
        segments.append(kept)
    return replace(profile, segments=tuple(segments), energy=known.energy)


def _without_energy(cost: SegmentCost) -> SegmentCost:
    return replace(cost, energy=None, gross=None, energy_interval=None)
