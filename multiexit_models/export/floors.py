"""Whether a floor can be guaranteed, before and after calibration."""

from __future__ import annotations

from delen.bundle.calibration import Calibration
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.report import LEVEL, described
from policies.plan.thresholds import highest_floor, units_needed


def check_samples(data: Dataset, floor: float) -> None:
    """InvalidInput where the calibration part is too small to guarantee ``floor`` at all."""
    groups = data.calibration.group_count
    needed = units_needed(groups is not None, floor, LEVEL)
    found = len(data.calibration) if groups is None else groups
    if found < needed:
        kind = "samples" if groups is None else "groups"
        raise InvalidInput(
            f"a floor of {floor:g} cannot be guaranteed at level {LEVEL:g}: {found} calibration "
            f"{kind} are too few: even without an error it needs {needed}",
            "floor",
        )


def check_floor(table: Calibration, floor: float, level: float) -> None:
    """InvalidInput where no exit can be certified for ``floor`` on this table at ``level``."""
    best = max(highest_floor(table, exit, level) for exit in range(table.exits))
    if floor <= best:
        return
    accuracy = max(table.accuracy(exit) for exit in range(table.exits))
    raise InvalidInput(
        f"a floor of {floor:g} cannot be guaranteed at level {LEVEL:g}: the most accurate exit "
        f"answers {accuracy:.2%} of {described(table)} rightly; the highest floor that can be "
        f"guaranteed is {best:g}",
        "floor",
    )
