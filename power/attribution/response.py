"""How a sensor shows power late: its response to a moment of power, fitted to readings.

The response is a sum of looks at several lags. The contiguous run of lags that as one box explains
most is widened for as long as more of the power appears than chance would show; or a filter of the
first order is taken, where one explains more. The height at each lag is then fitted, drawn to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from power.sources.series import Floats

KNOTS = np.array(
    [-0.06, -0.05, -0.04, -0.03, -0.02]
    + [0.005 * number for number in range(-3, 20)]
    + [0.11, 0.125, 0.15, 0.19, 0.24, 0.32, 0.43, 0.58, 0.78, 1.0, 1.3, 1.7, 2.2]
)
"""Seconds between which a reading may look, fine where sensors are; negative, since rails that are
read in turn are stamped in the middle."""
LAGS = KNOTS[1:-1]
REACH = float(KNOTS[-1])

_LOOSE, _LOOSE_HELD = 0.7, 0.35  # of the box's height by which another may differ
_BY_CHANCE = 16.0  # what some box explains of noise, in units of its variance
_BEYOND_CHANCE = 4.0  # variances from which on more power has appeared
_MARGINS, _MARGINS_HELD = 8, 2  # lags by which a box is widened on either side
_MOST_HELD = 5  # lags of a box of a sensor that holds its averages
_LOW_PASSES = (0.1, 0.2, 0.4, 0.7)  # time constants, in seconds
_DELAYS = 8
_SHIFT, _UNSURE = 0.002, 0.1  # seconds, and parts of its width, that a response is off by
_NEAR = np.array([0.25, 0.5, 0.25])


@dataclass(frozen=True, slots=True)
class Response:
    """``weights`` ``[k]`` of looks that are ``lags`` ``[k]`` late, which sum to 1."""

    lags: Floats
    weights: Floats

    @property
    def delay(self) -> float:
        """By how many seconds a reading is behind the power on average."""
        return max(float(self.weights @ self.lags), 0.0)

    @property
    def bends(self) -> Floats:
        """How ``weights`` change ``[k, 2]`` where the response is later, or broader, by about one
        standard deviation of what is not known of it."""
        widths = _widths(self.lags)
        slope = -np.gradient(self.weights / widths, self.lags)
        broader = -np.gradient(slope, self.lags)
        spread = float(np.maximum(self.weights @ (self.lags - self.delay) ** 2, 0.0))
        by = [_SHIFT + _UNSURE * sqrt(spread), _SHIFT**2 + _UNSURE * spread]
        return np.asarray(np.stack([slope * widths, broader * widths], axis=1) * by)

    def scatter(self, shows: Floats) -> Floats:
        """The variance of power within and beside what readings look at, ``shows`` ``[n, k]``."""
        reach = np.convolve(np.maximum(self.weights, 0.0), _NEAR, "same")
        reach /= reach.sum()
        return np.asarray(np.maximum(shows**2 @ reach - (shows @ reach) ** 2, 0.0))


def unknown(lags: Floats) -> Response:
    """Of a sensor that is not known yet: it looks at its moment."""
    weights = (np.abs(lags) == np.abs(lags).min()).astype(float)
    return Response(lags, weights / weights.sum())


def lags_of(hold: float) -> Floats:
    """Seconds before its moment at which an average over ``hold`` seconds may end."""
    near = np.arange(-3, 12) * 0.01
    far = hold * np.array([-0.5, -0.25, -0.12, 0.35, 0.5, 0.75, 1.0])
    return np.unique(np.round(np.concatenate([near, far]), 6))


def fit(gram: Floats, against: Floats, lags: Floats, held: bool) -> Response | None:
    """The response that explains readings best: ``gram`` ``[k, k]`` are the products of what looks
    at each lag show, ``against`` ``[k]`` those with the readings, in units of the readings'
    variance. None where none explains anything."""
    widths = _widths(lags)
    products, explains = gram * np.outer(widths, widths), against * widths
    gain, first, last = _best_run(products, explains, _MOST_HELD if held else len(lags))
    if gain < _BY_CHANCE:
        return None
    loose = _LOOSE_HELD if held else _LOOSE
    places = np.arange(len(lags))

    def between(first: int, last: int) -> _Fit:
        box = ((places >= first) & (places <= last)).astype(float)
        return _inside(products, explains, box, loose, widths)

    found = between(first, last)
    for _ in range(_MARGINS_HELD if held else _MARGINS):
        first, last = max(first - 1, 0), min(last + 1, len(lags) - 1)
        wider = between(first, last)
        more = (wider.total - found.total) ** 2 > _BEYOND_CHANCE * (wider.variance - found.variance)
        if more and wider.explained > found.explained + _BEYOND_CHANCE:
            found = wider
    if not held:
        shapes = _low_passes(lags)
        powers = ((shapes @ products) * shapes).sum(axis=1)
        gains = np.maximum(shapes @ explains, 0.0) ** 2 / np.maximum(powers, 1e-12)
        best = int(gains.argmax())
        if gains[best] > gain + _BEYOND_CHANCE:
            found = _inside(products, explains, shapes[best], loose, widths)
    if found.total <= 0:
        return None
    weights = found.heights * widths / found.total
    return Response(lags, weights)


def explained(gram: Floats, against: Floats, lags: Floats, held: bool) -> float:
    """How much the best box of lags explains of the square of what was read."""
    widths = _widths(lags)
    products, explains = gram * np.outer(widths, widths), against * widths
    return _best_run(products, explains, _MOST_HELD if held else len(lags))[0]


def _widths(lags: Floats) -> Floats:
    edges = np.concatenate([[2 * lags[0] - lags[1]], lags, [2 * lags[-1] - lags[-2]]])
    return np.asarray((edges[2:] - edges[:-2]) / 2)


def _low_passes(lags: Floats) -> Floats:
    """Shapes ``[n, k]`` of filters of the first order."""
    late = lags - lags[lags >= 0][:_DELAYS, None]
    shapes = [np.where(late >= 0, np.exp(-np.abs(late) / tau), 0.0) for tau in _LOW_PASSES]
    return np.concatenate(shapes)


def _best_run(products: Floats, explains: Floats, most: int) -> tuple[float, int, int]:
    """What the box, of ``most`` lags, explains that explains most; its first and last lag."""
    count = len(explains)
    along = np.concatenate([[0.0], np.cumsum(explains)])
    square = np.zeros((count + 1, count + 1))
    square[1:, 1:] = products.cumsum(axis=0).cumsum(axis=1)
    corner = np.diag(square)
    power = corner - square - square.T + corner[:, None]
    gained = along - along[:, None]
    sizes = np.arange(count + 1) - np.arange(count + 1)[:, None]
    usable = (power > 0) & (gained > 0) & (sizes > 0) & (sizes <= most)
    gain = np.where(usable, gained**2 / np.where(usable, power, 1.0), 0.0)
    first, end = np.unravel_index(int(gain.argmax()), gain.shape)
    return float(gain[first, end]), int(first), int(end) - 1


class _Fit(NamedTuple):
    """``heights`` ``[k]`` of a response, their sum and its variance, and how much they explain."""

    heights: Floats
    total: float
    variance: float
    explained: float


def _inside(
    products: Floats, explains: Floats, shape: Floats, loose: float, widths: Floats
) -> _Fit:
    """The response that is fitted where ``shape`` is not 0, drawn to it."""
    some = shape > 0
    inner, right, wide, near = products[some][:, some], explains[some], widths[some], shape[some]
    near = near * max(float(near @ right / (near @ inner @ near)), 1e-9)
    ridge = 1 / (loose * near) ** 2
    covariance = np.linalg.inv(inner + np.diag(ridge))
    found = covariance @ (right + ridge * near)
    heights = np.zeros(len(explains))
    heights[some] = found
    gain = float(2 * found @ right - found @ inner @ found)
    return _Fit(heights, float(wide @ found), float(wide @ covariance @ wide), gain)
