"""How a sensor shows power late: its averaging and its lag, and their estimate from readings.

Energy is regressed on power as the sensor shows it; unfiltered, what a model predicts for each
moment is matched with readings of earlier ones, and its factors come out far too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from power.sources.series import Floats

Blocks: TypeAlias = tuple[Floats, Floats, Floats]
SHORTEST, LONGEST = 0.004, 2.0
"""Seconds between which time constants are looked for."""

_RATIO = 1.6  # between neighbours of the first, coarse grid of time constants
_REFINEMENTS = (1.25, 1.1, 1.04)  # ratios of the finer steps around the best of them
_MIXTURES = (0.15, 0.4, 1.0)  # a lag beside a window, or a window beside a lag, this much as long
_BETTER = 0.99  # another response takes over when it leaves less than this part unexplained

_LAG_BINS, _MIXED_BINS = 32, 8  # boxes that stand for an exponential lag, alone or with a window
_LAG_REACH = 6.0  # lags after which nothing shows any more
_PHASES = 12  # at which a held average may be read
_TRIANGLE = np.array([0.5, 0.866, 1.134, 1.5])  # windows' means that make up that average's view
_INSTANT = 1e-4  # seconds that stand for no time at all
_TABLE = 257  # points at which the integral of the step response is kept

_LEVEL_SECONDS = 3.0  # over which the power of other programs is taken to be level
_KEPT, _TRIMS = 0.99, 2  # readings that count, and how often the worst are found anew
_LEAST_READINGS, _MOST_READINGS = 30, 450
_LEAST_EXPLAINED = 0.4  # part of the variation that a first response has to explain
_REFUTED = 0.25  # a known one that explains less than this, of a load that varies more, is dropped


class Spending:
    """Joules spent up to a moment by blocks of even power, which may overlap.

    Block i spends ``joules[i]`` from ``began[i]`` to ``ended[i]`` (seconds, ended > began).
    """

    def __init__(self, began: Floats, ended: Floats, joules: Floats) -> None:
        watts = joules / (ended - began)
        times = np.concatenate([began, ended])
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        level = np.cumsum(np.concatenate([watts, -watts])[order])
        spent = np.diff(self._times) * level[:-1]
        self._joules = np.concatenate([[0.0], np.cumsum(spent)]) if len(times) else np.zeros(0)

    def upto(self, times: Floats) -> Floats:
        """Joules spent up to each of ``times`` (any shape)."""
        if not len(self._times):
            return np.zeros_like(times)
        return np.asarray(np.interp(times, self._times, self._joules))


@dataclass(frozen=True, slots=True)
class Views:
    """What readings look at: reading i averages, by ``weights`` ``[k]``, mean powers of the
    boxes of ``widths[i, k]`` seconds that end at ``ends[i, k]``. The boxes come in
    ``alternatives`` of as many each; a reading is one of these, and which is unknown."""

    ends: Floats
    widths: Floats
    weights: Floats
    alternatives: int = 1

    def boxes(self, spending: Spending) -> Floats:
        """Mean watts of ``spending`` in each box, ``[i, k]``."""
        spent = spending.upto(self.ends) - spending.upto(self.ends - self.widths)
        return np.asarray(spent / self.widths)

    def watts(self, spending: Spending) -> Floats:
        """What each reading is expected to show of ``spending``, ``[i]``."""
        return np.asarray(self.boxes(spending) @ self.weights)

    def later(self, seconds: float) -> Views:
        """The same looks, ``seconds`` later."""
        return replace(self, ends=self.ends + seconds)

    def doubt(self, boxes: Floats) -> Floats:
        """The standard deviation of readings of ``boxes`` for which alternative each is."""
        if self.alternatives == 1:
            return np.zeros(len(boxes))
        weighed = (boxes * self.weights).reshape(len(boxes), self.alternatives, -1)
        return np.asarray(np.std(weighed.sum(axis=2) * self.alternatives, axis=1))


@dataclass(frozen=True, slots=True)
class Response:
    """A first-order low-pass of time constant ``lag`` seconds, and then the mean over ``window``
    seconds that is held until the next one is done (0: none, of either)."""

    lag: float = 0.0
    window: float = 0.0

    @property
    def delay(self) -> float:
        """By how many seconds readings are behind the power on average."""
        return self.lag + self.window

    @property
    def reach(self) -> float:
        """Seconds after which nothing of a moment's power shows any more."""
        return _LAG_REACH * self.lag + 2 * self.window

    def views(self, times: Floats) -> Views:
        """Readings at ``times``, when the moments of the sensor's updates are unknown."""
        if self.window < self.lag or self.window <= 0:
            lags, widths = _lag_bins(self.lag, _LAG_BINS)
            later = self.window * _TRIANGLE if self.window > 0 else np.zeros(1)
            shifts = (later[:, None] + lags).reshape(-1)
            weights = np.full(len(shifts), 1 / len(shifts))
            widths = _each(np.tile(widths, len(later)), times, shifts)
            return Views(times[:, None] - shifts, widths, weights)
        lags, widths = _lag_bins(self.lag, _MIXED_BINS)
        phases = (np.arange(_PHASES) + 0.5) * self.window / _PHASES
        shifts = (phases[:, None] + lags + widths / 2).reshape(-1)
        weights = np.full(len(shifts), 1 / len(shifts))
        widths = _each(np.asarray(self.window), times, shifts)
        return Views(times[:, None] - shifts, widths, weights, _PHASES)

    def views_of_means(self, ends: Floats, widths: Floats) -> Views:
        """Readings that are means, behind the lag, over ``widths`` seconds up to ``ends``."""
        lags, bins = _lag_bins(self.lag, _LAG_BINS)
        shifts = lags + (bins / 2 if self.lag > 0 else 0.0)
        weights = np.full(len(shifts), 1 / len(shifts))
        return Views(ends[:, None] - shifts, _each(widths[:, None], ends, shifts), weights)

    def seen(self, began: Floats, ended: Floats, until: float) -> Floats:
        """How much of the energy of blocks, each as a fraction, shows in readings by ``until``."""
        length = np.maximum(ended - began, _INSTANT)
        shown = self._integral(until - began) - self._integral(until - began - length)
        return np.clip(shown / length, 0.0, 1.0)

    def _integral(self, ages: Floats) -> Floats:
        """The integral of the step response, ``ages`` seconds after the step."""
        grid, values = _step_integral(self.lag, self.window)
        beyond = np.maximum(ages - grid[-1], 0.0)
        return np.asarray(np.interp(ages, grid, values) + beyond)


