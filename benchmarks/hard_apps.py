"""Apps that are hard to schedule: crowds, cameras in step, deadlines without slack, priorities that
oppose deadlines. All have the mean rate of ``standard_apps``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from benchmarks.standard_apps import latency_cap, standard_apps
from delen.core.bounds import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.core.plan import OperatingPoint
from delen.simulate.apps import App, Mixed
from delen.simulate.arrivals import Camera, Poisson, Recorded, Window

HardKind = Literal["twitter", "aligned", "exact", "inverted", "flash"]
HARD_KINDS: tuple[HardKind, ...] = get_args(HardKind)

_CAMERAS = 9
"""So many cameras fire at once (``aligned``), however many apps they belong to; at least one an
app."""

_FLASH = (0.45, 0.55)
_FLASH_RATE = 10.0
"""In this part of the time a ``flash`` crowd sends so many times what it sends otherwise."""

_STEPS = 100
_MEMORY, _SPREAD, _SPIKES, _FADING = 0.9, 0.35, 0.03, 0.6
"""The logarithm of the rate of ``twitter`` is autoregressive with this memory and this spread, and
in some of its steps a spike of up to four times the rate begins, and fades."""


def hard_apps(
    kind: HardKind,
    count: int,
    rate: float,
    points: Sequence[OperatingPoint],
    usual: Sequence[OperatingPoint],
    duration: float,
    seed: int,
) -> tuple[App, ...]:
    """1 to 10 tenants that together send ``rate`` requests a second for ``duration`` seconds.

    ``usual`` are the ``points`` with the latencies that nearly all runs keep, against which
    ``exact`` deadlines are set. The rate of ``twitter`` is drawn from ``seed``.
    """
    apps = standard_apps(count, rate, "poisson", points)
    if kind == "twitter":
        record = twitter_like(seed)
        return tuple(
            replace(app, arrivals=Recorded(app.rate, record, duration / _STEPS)) for app in apps
        )
    if kind == "aligned":
        cameras = max(1, _CAMERAS // count)
        return tuple(
            replace(app, arrivals=Camera(app.rate / cameras, phase=0.0), streams=cameras)
            for app in apps
        )
    if kind == "exact":
        mix = tuple(Mixed(1.0, latency_cap(each, 1.0)) for each in usual if not each.dominated)
        return tuple(replace(app, mix=mix) for app in apps)
    if kind == "inverted":
        return _inverted(count, rate, points)
    return _flash(apps, duration)


def twitter_like(seed: int) -> tuple[float, ...]:
    """A rate that wanders and has spikes, as that of messages about events: _STEPS values."""
    rng = np.random.default_rng(seed)
    values, level, spike = [], 0.0, 0.0
    for noise, starts, height in zip(
        rng.normal(size=_STEPS), rng.random(_STEPS), rng.uniform(1, 3, _STEPS), strict=True
    ):
        level = _MEMORY * level + _SPREAD * noise
        spike = height if starts < _SPIKES else _FADING * spike
        values.append(float(np.exp(level) * (1 + spike)))
    return tuple(values)


def _inverted(count: int, rate: float, points: Sequence[OperatingPoint]) -> tuple[App, ...]:
    """Half of the requests have little time and the lowest priority, half have much and a high one:
    the highest for an only tenant, who alone may have it."""
    useful = [point for point in points if not point.dominated]
    tight, loose = latency_cap(useful[len(useful) // 2]), latency_cap(useful[-1], 10.0)
    urgent = HIGHEST_PRIORITY if count == 1 else DEFAULT_PRIORITY
    if count == 1:
        return (
            App("app0", Poisson(rate / 2), (Mixed(1.0, tight),), priority=LOWEST_PRIORITY),
            App("app0", Poisson(rate / 2), (Mixed(1.0, loose),), priority=urgent),
        )
    return tuple(
        App(
            f"app{index}",
            Poisson(rate / count),
            (Mixed(1.0, loose if index % 2 else tight),),
            priority=urgent if index % 2 else LOWEST_PRIORITY,
        )
        for index in range(count)
    )


def _flash(apps: Sequence[App], duration: float) -> tuple[App, ...]:
    start, end = (part * duration for part in _FLASH)
    calm = 1 / (1 + (_FLASH_RATE - 1) * (_FLASH[1] - _FLASH[0]))
    return tuple(
        replace(app, arrivals=arrivals)
        for app in apps
        for arrivals in (
            Poisson(calm * app.rate),
            Window(Poisson((_FLASH_RATE - 1) * calm * app.rate), start, end),
        )
    )
