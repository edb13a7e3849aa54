"""The kinds of arrivals in ``benchmarks.dispatch``: of the grid, and hard cases beside it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import data_folder
from benchmarks.standard_apps import KINDS, standard_apps
from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY, Bounds
from delen.simulate.apps import App, Mixed
from delen.simulate.arrivals import Camera, Poisson, Recorded
from delen.simulate.model import SimulatedModel

RECORDED = "recorded"
GRID_KINDS = (*KINDS, RECORDED)

CLUSTER, ALIGNED, EXACT, INVERTED, FLASH = "cluster", "aligned", "exact", "inverted", "flash"
HARD_KINDS = (CLUSTER, ALIGNED, EXACT, INVERTED, FLASH)

RECORDS = {
    RECORDED: Path("traces") / "jellyfish_lte_upload_trace.txt",
    CLUSTER: Path("traces") / "cluster_tasks.csv",
}
"""Shapes of a rate. Upload bandwidth of a client, one value a second (Jellyfish, RTSS 2022); tasks
that came to a cluster (Alibaba's trace, by way of KaiS): as on Twitter, five minutes may bring six
times the usual number."""

_CLUSTER_STEP = 300.0
_CLUSTER_STEPS = 100
"""So many steps of so many seconds of the cluster's days are played."""

_USUAL = 1.1
"""Exact deadlines are this many times the usual latency of an exit."""

_FRAMES_APART = 10.0
"""Frames of aligned cameras are about this many times of the whole network apart, so that more
cameras make a higher load."""

_CROWD = (1.0, 1.0, 1.0, 1.0, 6.0, 6.0, 1.0, 1.0, 1.0, 1.0)
"""A flash crowd: in a fifth of the time come six times as many as before and after."""


def is_here(kind: str) -> bool:
    """Whether there is the recording that ``kind`` needs, if it needs one."""
    return kind not in RECORDS or (data_folder() / RECORDS[kind]).is_file()


def apps_of_kind(
    kind: str, count: int, rate: float, model: SimulatedModel, duration: float
) -> tuple[App, ...]:
    """``count`` tenants that together send ``rate`` requests a second for ``duration`` seconds.
    What changes over time is gone through once, by all of them together."""
    points = model.planner.points(model.costs())
    if kind in KINDS:
        return standard_apps(count, rate, kind, points)
    apps = standard_apps(count, rate, "poisson", points)
    if kind == ALIGNED:
        return tuple(_aligned(app, model) for app in apps)
    if kind == EXACT:
        return tuple(replace(app, mix=_usual_latencies(model)) for app in apps)
    if kind == INVERTED:
        return _inverted(apps)
    record = _CROWD if kind == FLASH else _record(kind)
    step = duration / len(record)
    return tuple(replace(app, arrivals=Recorded(app.rate, record, step)) for app in apps)


def _record(kind: str) -> tuple[float, ...]:
    text = (data_folder() / RECORDS[kind]).read_text()
    if kind == RECORDED:
        return tuple(map(float, text.split()))
    starts = [float(row["start_s"]) for row in csv.DictReader(text.splitlines())]
    edges = _CLUSTER_STEP * np.arange(_CLUSTER_STEPS + 1)
    return tuple(np.histogram(starts, edges)[0].astype(float).tolist())


def _aligned(app: App, model: SimulatedModel) -> App:
    """Cameras that take their frames at the same moments as those of all other tenants."""
    costs = model.costs()
    interval = _FRAMES_APART * costs.typical(0, costs.segments - 1, 1)
    cameras = max(1, round(app.rate * interval))
    return replace(app, arrivals=Camera(app.rate / cameras, phase=0.0), streams=cameras)


def _usual_latencies(model: SimulatedModel) -> tuple[Mixed, ...]:
    costs = model.costs()
    usual = [costs.typical(0, exit, 1) + costs.answering() for exit in model.planner.useful.exits]
    return tuple(Mixed(1.0, Bounds(max_latency=_USUAL * each)) for each in usual)


def _inverted(apps: Sequence[App]) -> tuple[App, ...]:
    """The tighter the deadline the lower the priority; each part of a tenant's mix by itself."""
    caps = sorted({_cap(mixed) for app in apps for mixed in app.mix}, reverse=True)
    step = (LOWEST_PRIORITY - HIGHEST_PRIORITY) / max(1, len(caps) - 1)
    parts = []
    for app in apps:
        total = sum(mixed.share for mixed in app.mix)
        for mixed in app.mix:
            arrivals = Poisson(app.rate * mixed.share / total)
            priority = HIGHEST_PRIORITY + round(step * caps.index(_cap(mixed)))
            parts.append(replace(app, arrivals=arrivals, mix=(mixed,), priority=priority))
    return tuple(parts)


def _cap(mixed: Mixed) -> float:
    return np.inf if mixed.bounds.max_latency is None else mixed.bounds.max_latency