@dataclass(frozen=True, slots=True)
class Readings:
    """``watts`` ``[n]`` shown at ``times`` ``[n]``; with ``widths``, known to be the means over
    so many seconds up to then."""

    times: Floats
    watts: Floats
    widths: Floats | None = None

    def __len__(self) -> int:
        return len(self.times)

    def views(self, response: Response) -> Views:
        """What they look at, if the sensor's response is this."""
        if self.widths is None:
            return response.views(self.times)
        return response.views_of_means(self.times, self.widths)

    def after(self, time: float) -> Readings:
        return self.since(int(np.searchsorted(self.times, time, "right")))

    def since(self, first: int) -> Readings:
        widths = None if self.widths is None else self.widths[first:]
        return Readings(self.times[first:], self.watts[first:], widths)

    @staticmethod
    def join(parts: Sequence[Readings]) -> Readings:
        widths = [part.widths for part in parts if part.widths is not None]
        return Readings(
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.watts for part in parts]),
            np.concatenate(widths) if len(widths) == len(parts) else None,
        )


def _each(widths: Floats, times: Floats, boxes: Floats) -> Floats:
    return np.broadcast_to(widths, (len(times), len(boxes)))


@lru_cache(maxsize=64)
def _lag_bins(lag: float, count: int) -> tuple[Floats, Floats]:
    """Bins of equal weight of an exponential's delays: where each begins, and its width."""
    if lag <= 0:
        return np.zeros(1), np.full(1, _INSTANT)
    whole = 1 - np.exp(-_LAG_REACH)
    edges = -lag * np.log1p(-whole * np.arange(count + 1) / count)
    return edges[:-1], np.diff(edges)


@lru_cache(maxsize=16)
def _step_integral(lag: float, window: float) -> tuple[Floats, Floats]:
    response = Response(lag, window)
    grid = np.linspace(0, max(response.reach, _INSTANT), _TABLE)
    views = response.views(np.zeros(1))
    ages = (grid[:, None] + views.ends[0]) / views.widths[0]
    inside = np.clip(ages, 0, 1)
    integral = views.widths[0] * (inside**2 / 2 + np.maximum(ages - 1, 0))
    return grid, integral @ views.weights


