"""Many requests as columns: what apps ask for, before it is a trace or a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import Options
from delen.simulate.trace import COLUMNS, Arrival

_CHUNK = 20_000
_NOBODY = Options().tenant

Progress = Callable[[int, int], None]
"""Called with how many requests are written, and how many there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Request ``i`` arrives at ``times[i]`` seconds, with all else as in ``kinds[asked[i]]``.

    ``times`` ascend: float64 ``[requests]``; ``asked``: integers ``[requests]``.
    """

    times: NDArray[np.float64]
    asked: NDArray[np.int64]
    kinds: tuple[Arrival, ...]

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Arrival]:
        others = [(k.tenant, k.model, k.stream, k.priority, k.bounds) for k in self.kinds]
        for time, kind in zip(self.times.tolist(), self.asked.tolist(), strict=True):
            yield Arrival(time, *others[kind])

    def by_tenant(self) -> dict[str, int]:
        """How many requests each tenant has, 0 included, in the order of ``kinds``."""
        counts: Counter[str] = Counter()
        for kind, count in zip(self.kinds, self._by_kind(), strict=True):
            counts[kind.tenant] += count
        return dict(counts)

    def write(self, file: Path, progress: Progress | None = None) -> None:
        """Write a trace that ``read_trace`` reads back exactly, a part at a time.

        Columns in which nothing is set are left out. Raises OSError if ``file`` cannot be written.
        """
        rows = [_fields(kind) for kind in self.kinds]
        present = [row for row, count in zip(rows, self._by_kind(), strict=True) if count]
        used = [index for index in range(len(COLUMNS) - 1) if any(row[index] for row in present)]
        ends = ["".join(f",{row[index]}" for index in used) + "\n" for row in rows]
        with file.open("w", encoding="utf-8", newline="") as lines:
            lines.write(",".join([COLUMNS[0], *(COLUMNS[1:][index] for index in used)]) + "\n")
            for start in range(0, len(self), _CHUNK):
                times = self.times[start : start + _CHUNK].tolist()
                asked = self.asked[start : start + _CHUNK].tolist()
                lines.writelines(
                    f"{time!r}{ends[kind]}" for time, kind in zip(times, asked, strict=True)
                )
                if progress is not None:
                    progress(start + len(times), len(self))

    def _by_kind(self) -> list[int]:
        return [int(count) for count in np.bincount(self.asked, minlength=len(self.kinds))]


def _fields(kind: Arrival) -> tuple[str, ...]:
    """The fields of COLUMNS but the time. ``check_name`` allows no name that needs quotes."""
    bounds = kind.bounds
    return (
        "" if kind.tenant == _NOBODY else kind.tenant,
        kind.model or "",
        kind.stream or "",
        "" if kind.priority is None else str(kind.priority),
        _to_milli(bounds.max_latency),
        "" if bounds.min_accuracy is None else repr(bounds.min_accuracy),
        _to_milli(bounds.max_energy),
    )


def _to_milli(value: float | None) -> str:
    if value is None:
        return ""
    shifted = Decimal(repr(value)).scaleb(3)
    return format(shifted, "f") if 1e-9 < value < 1e9 else str(shifted)
