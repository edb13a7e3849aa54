"""Plots of runs: accuracy against violations, latencies, and each tenant over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from delen.errors import MissingExtra
from delen.simulate.capacity import Capacity
from delen.simulate.outcome import Outcomes
from delen.simulate.sweep import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEWEST_TIMES, _MOST_TIMES = 6, 60
"""A timeline has so many points."""

_IN_A_POINT = 20
"""Requests of a tenant that a point of its timeline is the mean of, where there are enough."""

_MOST_LINES = 8
"""Tenants with a line of their own; more are the rows of a map."""

_MOST_ROWS = 60
"""Rows of that map; more tenants share them."""

_MARKERS = "osD^vP"


def save_plots(
    runs: Sequence[Outcomes], summaries: Sequence[Mapping[str, Any]], folder: Path
) -> list[Path]:
    """Write the plots into ``folder`` and return the files.

    MissingExtra without matplotlib; OSError where they cannot be written.
    """
    use_files()
    folder.mkdir(parents=True, exist_ok=True)
    files = [_front(summaries, folder / "front.png"), _latencies(runs, folder / "latency.png")]
    return files + [_timelines(run, folder / f"tenants-{run.policy}.png") for run in runs]


def save_sweep(lines: Sequence[Line], folder: Path) -> Path:
    """As ``save_plots``, of means over seeds: by speed where there are several, else a column a
    file and policy."""
    use_files()
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sweep.png"
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained"
    )
    groups: dict[str, list[Line]] = {}
    for line in lines:
        name = "" if line.compared is None else f" {Path(line.compared).name}"
        groups.setdefault(f"{line.policy}{name}", []).append(line)
    by_speed = max(map(len, groups.values())) > 1
    for index, (name, group) in enumerate(groups.items()):
        places = [line.speed if by_speed else float(index) for line in group]
        for axes, column, factor in ((above, "effective", 100), (below, "violations %", 1)):
            means = [line.mean(column) for line in group]
            values = [np.nan if mean is None else factor * mean.mean for mean in means]
            reach = [0.0 if mean is None else factor * (mean.reach or 0.0) for mean in means]
            axes.errorbar(places, values, reach, label=name, capsize=3, **style(index))
    above.set_ylabel("effective accuracy, %")
    below.set_ylabel("a bound not kept, %")
    if by_speed:
        below.set_xlabel("speed of the trace")
        legend_beside(figure, above)
    else:
        below.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right")
    _save(figure, file)
    return file


def save_capacity(found: Mapping[str, Capacity], limit: float, file: Path) -> None:
    """Violations and effective accuracy over the number of cameras, a line a policy, with the
    ``limit`` on violations."""
    use_files()
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained"
    )
    for index, (policy, capacity) in enumerate(found.items()):
        cameras = [trial.cameras for trial in capacity.trials]
        name = f"{policy}: {capacity.cameras}"
        for axes, means in (
            (above, [trial.violations for trial in capacity.trials]),
            (below, [trial.effective for trial in capacity.trials]),
        ):
            values = [100 * mean.mean for mean in means]
            reach = [100 * (mean.reach or 0.0) for mean in means]
            axes.errorbar(cameras, values, reach, label=name, capsize=3, **style(index))
            axes.axvline(capacity.cameras, linestyle=":", color=f"C{index % 10}")
    above.axhline(100 * limit, linestyle="--", color="grey", label=f"{100 * limit:g} %")
    above.set_ylabel("violations, %")
    below.set_ylabel("effective accuracy, %")
    below.set_xlabel("cameras")
    legend_beside(figure, above)
    _save(figure, file)


def use_files() -> None:
    """Draw into files from now on; MissingExtra without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    matplotlib.use("Agg")


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the ``index``-th of several: 60 differ."""
    return {"color": f"C{index % 10}", "marker": _MARKERS[index % len(_MARKERS)], "markersize": 5}


def legend_beside(figure: Figure, axes: Axes) -> None:
    """The legend of ``axes`` right of them, where it hides nothing."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small")


