"""Results of ``benchmarks.dispatch`` by cell: medians and intervals over seeds, tables, claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

from benchmarks.common import Figure
from benchmarks.dispatch_cells import (
    BATCHES,
    DEFAULT,
    GRID_DEVICES,
    NANO_NAME,
    TX2_NAME,
    Cell,
)
from benchmarks.dispatch_kinds import CLUSTER, FLASH, GRID_KINDS, INVERTED

CALM = 0.9
MOST_VIOLATIONS = 0.01
"""Up to the load CALM, in cells where some policy has no more."""

UP_TO_CALM, BEYOND_CALM = 0.995, 0.99
"""The default's least share of the label-blind bound in the grid."""

BY_DEVICE = {BATCHES: 0.98, NANO_NAME: 0.92, TX2_NAME: 0.93}
HARD = 0.975
BY_KIND = {INVERTED: 0.98, CLUSTER: 0.91, FLASH: 0.89}
"""Its least share in the cells beside the grid: by kind where one is named, else by device."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The median's 95 % interval by order statistics; all there is where that takes more values.

    The k-th least and k-th greatest of n enclose it unless fewer than k lie on one side, which has
    the probability of fewer than k heads in n throws, twice.
    """
    ordered, count, skipped = sorted(values), len(values), 0
    outside = 2 * 0.5**count
    while outside + 2 * comb(count, skipped + 1) * 0.5**count <= 0.05:
        skipped += 1
        outside += 2 * comb(count, skipped) * 0.5**count
    return ordered[skipped], ordered[count - 1 - skipped]


@dataclass(frozen=True, slots=True)
class Result:
    """A cell's values, one a seed: ``effective`` and ``violations`` by policy; ``bound``,
    ``label_blind``, ``deep`` and ``alone`` as ``dispatch_cells.play`` gives them."""

    cell: Cell
    effective: Mapping[str, tuple[float, ...]]
    violations: Mapping[str, tuple[float, ...]]
    bound: tuple[float, ...]
    label_blind: tuple[float, ...]
    deep: tuple[float, ...]
    alone: tuple[float, ...]

    def share(self, policy: str = DEFAULT) -> tuple[float, ...]:
        """The policy's effective accuracy over the upper bound."""
        return _ratio(self.effective[policy], self.bound)

    def blind_share(self, policy: str = DEFAULT) -> tuple[float, ...]:
        """The policy's effective accuracy over the label-blind bound."""
        return _ratio(self.effective[policy], self.label_blind)

    @property
    def rival(self) -> str:
        """The policy that the default is least ahead of."""
        others = (policy for policy in self.effective if policy != DEFAULT)
        return min(others, key=lambda policy: median(self.lead(policy)))

    def lead(self, policy: str) -> tuple[float, ...]:
        """How much more effective accuracy the default has, seed by seed."""
        pairs = zip(self.effective[DEFAULT], self.effective[policy], strict=True)
        return tuple(ours - theirs for ours, theirs in pairs)

    @property
    def can_be_kept(self) -> bool:
        """Whether some policy has no more violations than are claimed of the default."""
        return min(map(median, self.violations.values())) <= MOST_VIOLATIONS

    @property
    def causes(self) -> tuple[float, float, float]:
        """Three medians that multiply to about the share: what is left of the bound to who does not
        know which exits are right; of that, where floors are kept at least energy; and under load.
        """
        return (
            median(_ratio(self.deep, self.bound)),
            median(_ratio(self.alone, self.deep)),
            median(_ratio(self.effective[DEFAULT], self.alone)),
        )


_BOUNDS = ("bound", "label_blind", "deep", "alone")


