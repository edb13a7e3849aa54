"""A profile: what each segment costs on one device, in one power mode, at each batch size."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delen.errors import ProfileError
from delen.fields import Fields

FORMAT = "delen-profile"
SCHEMA = 1
LEVELS = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A duration's quantiles in seconds."""

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


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """One segment at one batch size, for the whole batch.

    ``latency`` and ``processor`` (mean processor time) in seconds; ``energy`` in joules of
    dynamic energy as measured by a sensor, None where none has measured it.
    """

    latency: Quantiles
    processor: float
    energy: float | None = None


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
    def key(self) -> str:
        """A file name for this device."""
        text = f"{self.processor}-{self.cores}c-{self.provider}-{self.threads}t-{self.power_mode}"
        return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured costs of ``bundle`` (its digest) on ``device``.

    ``segments[k][batch]`` is the cost of segment k. ``answer`` is the time from a segment's end
    to the answer in the caller's hands. ``quick`` marks a short first measurement. ``accuracies``
    of the exits stand in a profile that is all that is known of a network, else they are None.
    """

    model: str
    bundle: str
    device: Device
    created: str
    quick: bool
    answer: Quantiles
    segments: tuple[Mapping[int, SegmentCost], ...]
    accuracies: tuple[float, ...] | None = None

    def cost(self, segment: int, batch: int) -> SegmentCost:
        """The cost at ``batch``, linear between the batch sizes measured.

        Raises ProfileError beyond the largest of them.
        """
        costs = self.segments[segment]
        if (exact := costs.get(batch)) is not None:
            return exact
        sizes = sorted(costs)
        upper = bisect_left(sizes, batch)
        if not 0 < upper < len(sizes):
            raise ProfileError(f"batch {batch} is outside the profiled {sizes[0]} to {sizes[-1]}")
        low, high = sizes[upper - 1], sizes[upper]
        return _between(costs[low], costs[high], (batch - low) / (high - low))

    def to_json(self) -> str:
        """The text of a profile file; times in ms and energies in mJ, as their keys say."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "schema": SCHEMA,
            "model": self.model,
            "bundle": self.bundle,
            "device": asdict(self.device),
            "created": self.created,
            "quick": self.quick,
            "answer_ms": _quantiles_to_ms(self.answer),
            "segments": [
                {
                    "batches": {
                        str(batch): {
                            "latency_ms": _quantiles_to_ms(cost.latency),
                            "processor_ms": 1e3 * cost.processor,
                            "energy_mj": None if cost.energy is None else 1e3 * cost.energy,
                        }
                        for batch, cost in sorted(costs.items())
                    }
                }
                for costs in self.segments
            ],
        }
        if self.accuracies is not None:
            document["accuracies"] = list(self.accuracies)
        return json.dumps(document, indent=1) + "\n"


def _between(low: SegmentCost, high: SegmentCost, share: float) -> SegmentCost:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    energy = None
    if low.energy is not None and high.energy is not None:
        energy = mix(low.energy, high.energy)
    return SegmentCost(
        Quantiles(*(mix(low.latency.at(level), high.latency.at(level)) for level in LEVELS)),
        mix(low.processor, high.processor),
        energy,
    )


def _quantiles_to_ms(quantiles: Quantiles) -> dict[str, float]:
    return {name: 1e3 * value for name, value in asdict(quantiles).items()}


def load_profile(file: Path) -> Profile:
    """Read a profile file; ProfileError naming the file and what is wrong with it."""

    def fail(sentence: str) -> ProfileError:
        return ProfileError(f"{file}: {sentence}")

    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise fail(f"cannot be read as JSON: {error}") from error
    root = Fields(document, "the profile", fail)
    if root.text("format", default="none") != FORMAT:
        raise fail(f"format must be {FORMAT!r}: this is no delen profile")
    if (schema := root.integer("schema")) != SCHEMA:
        raise fail(f"schema {schema} is not {SCHEMA}, the one that this delen reads")
    device = root.child("device")
    profile = Profile(
        model=root.text("model"),
        bundle=root.text("bundle"),
        device=Device(
            processor=device.text("processor"),
            cores=device.integer("cores"),
            backend=device.text("backend"),
            provider=device.text("provider"),
            threads=device.integer("threads"),
            power_mode=device.text("power_mode"),
        ),
        created=root.text("created"),
        quick=root.boolean("quick"),
        answer=_parse_quantiles(root.child("answer_ms"), fail),
        segments=tuple(_parse_segment(fields, fail) for fields in root.children("segments")),
        accuracies=_parse_accuracies(root.array("accuracies", None), fail),
    )
    device.finish()
    root.finish()
    if not profile.segments:
        raise fail("segments is empty")
    if profile.accuracies is not None and len(profile.accuracies) != len(profile.segments):
        raise fail(f"accuracies has {len(profile.accuracies)} exits, segments has another number")
    return profile


def _parse_accuracies(values: list[Any] | None, fail: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise fail(f"accuracies must be numbers between 0 and 1, not {value!r}")
    return tuple(map(float, values))


def _parse_quantiles(fields: Fields, fail: Any) -> Quantiles:
    values = [fields.number(name) / 1e3 for name in ("p50", "p90", "p95", "p99")]
    fields.finish()
    if values != sorted(values) or values[0] < 0:
        raise fail("latency quantiles must be at least 0 and ascend from p50 to p99")
    return Quantiles(*values)


def _parse_segment(fields: Fields, fail: Any) -> dict[int, SegmentCost]:
    batches = fields.mapping("batches")
    fields.finish()
    costs = {}
    for key, entry in batches.items():
        if not str(key).isdecimal() or int(key) < 1:
            raise fail(f"batch sizes must be whole numbers above 0, not {key!r}")
        cost = Fields(entry, f"batches[{key}]", fail)
        latency = _parse_quantiles(cost.child("latency_ms"), fail)
        processor_ms, energy_mj = cost.number("processor_ms"), cost.number("energy_mj", None)
        cost.finish()
        if latency.p50 <= 0 or processor_ms < 0 or (energy_mj is not None and energy_mj < 0):
            raise fail(f"batches[{key}] needs a latency above 0, and no cost below 0")
        costs[int(key)] = SegmentCost(
            latency, processor_ms / 1e3, None if energy_mj is None else energy_mj / 1e3
        )
    if 1 not in costs:
        raise fail("every segment needs the cost of batch size 1")
    return costs