def _front(summaries: Sequence[Mapping[str, Any]], file: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for index, summary in enumerate(summaries):
        point = (100 * summary["violations"], 100 * summary["effective_accuracy"])
        axes.plot(*point, linestyle="", label=summary["policy"], **style(index))
    bound = summaries[0]["upper_bound"]
    if bound is not None:
        axes.axhline(100 * bound, linestyle="--", color="grey", label="upper bound")
        label_blind = 100 * summaries[0]["label_blind_bound"]
        axes.axhline(label_blind, linestyle=":", color="grey", label="label-blind, an estimate")
    axes.set_xlabel("requests with a bound not kept, %")
    axes.set_ylabel("effective accuracy, %")
    legend_beside(figure, axes)
    _save(figure, file)
    return file


def _latencies(runs: Sequence[Outcomes], file: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for index, run in enumerate(runs):
        latencies = np.sort(1e3 * run.latency[run.answered])
        if len(latencies):
            shares = np.arange(1, len(latencies) + 1) / len(run)
            often = max(1, len(latencies) // 10)
            axes.plot(latencies, shares, label=run.policy, markevery=often, **style(index))
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of requests answered within it")
    legend_beside(figure, axes)
    _save(figure, file)
    return file


def _timelines(run: Outcomes, file: Path) -> Path:
    from matplotlib import pyplot

    tenants, rows = len(run.tenants), min(len(run.tenants), _MOST_ROWS)
    wanted = len(run) // max(1, tenants * _IN_A_POINT)
    times = min(_MOST_TIMES, max(_FEWEST_TIMES, wanted))
    end = float(run.arrived[-1]) if len(run) else 0.0
    edges = np.linspace(0.0, max(end, 1e-9), times + 1)
    is_map = tenants > _MOST_LINES
    figure, (above, below) = pyplot.subplots(
        2,
        1,
        figsize=(8, 3 + 0.13 * rows + 1.5 if is_map else 6),
        sharex=True,
        layout="constrained",
        height_ratios=(2.0, 0.13 * rows + 1) if is_map else (1, 1),
    )
    if is_map:
        above.plot(_middles(edges), np.histogram(run.arrived, edges)[0] / np.diff(edges))
        _map(run, edges, figure, below)
    else:
        for index, tenant in enumerate(run.tenants):
            counts, good = _in_time(run, run.tenant == index, edges)
            above.plot(_middles(edges), counts / np.diff(edges), label=tenant)
            below.plot(_middles(edges), _percent(good, counts), label=tenant)
        below.set_ylabel("effective accuracy, %")
        legend_beside(figure, above)
    above.set_ylabel("requests a second")
    above.set_ylim(bottom=0)
    below.set_xlabel("time, s")
    figure.suptitle(run.policy)
    _save(figure, file)
    return file


def _map(run: Outcomes, edges: NDArray[np.float64], figure: Figure, axes: Axes) -> None:
    """Effective accuracy of tenants over time, the worst above, several in a row if they are
    many."""
    overall = [np.mean(run.effective[run.tenant == index]) for index in range(len(run.tenants))]
    rows = np.array_split(np.argsort(overall, kind="stable"), min(len(overall), _MOST_ROWS))
    shares, names = [], []
    for row in rows:
        counts, good = _in_time(run, np.isin(run.tenant, row), edges)
        shares.append(_percent(good, counts))
        more = f" and {len(row) - 1} more" if len(row) > 1 else ""
        names.append(f"{run.tenants[row[0]]}{more}")
    places = np.arange(len(rows) + 1) - 0.5
    mesh = axes.pcolormesh(edges, places, np.array(shares), cmap="viridis", vmin=0, vmax=100)
    axes.set_facecolor("lightgrey")
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.invert_yaxis()
    figure.colorbar(mesh, ax=axes, label="effective accuracy, %")


def _in_time(
    run: Outcomes, rows: NDArray[np.bool_], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many requests of ``rows`` came between ``edges``, and how many of them got a right answer
    within all bounds."""
    counts, _ = np.histogram(run.arrived[rows], edges)
    good, _ = np.histogram(run.arrived[rows], edges, weights=run.effective[rows])
    return counts.astype(np.float64), good


def _percent(good: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there are none."""
    percent: NDArray[np.float64] = 100 * good / np.where(counts, counts, np.nan)
    return percent


def _middles(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
    return middles


def _save(figure: Figure, file: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(file, dpi=120)
    pyplot.close(figure)
