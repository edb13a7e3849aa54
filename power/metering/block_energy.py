"""What blocks say: joules of each segment, beyond idle and gross, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from delen.errors import ProfileError
from power.metering.blocks import Block, BlockPlan, Chain, margin
from power.metering.bootstrap import interval, resampled_means, rising
from power.sources.series import Floats, Samples

_SETTLING = 5.0
_LEAST_LEFT = 1.0


@dataclass(frozen=True, slots=True)
class SegmentJoules:
    """Joules of one segment for a whole batch: beyond the idle device (``marginal``, with 95 %
    from ``low`` to ``high``) and of the whole device meanwhile (``gross``)."""

    marginal: float
    gross: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BlockEnergies:
    """What was measured: ``segments[k][batch]``, the idle device in watts, the mean delay of the
    sensor in seconds, and ``notes``, sentences on what to know about them."""

    segments: tuple[Mapping[int, SegmentJoules], ...]
    idle_watts: float
    delay: float
    notes: tuple[str, ...]


def evaluate(blocks: Sequence[Block], plan: BlockPlan, polled: float) -> BlockEnergies:
    """The energies that ``blocks`` show, all of ``plan``; their samples lie ``polled`` s apart.

    Of each stretch its beginning is left out until the sensor has settled: five times its mean
    delay, as found from the blocks' own rises, which leaves 0.7 % of a step to a first-order lag.
    Idle power is taken from both sides of a block and interpolated to its middle. A segment's
    joules are the difference of two exits. Exits that cost less than an earlier one, by noise,
    are levelled with it (``bootstrap.rising``), in every resample too; ``notes`` says so.

    Raises ProfileError, with the figures and a remedy, when the blocks are too short for the
    sensor, when an interval is wider than ``plan.spread``, and when a deeper exit takes so much
    less than an earlier one that noise does not explain it.
    """
    delay = sensor_delay(blocks)
    edge = margin(polled)
    settling = max(edge, _SETTLING * delay)
    if plan.idle - settling - edge < _LEAST_LEFT:
        raise ProfileError(
            f"blocks of {plan.seconds:g} s are too short for a sensor that settles in "
            f"{settling:.1f} s; they must last {2 * (settling + edge + _LEAST_LEFT):.0f} s"
        )
    figures = [_figures(block, settling, edge) for block in blocks]
    batches = sorted({block.chain.batch for block in blocks})
    exits = 1 + max(block.chain.exit for block in blocks)
    segments: list[dict[int, SegmentJoules]] = [{} for _ in range(exits)]
    notes: list[str] = []
    for batch in batches:
        joules = np.empty((2, plan.rounds, exits))
        for block, found in zip(blocks, figures, strict=True):
            if block.chain.batch == batch:
                joules[:, block.round, block.chain.exit] = found.marginal, found.gross
        for segment, cost in enumerate(_segments(joules[0], joules[1], batch, plan, notes)):
            segments[segment][batch] = cost
    idle = float(np.mean([found.idle for found in figures]))
    return BlockEnergies(tuple(segments), idle, delay, tuple(notes))


def sensor_delay(blocks: Sequence[Block]) -> float:
    """The sensor's mean delay in seconds: the time constant of a first-order lag.

    It is the area between a step and what the sensor shows of it, over the step's height; of all
    blocks together, so that those which draw most count most.
    """
    area = height = 0.0
    for block in blocks:
        middle = (block.began + block.ended) / 2
        idle = mean_watts(block.samples, (block.idle_from + block.began) / 2, block.began)
        high = mean_watts(block.samples, middle, block.ended)
        risen = mean_watts(block.samples, block.began, middle)
        height += high - idle
        area += (high - risen) * (middle - block.began)
    return max(0.0, area / height) if height > 0 else 0.0


def mean_watts(samples: Samples, began: float, ended: float) -> float:
    """Mean power from ``began`` to ``ended``. Of an energy counter it is the slope by least
    squares, since counters move in steps that two readings alone would be at the mercy of."""
    inside = samples.between(began, ended)
    if inside.joules is None:
        return inside.energy(began, ended) / (ended - began)
    times = inside.times - inside.times.mean()
    return float(times @ inside.joules / (times @ times))


@dataclass(frozen=True, slots=True)
class _Figures:
    """One block: joules of a run, and idle watts at its middle."""

    marginal: float
    gross: float
    idle: float


def _figures(block: Block, settling: float, edge: float) -> _Figures:
    began, ended = block.began + settling, block.ended - edge
    watts = mean_watts(block.samples, began, ended)
    seconds = (ended - began) / block.runs(began, ended)
    stretches = (
        (block.idle_from + settling, block.began - edge),
        (block.ended + settling, block.idle_to - edge),
    )
    idle = np.interp(
        (began + ended) / 2,
        [sum(stretch) / 2 for stretch in stretches],
        [mean_watts(block.samples, *stretch) for stretch in stretches],
    )
    return _Figures((watts - float(idle)) * seconds, watts * seconds, float(idle))


def _segments(
    marginal: Floats, gross: Floats, batch: int, plan: BlockPlan, notes: list[str]
) -> list[SegmentJoules]:
    """The segments' joules from those of the exits, ``[rounds, exits]``."""
    means = marginal.mean(0)
    resamples = resampled_means(marginal, plan.seed)
    _check_spread(means, interval(resamples, plan.rounds), batch, plan)
    _check_order(means, interval(np.diff(resamples, axis=1), plan.rounds), batch, plan)
    measured = np.diff(means, prepend=0.0)
    fitted = np.diff(rising(means), prepend=0.0)
    whole = np.diff(rising(gross.mean(0)), prepend=0.0)
    low, high = interval(np.diff(rising(resamples), axis=1, prepend=0.0), plan.rounds)
    ends = interval(np.diff(resamples, axis=1, prepend=0.0), plan.rounds)
    reach = (ends[1] - ends[0]) / 2  # levelling narrows intervals, and knows no more than before
    low = np.minimum(low, np.maximum(fitted - reach, 0.0))
    high = np.maximum(high, fitted + reach)
    for segment in np.flatnonzero(low <= 0).tolist():
        notes.append(
            f"segment {segment} at batch {batch} cannot be distinguished from nothing: measured "
            f"{1e3 * measured[segment]:.3g} mJ, used {1e3 * fitted[segment]:.3g} mJ, at most "
            f"{1e3 * high[segment]:.3g} mJ"
        )
    figures = np.stack([fitted, whole, low, high], axis=1).tolist()
    return [SegmentJoules(*joules) for joules in figures]


def _check_spread(means: Floats, ends: tuple[Floats, Floats], batch: int, plan: BlockPlan) -> None:
    reach = (ends[1] - ends[0]) / 2
    exit = int(np.argmax(reach - plan.spread * means))
    joules, give = float(means[exit]), float(reach[exit])
    if joules <= 0 or give > plan.spread * joules:
        raise ProfileError(
            f"{Chain(batch, exit)} needs {1e3 * joules:.3g} mJ ± {1e3 * give:.2g} mJ, but at most "
            f"{plan.spread:.0%} is accepted. Stop what else runs here, or measure more blocks or "
            "longer ones"
        )


def _check_order(means: Floats, ends: tuple[Floats, Floats], batch: int, plan: BlockPlan) -> None:
    for exit, most in enumerate(ends[1].tolist(), start=1):
        less = means[exit - 1] - means[exit]
        if most < 0 and less > plan.spread * means[exit - 1]:
            raise ProfileError(
                f"{Chain(batch, exit)} needs {1e3 * less:.3g} mJ less than exit {exit - 1}, which "
                "is a part of it. Noise does not explain this: something else drew power. Stop "
                "what else runs here and try again"
            )
