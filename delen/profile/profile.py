"""A profile: what each segment costs on one device, in one power mode, at each batch size."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from delen.errors import ProfileError

FORMAT = "delen-profile"
SCHEMA = 2
SCHEMAS = (1, SCHEMA)
MEDIAN = 0.5
LEVELS = (MEDIAN, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a duration, in seconds, or of a ratio."""

    p50: float
    p90: float
    p95: float
    p99: float

    def at(self, level: float) -> float:
        """The quantile at ``level`` (0.5 to 0.99), linear between those that are known."""
        if not LEVELS[0] <= level <= LEVELS[-1]:
            raise ValueError(f"level is {level}; it must be from {LEVELS[0]} to {LEVELS[-1]}")
        values = (self.p50, self.p90, self.p95, self.p99)
        upper = bisect_left(LEVELS, level)
        if LEVELS[upper] == level:
            return values[upper]
        share = (level - LEVELS[upper - 1]) / (LEVELS[upper] - LEVELS[upper - 1])
        return values[upper - 1] + share * (values[upper] - values[upper - 1])

    def times(self, factor: float) -> Quantiles:
        return Quantiles(*(factor * self.at(level) for level in LEVELS))


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """One segment at one batch size, for the whole batch.

    ``latency`` and ``processor`` (mean processor time) in seconds. ``energy`` is what it takes
    beyond the idle device, ``gross`` what the whole device takes meanwhile, and
    ``energy_interval`` has the energy with 95 %: joules as measured by a sensor, None where none
    has measured them.
    """

    latency: Quantiles
    processor: float
    energy: float | None = None
    gross: float | None = None
    energy_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """Everything that a latency depends on. A profile serves the device it was measured on."""

    processor: str
    cores: int
    backend: str
    provider: str
    threads: int
    power_mode: str

    @property
    def is_gpu(self) -> bool:
        return self.provider not in ("cpu", "torch-cpu")

    @property
    def key(self) -> str:
        """A file name for this device."""
        text = f"{self.processor}-{self.cores}c-{self.provider}-{self.threads}t-{self.power_mode}"
        return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


@dataclass(frozen=True, slots=True)
class Metering:
    """How the energies of a profile were measured: by the source named ``source``, whose total
    covers ``scope``, beside an idle device of ``idle_watts``, in ``blocks`` blocks of
    ``block_seconds`` for each exit and batch size."""

    source: str
    scope: str
    idle_watts: float
    blocks: int
    block_seconds: float


@dataclass(frozen=True, slots=True)
class HostCosts:
    """What serving takes beside the segments, and what it does to them.

    Seconds of the engine's own code, of which no two are done at once: ``request`` from a request's
    coming until it waits, ``batch`` to choose and gather a batch, ``task`` to judge each of its
    samples, and ``answer`` to write an answer. ``stretch``: how many times its profiled median a
    segment takes while requests come and go, which finds caches cold; None as profiled.
    """

    request: float = 0.0
    batch: float = 0.0
    task: float = 0.0
    answer: float = 0.0
    stretch: Quantiles | None = None

    def beside(self, batch: int) -> float:
        """Seconds beside each segment that runs on ``batch`` samples."""
        return self.batch + batch * self.task


