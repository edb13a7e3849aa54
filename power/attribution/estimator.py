"""What each segment truly takes, learnt by least squares from readings and from what ran.

A reading is the level of its block of some seconds (idle power and other programs), plus each
segment's predicted power as the sensor's response shows it times the segment's factor, plus noise.
Factors are drawn to what profiles predict. The steps of the level from block to block are rows
too; they carry what varies too slowly to be seen inside a block. Every block is predicted before
it is learnt from, and how well that explains it decides whether anything may be called attributed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, inf, pi, sqrt

import numpy as np

from power.attribution.blocks import Block, Blocks, wide
from power.attribution.readings import Readings, longest_gap
from power.attribution.response import KNOTS, LAGS, Response, explained, fit, lags_of, unknown
from power.attribution.spending import Spending
from power.sources.series import Floats

_KEPT = 180.0  # seconds of blocks
_BLOCK, _BLOCK_HOLDS, _LEAST_READINGS, _LEAST_HELD = 2.0, 3.2, 8, 3
_LEVEL = 40  # readings that say what the level is
_COMMON, _MODEL, _OWN = 9.0, 4.0, 0.25  # relative variances of factors of predictions by guess
_GUESSED = 0.5  # relative sd from which on predictions are
_LEAST_SPREAD = 0.03
_FIRST = 1 / 9  # precision of 1 as the factor of all
_VARIANCES = np.array([0.01, 0.2, 0.003])
_LEAST_VARIANCES, _MOST_VARIANCES = np.array([1e-4, 0.01, 4e-4]), np.array([100.0, 2.0, 0.1])
_LEAST_STEP = 0.02  # watts that the level moves from block to block
_OUTLYING = 2.5  # medians, or sds, from which on blocks and steps lose weight
_LEAST_USUAL = 0.25  # of what noise makes a block miss by: blocks are never all that good
_TURNS = 2
_CHECKS, _LEAST_CHECKS, _RECENT = 12, 5, 30.0
_WILD = 4.0  # sds of noise beyond which a single reading counts no more against a prediction
_VARIES = 0.08  # of its mean, from which on a block's power says something
_TOLERANCE, _SDS = 0.03, 2.5
_TELLING = 0.25  # relative sd of a test up to which it can tell what is off by half
_MOST, _MOST_GUESSED = 2.0, 3.0  # sds up to the most that a request took
_CHANGED, _CHANGED_SDS, _STALE = 0.1, 4.0, 0.03
_EDGE = 3  # readings that may have been before or after a move for being mistimed
_MOVES = 0.8  # watts by which a sensor should have moved to be called frozen
_COARSEST = 0.5  # watts of a sensor's step: few levels that are farther apart are the load's
_QUANTUM = 0.3  # of a step of the sensor: the error that does not average out


@dataclass(frozen=True, slots=True)
class Check:
    """A block that was predicted: products of what was predicted with itself and with what was
    read, and of that with itself, all in units of the noise's variance; and the standard deviation
    of the second for what was not known of the factors."""

    time: float
    predicted: float
    both: float
    read: float
    unsure: float


class Estimator:
    """Factors, level and response for one kind of readings: held for ``hold`` seconds each, or
    (None) as fast as they are polled."""

    def __init__(self, hold: float | None = None) -> None:
        self.hold = hold
        self.lags = LAGS if hold is None else lags_of(hold)
        self.response: Response | None = None
        self.factors = np.zeros(0)
        self.level: tuple[float, float] | None = None
        """Watts beside requests lately, and their standard deviation."""
        self._anchors, self._spreads = np.zeros(0), np.zeros(0)
        self._same = np.zeros((0, 0))
        self._covariance, self._sandwich = np.zeros((0, 0)), np.zeros((0, 0))
        self._checks: deque[Check] = deque(maxlen=_CHECKS)
        self._blocks: list[Block] = []
        self._open: Block | None = None
        self._unlearnt = 0
        self._ends: deque[float] = deque([-inf, -inf], maxlen=2)
        self._variances, self._step = _VARIANCES, _LEAST_STEP**2
        self._quantum = self._coarse = 0.0

    @property
    def count(self) -> int:
        return len(self.factors)

    @property
    def checked(self) -> float:
        """When the block of readings before the last one ended: what it shows was predicted, and
        what followed."""
        return self._ends[0]

    @property
    def delay(self) -> float:
        """By how many seconds readings are behind the power on average."""
        hold = self.hold or 0.0
        return (0.0 if self.response is None else self.response.delay) + hold

    @property
    def explained(self) -> float | None:
        """The share of the variation of the last blocks that was predicted; None before any."""
        read = sum(check.read for check in self._checks)
        if not read:
            return None
        left = sum(check.read - 2 * check.both + check.predicted for check in self._checks)
        return max(1 - left / read, 0.0)

    def explains(self, now: float) -> bool:
        """Whether the last blocks were as predicted."""
        checks = self._checks
        if len(checks) < _LEAST_CHECKS or checks[-1].time < now - _RECENT:
            return False
        misses = [self._off(last) for last in (2, 4, _CHECKS)]
        return all(off <= min(_SDS * chance + _TOLERANCE, 0.5) for off, chance, _ in misses)

    def doubted(self, hold: float | None = None) -> Estimator:
        """An estimator that begins anew: from the factors of this one, or, for readings that are
        held for ``hold`` seconds (0: not at all) as nobody knew before, from the predictions."""
        other = Estimator(self.hold if hold is None else hold or None)
        other.factors = self.factors.copy() if hold is None else np.ones(self.count)
        other._anchors = other.factors.copy()
        other._spreads, other._same = self._spreads, self._same
        other.response = self.response if hold is None else None
        other._covariance = other._prior(1.0)[1]
        other._sandwich = np.zeros_like(other._covariance)
        return other

    def meet(self, models: Sequence[str], spreads: Sequence[float]) -> None:
        """Tell apart so many segments, each of a model, by how much of themselves predictions for
        them may be off."""
        new = len(models) - self.count
        spread = np.maximum(spreads, _LEAST_SPREAD)
        if not new and np.array_equal(spread, self._spreads):
            return
        self._spreads, names = spread, np.asarray(models)
        self._same = (names[:, None] == names).astype(float)
        guessed = self.factors[self._spreads[: self.count] >= _GUESSED]
        usual = float(np.median(guessed)) if len(guessed) else 1.0
        first = np.where(self._spreads >= _GUESSED, usual, 1.0)[self.count :]
        self.factors = np.append(self.factors, first)
        self._anchors = np.append(self._anchors, np.ones(new))
        self._covariance = self._prior(usual)[1]
        self._sandwich = np.zeros_like(self._covariance)

    def forget(self, numbers: Sequence[int]) -> None:
        """Take what some segments showed out of what was read, and begin anew with them."""
        weights = self._known.weights
        for block in [*self._blocks, *([] if self._open is None else [self._open])]:
            some = [number for number in numbers if number < block.shows.shape[1]]
            block.watts -= self.factors[some] @ (block.shows[:, some] @ weights).T
            block.shows[:, some] = 0.0
        self.factors[numbers] = self._anchors[numbers] = 1.0

    def look(self, readings: Readings, spending: Spending) -> Floats:
        """What ``readings`` would show of each segment at each lag, ``[n, s, k]``."""
        return _look(readings, spending, self.hold, self.lags).astype(np.float32)

    def moved(self, readings: Readings, spending: Spending) -> bool:
        """Whether ``readings`` should have moved with what ran, their first and last aside."""
        shows = self.look(readings.take(slice(_EDGE, -_EDGE)), spending)
        return (
            bool(len(shows)) and float(np.ptp(self._expected(shows))) > _MOVES + 2 * self._quantum
        )

    def add(self, readings: Readings, spending: Spending) -> None:
        """Take in the next readings, with what ran when they looked."""
        if not self.count:
            spending = Spending.nothing(1)
        rows = Block(readings.times, readings.watts, self.look(readings, spending), False)
        gap = longest_gap(self.hold)
        if self._open is not None and rows.times[0] - self._open.times[-1] <= gap:
            rows = self._open.joined(rows)
        gaps = np.flatnonzero(np.diff(rows.times) > gap)
        if len(gaps):
            rows = rows.part(slice(int(gaps[-1]) + 1, None), False)
        seconds = max(_BLOCK, _BLOCK_HOLDS * (self.hold or 0.0))
        least = _LEAST_HELD if self.hold else _LEAST_READINGS
        while True:
            end = max(int(np.searchsorted(rows.times, rows.times[0] + seconds)), least)
            if end >= len(rows.times):
                break
            self._check(rows.part(slice(0, end), rows.follows))
            rows = rows.part(slice(end, None), True)
        self._open = rows
        self._see_level(rows)
        if self._unlearnt > min(len(self._blocks) // 15, 2):
            self._learn()

    def relative_sd(self, joules: Floats) -> Floats:
        """Of the sums of ``joules`` ``[n, s]`` times the factors, as parts of them; infinite where
        nothing is known. Where blocks scatter more than noise does, the few there are show too
        little of it: they are believed twice as far."""
        if self.response is None:
            return np.full(len(joules), inf)
        sums = joules @ self.factors
        model, found = (
            ((joules @ each) * joules).sum(axis=1) for each in (self._covariance, self._sandwich)
        )
        square = np.maximum(model, 2 * found - model)
        variance = square / np.maximum(sums, 1e-12) ** 2 + self._coarse
        return np.where(sums > 0, np.sqrt(variance), inf)

    def most(self, joules: Floats) -> Floats:
        """What the sums of ``joules`` ``[n, s]`` times the factors are at the most: two standard
        deviations more. Where no test of the factors could tell, or one says otherwise, these are
        not trusted: it is three of those by which predictions may be off."""
        guess = np.maximum(joules, joules * self.factors) @ (1 + _MOST_GUESSED * self._spreads)
        off, chance, _ = self._off(_CHECKS)
        is_tested = len(self._checks) >= _LEAST_CHECKS and chance <= _TELLING
        if not is_tested or off > _SDS * chance + _TOLERANCE:
            return np.asarray(guess)
        sds = self.relative_sd(joules)
        known = (joules @ self.factors) * (1 + _MOST * np.where(sds < inf, sds, 0.0))
        return np.where(sds < inf, np.minimum(known, guess), guess)

    @property
    def _known(self) -> Response:
        return self.response or unknown(self.lags)

    def _expected(self, shows: Floats) -> Floats:
        return np.asarray(wide(shows, self.count) @ self._known.weights @ self.factors)

    def _see_level(self, rows: Block) -> None:
        if self._blocks and rows.follows and len(rows.times) < _LEVEL:
            rows = self._blocks[-1].joined(rows)
        rows = rows.part(slice(-_LEVEL, None), True)
        left = rows.watts - self._expected(rows.shows)
        self.level = float(left.mean()), float(left.std()) / sqrt(len(left))

    def _check(self, block: Block) -> None:
        """Predict ``block``, and keep it to be learnt from."""
        hats = self.factors @ wide(block.shows, self.count)
        expected = hats @ self._known.weights
        weights = 1 / (self._variances @ _parts(hats, expected, self._known))
        miss = block.watts - expected
        usual, most = np.median(miss), _WILD / np.sqrt(weights)
        read = expected + usual + np.clip(miss - usual, -most, most)
        x, y = (values - np.average(values, weights=weights) for values in (expected, read))
        if self.response is not None and np.std(expected) > _VARIES * np.mean(expected):
            predicted, both, seen = (
                float((weights * one) @ other) for one, other in ((x, x), (x, y), (y, y))
            )
            own = wide(block.shows, self.count) @ self._known.weights
            lever = (weights * x) @ own
            unsure = max(lever @ each @ lever for each in (self._covariance, self._sandwich))
            end = float(block.times[-1])
            self._checks.append(Check(end, predicted, both, seen, sqrt(unsure)))
            self._doubt_older()
        self._blocks.append(block)
        self._ends.append(float(block.times[-1]))
        self._unlearnt += 1
        while self._blocks[0].times[-1] < block.times[-1] - _KEPT:
            self._blocks.pop(0)

    def _off(self, last: int) -> tuple[float, float, float]:
        """By how much of itself what was predicted of the ``last`` blocks is off, by how much it
        may be by chance, and by how much for factors that were not known yet."""
        some = list(self._checks)[-last:]
        power = sum(check.predicted for check in some)
        if not power:
            return 0.0, inf, inf
        off = abs(sum(check.both for check in some) / power - 1)
        return off, sqrt(1 / power), sum(check.unsure for check in some) / power

    def _doubt_older(self) -> None:
        """Let the blocks before those that contradict them lose their weight."""
        for last in (2, 4):
            off, chance, unsure = self._off(last)
            may_be = max(_CHANGED_SDS * hypot(chance, unsure), _CHANGED)
            if len(self._checks) >= last and off > may_be:
                for older in self._blocks[: 1 - last]:
                    older.trust = min(older.trust, _STALE)

    def _prior(self, usual: float) -> tuple[Floats, Floats]:
        """What factors are drawn to, and their covariance around it; ``usual`` is the factor of
        predictions by guess."""
        own, guessed = np.eye(self.count), self._spreads >= _GUESSED
        mean = self._anchors * np.where(guessed, usual, 1.0)
        free = _COMMON + _MODEL * self._same + _OWN * own
        bound = np.outer(self._spreads, self._spreads) * (self._same + own) / 2
        relative = np.where(np.outer(guessed, guessed), free, 0.0)
        relative = np.where(np.outer(~guessed, ~guessed), bound, relative)
        scale = np.maximum(mean, 1e-3)
        return mean, relative * np.outer(scale, scale)

    @np.errstate(invalid="ignore")  # of single precision; some builds of numpy warn for no reason
    def _learn(self) -> None:
        """Fit everything to the blocks that are kept."""
        self._unlearnt = 0
        if not self.count:
            return
        blocks = Blocks(self._blocks, self.count)
        trust = np.ones(len(self._blocks))
        for _ in range(_TURNS):
            self._fit_response(blocks, trust)
            if self.response is None:
                return  # no reading shows what ran: predictions stay as they are
            response = self._known
            hats = self.factors @ blocks.shows
            expected = hats @ response.weights
            parts = _parts(hats, expected, response)
            variance = self._variances @ parts
            weights = (trust * blocks.trust)[blocks.of] / variance
            y, levels = blocks.centred(blocks.watts[:, None], weights)
            x, shown = blocks.centred(blocks.shows @ response.weights, weights)
            bent, _ = blocks.centred(hats @ response.bends, weights)
            x, y = (_without(bent, each, weights) for each in (x, y))
            noise = 1 / np.add.reduceat(1 / variance, blocks.starts)
            dx, dy = np.diff(shown, axis=0), np.diff(levels[:, 0])
            both = self._step + noise[1:] + noise[:-1]
            miss = dy - dx @ self.factors
            steady = blocks.follows * blocks.trust[1:] / both
            steady /= (1 + miss**2 / both / _OUTLYING**2) ** 2
            self._solve(
                (x.T * weights) @ x + (dx.T * steady) @ dx,
                (x.T * weights) @ y[:, 0] + (dx.T * steady) @ dy,
            )
            misses, miss = y[:, 0] - x @ self.factors, dy - dx @ self.factors
            self._hear(misses**2, parts, blocks.trust[blocks.of])
            unsure = ((x @ self._covariance) * x).sum(axis=1)
            q = np.add.reduceat(misses**2 / (variance + 9 * unsure), blocks.starts) / blocks.sizes
            usual = max(float(np.median(q)), _LEAST_USUAL)
            trust = np.minimum(1.0, _OUTLYING * usual / np.maximum(q, 1e-9)) ** 2
            if blocks.follows.any():
                spread = 1.48 * float(np.median(np.abs(miss[blocks.follows])))
                noisy = float(np.median((noise[1:] + noise[:-1])[blocks.follows]))
                self._step = max(spread**2 - noisy, _LEAST_STEP**2)
        scores = np.add.reduceat(x * (weights * misses)[:, None], blocks.starts)
        scores[1:] += dx * (steady * miss)[:, None]
        self._sandwich = self._covariance @ (scores.T @ scores) @ self._covariance
        levels = np.unique(np.round(blocks.watts, 6))
        few = len(levels) < 6 and np.ptp(levels) > len(levels) * _COARSEST
        self._quantum = 0.0 if few or len(levels) < 2 else float(np.diff(levels).min())
        self._coarse = self._not_dithered() ** 2 / max(
            float(np.mean((x @ self.factors) ** 2)), 1e-12
        )

    def _not_dithered(self) -> float:
        """Watts of the sensor's step that noise does not average out: of a step q, noise of sd s
        leaves exp(-2 (pi s / q)^2) (Gray and Stockham, Dithered quantizers, 1993)."""
        step = max(self._quantum, 1e-9)
        noise = max(float(self._variances[0]) - step**2 / 12, 0.0)
        return _QUANTUM * step * float(np.exp(-2 * pi**2 * noise / step**2))

    def _fit_response(self, blocks: Blocks, trust: Floats) -> None:
        """Readings count alike here: how they differ in noise depends on the response itself."""
        least = np.maximum(self.factors, 0.1 * self.factors.mean() + 1e-6)
        weights = (trust * blocks.trust)[blocks.of]
        x, _ = blocks.centred(least @ blocks.shows, weights)
        y = blocks.centred(blocks.watts[:, None], weights)[0][:, 0]
        gram, against = (x.T * weights) @ x, (x.T * weights) @ y
        noise = float(weights @ y**2 / weights.sum()) + 1e-4
        found = None
        for _ in range(3):
            found = fit(gram / noise, against / noise, self.lags, self.hold is not None)
            if found is None:
                return
            shown = x @ found.weights
            lever = weights * shown**2
            scale = float((weights * shown) @ y / max(lever.sum(), 1e-12))
            noise = float(lever @ (y - scale * shown) ** 2 / max(lever.sum(), 1e-12)) + 1e-4
        self.response = found

    def _solve(self, gram: Floats, against: Floats) -> None:
        """The factors of least squares, drawn to what is predicted."""
        guessed = np.where(self._spreads >= _GUESSED, self._anchors, 0.0)
        rest = against - gram @ (self._anchors - guessed)
        usual = (guessed @ rest + _FIRST) / (guessed @ gram @ guessed + _FIRST)
        mean, prior = self._prior(max(float(usual), 0.01))
        precision = np.linalg.inv(prior)
        self._covariance = np.linalg.inv(gram + precision)
        self.factors = np.maximum(self._covariance @ (against + precision @ mean), 0.0)

    def _hear(self, squares: Floats, parts: Floats, trust: Floats) -> None:
        """Move the variances of the noise's parts towards the greatest likelihood."""
        for _ in range(3):
            variance = self._variances @ parts
            seen = np.minimum(squares / variance, 9.0)
            weights = trust * parts / variance
            grown = np.sqrt((weights @ seen) / np.maximum(weights.sum(axis=1), 1e-12))
            self._variances = np.clip(self._variances * grown, _LEAST_VARIANCES, _MOST_VARIANCES)


