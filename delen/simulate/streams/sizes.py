"""The sizes that frames can have, from a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from delen.core.numbers import read_number
from delen.core.variant import format_size, variant_name
from delen.errors import ConfigError, ProfileError
from delen.profile.profile import Device, Profile, Quantiles, SegmentCost
from delen.simulate.load import of_profile
from delen.simulate.model import SimulatedModel
from policies.client.api import FrameOption
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import PlannerSettings

MODEL = "sizes"
"""The name of a network that only a file of sizes describes."""

SPREAD = (1.0, 1.1, 1.15, 1.25)
"""Its times at the quantiles of a profile, as shares of the median."""

COLUMNS = ("height", "width", "payload_bytes", "encoding_ms", "latency_ms", "accuracy")


def read_sizes(path: str | Path) -> tuple[FrameOption, ...]:
    """The options in the CSV file ``path``, ascending by payload.

    Its header is COLUMNS: pixels, mean bytes of a frame, milliseconds that encoding and the network
    take, and the share of right answers. ProfileError names the file and the line.
    """
    file = Path(path)
    options: list[FrameOption] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            header = tuple(next(rows, ()))
            if header != COLUMNS:
                raise ProfileError(f"{file}, line 1: the header must be {','.join(COLUMNS)}")
            for row in rows:
                if row:
                    place = _Place(file, rows.line_num)
                    option = _option(place, row)
                    if option.size in (other.size for other in options):
                        raise place.fail(f"the size {row[0]}x{row[1]} is given twice")
                    options.append(option)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(f"{file}: it cannot be read: {error}") from error
    if not options:
        raise ProfileError(f"{file}, line 1: no size follows the header")
    return tuple(sorted(options, key=lambda option: option.payload))


def models_of(
    options: Sequence[FrameOption],
    planner: PlannerSettings,
    policy: ExitPolicy,
    level: float,
    seed: int,
) -> list[SimulatedModel]:
    """A network of one exit at each of ``options``, whose times spread by SPREAD about the medians.

    ConfigError for an accuracy that leaves no sample of the synthetic table right, or none wrong.
    """
    models = []
    for option in options:
        spread = Quantiles(*(factor * option.latency for factor in SPREAD))
        profile = Profile(
            model=variant_name(MODEL, option.size),
            bundle=MODEL,
            device=Device(MODEL, 1, MODEL, MODEL, 1, MODEL),
            created="",
            quick=False,
            answer=Quantiles(0.0, 0.0, 0.0, 0.0),
            segments=({1: SegmentCost(spread, option.latency)},),
            accuracies=(option.accuracy,),
        )
        try:
            models.append(of_profile(profile, planner, policy, level, seed))
        except ValueError as error:
            raise ConfigError(f"the size {format_size(option.size or (0, 0))}: {error}") from error
    return models


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    line: int

    def fail(self, sentence: str) -> ProfileError:
        return ProfileError(f"{self.file}, line {self.line}: {sentence}")


def _option(place: _Place, row: list[str]) -> FrameOption:
    if len(row) != len(COLUMNS):
        raise place.fail(f"it has {len(row)} fields; the header has {len(COLUMNS)}")
    values = {}
    for name, text in zip(COLUMNS, row, strict=True):
        try:
            value = read_number(text)
            if not 0 <= value < inf:
                raise ValueError
        except ValueError:
            raise place.fail(
                f"{name} must be a finite number of at least 0, not {text!r}"
            ) from None
        values[name] = value
    for name in ("height", "width", "payload_bytes"):
        if values[name] < 1 or values[name] != int(values[name]):
            raise place.fail(f"{name} must be a whole number of at least 1")
    if not 0 < values["accuracy"] < 1:
        raise place.fail("accuracy must be between 0 and 1")
    if not values["latency_ms"] > 0:
        raise place.fail("latency_ms must be above 0")
    return FrameOption(
        size=(int(values["height"]), int(values["width"])),
        payload=values["payload_bytes"],
        latency=values["latency_ms"] / 1e3,
        accuracy=values["accuracy"],
        exit=0,
        encoding=values["encoding_ms"] / 1e3,
    )
