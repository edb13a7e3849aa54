"""Several runs of one trace, gathered by what differs between them beside the seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from delen.simulate.mean_interval import Mean

Summary = Mapping[str, Any]
COLUMNS: dict[str, tuple[Callable[[Summary], float | None], str]] = {
    "effective": (lambda row: row["effective_accuracy"], ".4f"),
    "of bound": (lambda row: _share(row, "upper_bound"), ".3f"),
    "of label-blind": (lambda row: _share(row, "label_blind_bound"), ".3f"),
    "violations %": (lambda row: 100 * row["violations"], ".2f"),
    "refused %": (lambda row: 100 * row["refused"] / row["requests"], ".2f"),
    "p50 ms": (lambda row: row["latency_ms"]["p50"], ".2f"),
    "p99 ms": (lambda row: row["latency_ms"]["p99"], ".2f"),
    "joules": (lambda row: row["energy_j"], ".4g"),
}


class Line(NamedTuple):
    """The runs of one ``policy`` at one ``speed`` with one ``compared`` file, a seed each."""

    compared: str | None
    speed: float
    policy: str
    runs: tuple[Summary, ...]

    def mean(self, column: str) -> Mean | None:
        """None where a run does not know it."""
        read, _ = COLUMNS[column]
        values = [value for value in map(read, self.runs) if value is not None]
        return Mean.of(values) if len(values) == len(self.runs) else None


def lines_of(summaries: Sequence[Summary]) -> list[Line]:
    """In the order of their first runs; each run says its ``speed``, and ``compared`` if it has
    that."""
    found: dict[tuple[str | None, float, str], list[Summary]] = {}
    for row in summaries:
        found.setdefault((row.get("compared"), row["speed"], row["policy"]), []).append(row)
    return [Line(*key, tuple(runs)) for key, runs in found.items()]


def _share(row: Summary, name: str) -> float | None:
    """The effective accuracy over a bound that may be unknown."""
    bound, effective = row[name], row["effective_accuracy"]
    return None if not bound or effective is None else effective / bound
