"""Plots of runs: accuracy against violations, latencies, and each tenant over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delen.errors import MissingExtra
from delen.simulate.outcome import Outcomes

_POINTS = 60
"""A timeline has so many."""


def save_plots(
    runs: Sequence[Outcomes], summaries: Sequence[Mapping[str, Any]], folder: Path
) -> list[Path]:
    """Write the plots into ``folder`` and return the files.

    MissingExtra without matplotlib; OSError where they cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    files = [_front(summaries, folder / "front.png"), _latencies(runs, folder / "latency.png")]
    return files + [_timelines(run, folder / f"tenants-{run.policy}.png") for run in runs]


def _front(summaries: Sequence[Mapping[str, Any]], file: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    for summary in summaries:
        point = (100 * summary["violations"], 100 * summary["effective_accuracy"])
        axes.plot(*point, "o")
        axes.annotate(summary["policy"], point, xytext=(4, 4), textcoords="offset points")
    bound = summaries[0]["upper_bound"]
    if bound is not None:
        axes.axhline(100 * bound, linestyle="--", color="grey", label="upper bound")
        label_blind = 100 * summaries[0]["label_blind_bound"]
        axes.axhline(label_blind, linestyle=":", color="grey", label="label-blind, an estimate")
        axes.legend()
    axes.set_xlabel("requests with a bound not kept, %")
    axes.set_ylabel("effective accuracy, %")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file


def _latencies(runs: Sequence[Outcomes], file: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    for run in runs:
        latencies = np.sort(1e3 * run.latency[run.answered])
        if len(latencies):
            axes.plot(latencies, np.arange(1, len(latencies) + 1) / len(run), label=run.policy)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of requests answered within it")
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file


def _timelines(run: Outcomes, file: Path) -> Path:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained"
    )
    end = float(run.arrived[-1]) if len(run) else 0.0
    edges = np.linspace(0.0, max(end, 1e-9), _POINTS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for index, tenant in enumerate(run.tenants):
        rows = run.tenant == index
        counts, _ = np.histogram(run.arrived[rows], edges)
        good, _ = np.histogram(run.arrived[rows], edges, weights=run.effective[rows])
        above.plot(middles, counts / np.diff(edges), label=tenant)
        below.plot(middles, 100 * good / np.where(counts, counts, np.nan), label=tenant)
    above.set_ylabel("requests a second")
    below.set_ylabel("effective accuracy, %")
    below.set_xlabel("time, s")
    above.legend(ncols=5, fontsize="small")
    figure.suptitle(run.policy)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return file