_NO_HOST = HostCosts()


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What else ran while a profile was measured: ``others`` is the share of all cores that other
    work had, ``busy`` whether that was too much for the profile to be right."""

    busy: bool
    others: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured costs of ``bundle`` (its digest) on ``device``.

    ``segments[k][batch]`` is the cost of segment k. ``answer`` is the time from a segment's end
    to the answer in the caller's hands. ``quick`` marks a short first measurement, ``rough`` one of
    a few runs, whose latencies are too long rather than too short; it is kept in no file.
    ``interference[k]`` is how many times longer segments take while k other instances run.
    ``accuracies`` of the exits stand in a profile that is all that is known of a network.
    ``measured`` says what else ran meanwhile. ``energy``, ``interference``, ``host`` and
    ``measured`` are None where they were not measured.

    Where the model has several input sizes, ``model`` says which one this is of, and ``smaller``
    are the profiles of the smaller sizes that are known beside that of the largest.
    """

    model: str
    bundle: str
    device: Device
    created: str
    quick: bool
    answer: Quantiles
    segments: tuple[Mapping[int, SegmentCost], ...]
    energy: Metering | None = None
    accuracies: tuple[float, ...] | None = None
    interference: tuple[float, ...] | None = None
    host: HostCosts | None = None
    measured: Disturbance | None = None
    smaller: tuple[Profile, ...] = ()
    rough: bool = False

    @property
    def sizes(self) -> tuple[Profile, ...]:
        """Those of all input sizes that are known, largest first."""
        return (self, *self.smaller)

    def having(self, profile: Profile) -> Profile:
        """This with ``profile`` in place of what was known of its input size."""
        if profile.model == self.model:
            return replace(profile, smaller=self.smaller)
        others = tuple(known for known in self.smaller if known.model != profile.model)
        return replace(self, smaller=(*others, replace(profile, smaller=())))

    @property
    def busy(self) -> bool:
        """Whether the machine was too busy with other work while this was measured."""
        return self.measured is not None and self.measured.busy

    @property
    def lacks_host(self) -> bool:
        """Whether it is unknown what serving takes beside segments that follow one another."""
        return self.host is None and len(self.segments) > 1

    @property
    def host_costs(self) -> HostCosts:
        """``host``, which takes nothing where it was not measured."""
        return self.host or _NO_HOST

    @property
    def largest_batch(self) -> int:
        """The largest batch size that every segment was measured at."""
        return min(max(costs) for costs in self.segments)

    def cost(self, segment: int, batch: int) -> SegmentCost:
        """The cost at ``batch``, linear between the batch sizes measured; its energies between
        those whose energies were, None beyond them.

        Raises ProfileError beyond the largest profiled.
        """
        costs = self.segments[segment]
        cost = costs.get(batch) or _mix(costs, batch)
        if cost is None:
            low, high = min(costs), max(costs)
            raise ProfileError(f"batch {batch} is outside the profiled {low} to {high}")
        if cost.energy is not None:
            return cost
        metered = {size: cost for size, cost in costs.items() if cost.energy is not None}
        joules = _mix(metered, batch)
        if joules is None:
            return cost
        return replace(
            cost,
            energy=joules.energy,
            gross=joules.gross,
            energy_interval=joules.energy_interval,
        )

    def seconds(self, segment: int, batch: int, level: float) -> float:
        """From when a ``batch`` is chosen for ``segment`` to when its samples are judged, at the
        quantile ``level`` of the segment's time: with what the host does beside it."""
        return self.cost(segment, batch).latency.at(level) + self.host_costs.beside(batch)

    def as_served(self) -> Profile:
        """What segments take while requests come and go, where that was measured: then nothing
        stretches them any more."""
        if self.host is None or self.host.stretch is None:
            return self
        return replace(self.stretched(self.host.stretch), host=replace(self.host, stretch=None))

    def stretched(self, by: Quantiles) -> Profile:
        """With latencies of segments that are ``by`` times their medians, and as much more
        processor time as the median."""

        def stretch(cost: SegmentCost) -> SegmentCost:
            latency, processor = by.times(cost.latency.p50), by.p50 * cost.processor
            return replace(cost, latency=latency, processor=processor)

        segments = tuple(
            {size: stretch(cost) for size, cost in costs.items()} for costs in self.segments
        )
        return replace(self, segments=segments)

    def to_json(self) -> str:
        """The text of a profile file; times in ms and energies in mJ, as their keys say."""
        document = {"format": FORMAT, "schema": SCHEMA, **self._document()}
        if self.smaller:
            document["smaller"] = [profile._document() for profile in self.smaller]
        return json.dumps(document, indent=1) + "\n"

    def _document(self) -> dict[str, Any]:
        """What is known of this input size."""
        document: dict[str, Any] = {
            "model": self.model,
            "bundle": self.bundle,
            "device": asdict(self.device),
            "created": self.created,
            "quick": self.quick,
            "energy": None if self.energy is None else metering_to_json(self.energy),
            "answer_ms": _quantiles_to_ms(self.answer),
            "segments": [
                {
                    "batches": {
                        str(batch): {
                            "latency_ms": _quantiles_to_ms(cost.latency),
                            "processor_ms": 1e3 * cost.processor,
                            "energy_mj": _energy_to_mj(cost),
                        }
                        for batch, cost in sorted(costs.items())
                    }
                }
                for costs in self.segments
            ],
        }
        if self.host is not None:
            document["host"] = _host_to_json(self.host)
        if self.accuracies is not None:
            document["accuracies"] = list(self.accuracies)
        if self.interference is not None:
            document["corun"] = list(self.interference)
        if self.measured is not None:
            document["measured"] = asdict(self.measured)
        return document


def _mix(costs: Mapping[int, SegmentCost], batch: int) -> SegmentCost | None:
    """Linear between the sizes around ``batch``; None where it is not between two."""
    sizes = sorted(costs)
    upper = bisect_left(sizes, batch)
    if not 0 < upper < len(sizes):
        return None
    low, high = costs[sizes[upper - 1]], costs[sizes[upper]]
    share = (batch - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1])

    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    def mix_known(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else mix(a, b)

    interval = None
    if low.energy_interval is not None and high.energy_interval is not None:
        ends = zip(low.energy_interval, high.energy_interval, strict=True)
        lowest, highest = (mix(a, b) for a, b in ends)
        interval = (lowest, highest)
    return SegmentCost(
        Quantiles(*(mix(low.latency.at(level), high.latency.at(level)) for level in LEVELS)),
        mix(low.processor, high.processor),
        mix_known(low.energy, high.energy),
        mix_known(low.gross, high.gross),
        interval,
    )


def metering_to_json(metering: Metering) -> dict[str, Any]:
    """As profile files show it, watts and seconds."""
    return {
        "source": metering.source,
        "scope": metering.scope,
        "idle_w": metering.idle_watts,
        "blocks": metering.blocks,
        "block_s": metering.block_seconds,
    }


def _energy_to_mj(cost: SegmentCost) -> dict[str, float | None] | None:
    if cost.energy is None:
        return None
    low, high = cost.energy_interval or (None, None)
    joules = {"marginal": cost.energy, "gross": cost.gross, "low": low, "high": high}
    return {name: None if value is None else 1e3 * value for name, value in joules.items()}


def _host_to_json(host: HostCosts) -> dict[str, Any]:
    return {
        "request_ms": 1e3 * host.request,
        "batch_ms": 1e3 * host.batch,
        "task_ms": 1e3 * host.task,
        "answer_ms": 1e3 * host.answer,
        "stretch": None if host.stretch is None else asdict(host.stretch),
    }


def _quantiles_to_ms(quantiles: Quantiles) -> dict[str, float]:
    return {name: 1e3 * value for name, value in asdict(quantiles).items()}