def by_cell(lines: Iterable[Mapping[str, Any]]) -> list[Result]:
    """The results of each cell, in the order of their first lines."""
    grouped: dict[Cell, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        grouped[Cell(*(line[name] for name in Cell._fields))].append(line)

    def of_policies(group: list[Mapping[str, Any]], name: str) -> dict[str, tuple[float, ...]]:
        return {
            policy: tuple(line["policies"][policy][name] for line in group)
            for policy in group[0]["policies"]
        }

    return [
        Result(
            cell,
            of_policies(group, "effective"),
            of_policies(group, "violations"),
            *(tuple(line[name] for line in group) for name in _BOUNDS),
        )
        for cell, group in grouped.items()
    ]


def cells_table(results: Sequence[Result]) -> str:
    """A line a cell: the share of the upper bound, its causes, that of the label-blind bound,
    violations, and the closest rival."""
    lines = [
        f"{'device':<12} {'arrivals':<8} {'apps':>4} {'load':>4}  {'of bound':>8} "
        f"{'[95 %]':<13}  {'knowing':>7} {'floors':>6} {'load':>5}  {'of blind':>8} "
        f"{'[95 %]':<13}  {'broken':>6}  "
        f"{'ahead of the best other':<30}"
    ]
    for result in results:
        low, high = interval(result.share())
        least, most = interval(result.blind_share())
        knowing, floors, load = result.causes
        share, lead, cell = median(result.share()), result.lead(result.rival), result.cell
        lines.append(
            f"{cell.device:<12} {cell.kind:<8} {cell.tenants:>4} {cell.load:>4g}  "
            f"{share:>8.3f} [{low:.3f} {high:.3f}]  {knowing:>7.3f} {floors:>6.3f} "
            f"{load:>5.3f}  {median(result.blind_share()):>8.3f} [{least:.3f} {most:.3f}]  "
            f"{100 * median(result.violations[DEFAULT]):>5.2f}%  "
            f"{100 * median(lead):>+6.2f} [{100 * min(lead):+.2f} {100 * max(lead):+.2f}] "
            f"{result.rival}"
        )
    return "\n".join(lines)


def policies_table(results: Sequence[Result]) -> str:
    """Each device's policies by load: share of the label-blind bound and violations, median over
    all cells."""
    lines = []
    for device in dict.fromkeys(result.cell.device for result in results):
        here = [result for result in results if result.cell.device == device]
        loads = sorted({result.cell.load for result in here})
        lines.append(f"{device:<18}" + "".join(f"{f'load {load:g}':>16}" for load in loads))

        def line(policy: str, here: Sequence[Result] = here, loads: Sequence[float] = loads) -> str:
            text = f"  {policy:<16}"
            for load in loads:
                at = [result for result in here if result.cell.load == load]
                shares = (value for result in at for value in result.blind_share(policy))
                broken = median(value for result in at for value in result.violations[policy])
                text += f"{median(shares):>9.3f} {100 * broken:>5.1f}%"
            return text

        lines += [line(policy) for policy in (DEFAULT, *sorted(set(here[0].effective) - {DEFAULT}))]
    return "\n".join(lines)


def behind(results: Sequence[Result]) -> str:
    """Names the cells in which another policy is ahead of the default."""
    leads = [(median(result.lead(result.rival)), result) for result in results]
    lost = sorted((pair for pair in leads if pair[0] < 0), key=lambda pair: pair[0])
    clear = [result for _, result in lost if interval(result.lead(result.rival))[1] < 0]
    lines = [
        f"another policy is ahead in {len(lost)} of {len(results)} cells, in {len(clear)} of them "
        "beyond the interval (*)"
    ]
    for lead, result in lost:
        cell, mark = result.cell, "*" if result in clear else " "
        lines.append(
            f" {mark} {cell.device}, {cell.kind}, {cell.tenants} apps, load {cell.load:g}: "
            f"{result.rival} by {-100 * lead:.2f} points"
        )
    return "\n".join(lines)


def claims(results: Sequence[Result]) -> list[Figure]:
    """For each device, each claim in the cell where it holds least."""
    figures = []
    for device in dict.fromkeys(result.cell.device for result in results):
        here = [result for result in results if result.cell.device == device]
        for limit in sorted({least_share(result.cell) for result in here}, reverse=True):
            part = [result for result in here if least_share(result.cell) == limit]
            name = f"{device}: of the label-blind bound"
            figures.append(_worst(name, part, Result.blind_share, limit, False))
        calm = [result for result in here if result.cell.load <= CALM and result.can_be_kept]
        if calm:
            name = f"{device}: violations, load <= {CALM:g}"
            figures.append(_worst(name, calm, _violations, MOST_VIOLATIONS, True))
        figures.append(_worst(f"{device}: ahead of the best other", here, _lead, 0.0, False))
    return figures


def least_share(cell: Cell) -> float:
    """The share of the label-blind bound that is claimed in ``cell``."""
    if cell.kind in GRID_KINDS and cell.device in GRID_DEVICES:
        return UP_TO_CALM if cell.load <= CALM else BEYOND_CALM
    by_device = BY_DEVICE.get(cell.device, HARD)
    return BY_KIND.get(cell.kind, by_device)


def _worst(
    name: str,
    results: Sequence[Result],
    values: Callable[[Result], tuple[float, ...]],
    limit: float,
    at_most: bool,
) -> Figure:
    choose = max if at_most else min
    worst = choose(results, key=lambda result: median(values(result)))
    cell = worst.cell
    where = f"{cell.kind}, {cell.tenants}, {cell.load:g}"
    return Figure(f"{name} ({where})", values(worst), "", limit, at_most)


def _violations(result: Result) -> tuple[float, ...]:
    return result.violations[DEFAULT]


def _lead(result: Result) -> tuple[float, ...]:
    return result.lead(result.rival)


def _ratio(values: Sequence[float], over: Sequence[float]) -> tuple[float, ...]:
    return tuple(value / of for value, of in zip(values, over, strict=True))