def fit_response(
    readings: Readings, blocks: Sequence[Blocks], known: Response | None = None
) -> Response | None:
    """The response that explains ``readings`` best from the ``blocks`` of each segment.

    Least squares of ``watts = level + sum(factor * shown)``, the level free every few seconds so
    that other programs do not count, without the worst hundredth: by a geometric grid of time
    constants with one factor for all, then a finer one around the best with one for each. Lags
    and windows are tried, and a little of the other with the better of the two; lags alone where
    it is known of what the readings are means. ``known`` stays unless another is clearly better;
    it also comes back where the load varied too little to tell. None where it varied, and
    readings did not vary with it: their moments are not to be trusted.
    """
    readings = _latest(readings)
    if len(readings) < _LEAST_READINGS or not blocks:
        return known
    rough = _rough(readings, blocks)
    best = min(rough, key=lambda each: rough[each])
    spans, varied = _varied(readings)
    if rough[best] > 1 - _LEAST_EXPLAINED:
        if known is None or rough[best] < 1 - _REFUTED:
            return known
        shown = _levelled(readings.views(known).watts(Spending(*join_blocks(blocks))), spans)
        return None if np.std(shown) > _REFUTED * np.std(varied) else known
    apart = [Spending(*block) for block in blocks]
    scores: dict[Response, float] = {}

    def misfit(response: Response) -> float:
        views = readings.views(response)
        shown = np.stack([_levelled(views.watts(each), spans) for each in apart], axis=1)
        return _unexplained(varied, shown)

    def better(*others: Response) -> Response:
        for each in others:
            if each not in scores:
                scores[each] = misfit(each)
        return min(scores, key=lambda each: scores[each])

    best = better(best)
    for ratio in _REFINEMENTS:
        best = better(*(Response(best.lag * s, best.window * s) for s in (ratio, 1 / ratio)))
    if readings.widths is None and best.delay > 0:
        pure = best
        best = better(*(_mixed(best, share) for share in _MIXTURES))
        for ratio in _REFINEMENTS[1:]:
            best = better(*(Response(best.lag * s, best.window) for s in (ratio, 1 / ratio)))
            best = better(*(Response(best.lag, best.window * s) for s in (ratio, 1 / ratio)))
        if scores[best] > _BETTER * scores[pure]:
            best = pure
    if known is None:
        return best
    better(known)
    return best if scores[best] < _BETTER * scores[known] else known


def unexplained(readings: Readings, blocks: Sequence[Blocks]) -> float:
    """The part of what ``readings`` vary by that no response explains from the ``blocks``, all of
    one factor; 1 of readings that do not vary, or not with what ran."""
    readings = _latest(readings)
    return min(_rough(readings, blocks).values()) if len(readings) and blocks else 1.0


def _latest(readings: Readings) -> Readings:
    return readings.since(max(0, len(readings) - _MOST_READINGS))


def _varied(readings: Readings) -> tuple[NDArray[np.intp], Floats]:
    """Spans over which the level is one, and the watts of the readings above it."""
    spans = ((readings.times - readings.times[0]) // _LEVEL_SECONDS).astype(np.intp)
    return spans, _levelled(readings.watts, spans)


def _rough(readings: Readings, blocks: Sequence[Blocks]) -> dict[Response, float]:
    """What each response of the coarse grid leaves unexplained, as a part of what there is. One
    by which watts would fall with what runs explains nothing."""
    spans, varied = _varied(readings)
    steps = int(np.log(LONGEST / SHORTEST) / np.log(_RATIO)) + 1
    grid = [float(SHORTEST * _RATIO**step) for step in range(steps)]
    candidates = [Response(), *(Response(lag=seconds) for seconds in grid)]
    if readings.widths is None:
        candidates += [Response(window=seconds) for seconds in grid]
    nothing = _unexplained(varied, np.zeros((len(varied), 1)))
    together = Spending(*join_blocks(blocks))
    left = dict.fromkeys(candidates, 1.0)
    for each in candidates:
        shown = _levelled(readings.views(each).watts(together), spans)
        if nothing > 0 and shown @ varied > 0:
            left[each] = _unexplained(varied, shown[:, None]) / nothing
    return left


def _mixed(response: Response, share: float) -> Response:
    """``response`` with the other kind beside it, ``share`` as long, and no later in all."""
    kept = response.delay / (1 + share)
    if response.lag > 0:
        return Response(kept, kept * share)
    return Response(kept * share, kept)


def join_blocks(parts: Sequence[Blocks]) -> Blocks:
    began, ended, joules = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return began, ended, joules


def _unexplained(varied: Floats, shown: Floats) -> float:
    """The sum of squares that least squares leave, twice without the worst readings."""
    kept = np.arange(len(varied))
    misses = varied
    for _ in range(_TRIMS):
        factors = np.linalg.lstsq(shown[kept], varied[kept], rcond=1e-6)[0]
        misses = (varied - shown @ factors) ** 2
        kept = np.argsort(misses)[: int(_KEPT * len(misses))]
    return float(misses[kept].sum())


def _levelled(values: Floats, spans: NDArray[np.intp]) -> Floats:
    counts = np.maximum(np.bincount(spans), 1)
    return np.asarray(values - (np.bincount(spans, values) / counts)[spans])