def unexplained(readings: Readings, spending: Spending, hold: float | None) -> float:
    """The part of what ``readings`` vary by that no simple response of a sensor, which holds its
    averages for ``hold`` seconds or does not, explains from what ran."""
    lags = LAGS if hold is None else lags_of(hold)
    shows = _look(readings, spending, hold, lags).sum(axis=1)
    x, y = shows - shows.mean(axis=0), readings.watts - readings.watts.mean()
    return 1 - explained(x.T @ x, x.T @ y, lags, hold is not None) / max(float(y @ y), 1e-12)


def _look(readings: Readings, spending: Spending, hold: float | None, lags: Floats) -> Floats:
    widths = readings.widths if hold is None else np.full(len(readings), hold)
    if widths is None:
        return spending.under_hats(readings.times, KNOTS)
    return spending.under_boxes(readings.times, widths, lags)


def _parts(hats: Floats, expected: Floats, response: Response) -> Floats:
    """What the variance of readings is made of ``[3, n]``: noise, how much power scatters within
    what a reading looks at, and how much one run differs from the next."""
    return np.stack([np.ones_like(expected), response.scatter(hats), expected**2])


def _without(bent: Floats, values: Floats, weights: Floats) -> Floats:
    """``values`` ``[n, m]`` less what a response that is a little otherwise, ``bent`` ``[n, 2]``
    in standard deviations, would explain of them."""
    weighted = bent.T * weights
    return np.asarray(
        values - bent @ np.linalg.solve(weighted @ bent + np.eye(2), weighted @ values)
    )
