"""What serving costs from here on: the profile under today's slowdown, in seconds and joules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from delen.profile.energy_account import EnergyAccount
from delen.profile.interference import Interference
from delen.profile.profile import MEDIAN, Profile, SegmentCost
from delen.profile.slowdown import Slowdown


@dataclass(frozen=True, slots=True)
class _Sums:
    """Prefix sums over the segments at one batch size and what the host does beside each, in
    seconds; index k is before segment k."""

    median: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(slots=True, eq=False)
class _Joules:
    """Planned energies as one ``revision`` of the account has them: cumulative ones ``by_exit``,
    and those that were asked for, by first and last segment and batch size."""

    revision: int
    by_exit: tuple[float | None, ...]
    planned: dict[tuple[int, int, int], float | None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Tables:
    """One profile, as ``measured`` and as served, and account, with what was looked up in them so
    far. They are swapped as one, so that nobody mixes the figures of two power modes. ``spans`` are
    the seconds, at the median and at the quantile that is predicted, of what was asked for by first
    and last segment and batch size."""

    measured: Profile
    profile: Profile
    energy: EnergyAccount
    stale: str | None
    admit: float
    answer: float
    sums: dict[int, _Sums] = field(default_factory=dict)
    spans: dict[tuple[int, int, int], tuple[float, float]] = field(default_factory=dict)
    costs: dict[tuple[int, int], SegmentCost] = field(default_factory=dict)
    known_joules: _Joules | None = None

    def cost(self, segment: int, batch: int) -> SegmentCost:
        key = (segment, batch)
        cost = self.costs.get(key)
        if cost is None:
            cost = self.costs[key] = self.profile.cost(segment, batch)
        return cost

    def joules(self) -> _Joules:
        """The energies as the account has them now."""
        known, revision = self.known_joules, self.energy.revision
        if known is None or known.revision != revision:
            segments = range(len(self.profile.segments))
            by_exit = tuple(self.sum_energy(0, last, 1) for last in segments)
            known = self.known_joules = _Joules(revision, by_exit)
        return known

    def sum_energy(self, first: int, last: int, batch: int) -> float | None:
        total = 0.0
        for segment in range(first, last + 1):
            joules = self.energy.predict(self.cost(segment, batch))
            if joules is None:
                return None
            total += joules * self.energy.factor(segment) / batch
        return total


class CostModel:
    """Predicted latency and energy of segments, by what they take while requests come and go,
    where the profile knows it. Latencies are from when a batch is chosen to when its samples are
    judged, with what the host takes beside each. That is as slow as the segments are, which alone
    are learnt from.

    ``learn`` and ``relax`` move the slowdown that it predicts with, and ``dearness``, the same for
    joules: what batches took over what was said before they ran. The account corrects itself.
    Of the device's ``lanes`` others may be busy: ``run_beside`` says how many, and all latencies
    are those beside them.

    ``level`` is the quantile at which latencies are predicted, 0.5 to 0.99. Safe to be asked by
    many threads while one learns and another swaps the profile.
    """

    def __init__(
        self, profile: Profile, energy: EnergyAccount, level: float, lanes: int = 1
    ) -> None:
        self.level = level
        self.lanes = lanes
        self._believe(Slowdown())
        self.dearness = Slowdown()
        self.interference = Interference.of(profile.interference, lanes)
        self.slowdown_factor = 1.0
        """How many times longer what starts now takes than alone."""
        self.busy = 0
        """How many lanes are busy when something starts."""
        self._relaxed_at: float | None = None
        self._look_up(profile, energy, None)

    @property
    def energy(self) -> EnergyAccount:
        return self._tables.energy

    @property
    def measured(self) -> Profile:
        """``profile`` before it says what segments take while requests come and go."""
        return self._tables.measured

    @property
    def stale(self) -> str | None:
        """Why the profile is not that of the device as it is now, None while it is."""
        return self._tables.stale

    @property
    def segments(self) -> int:
        return len(self.profile.segments)

    def use(self, profile: Profile, energy: EnergyAccount, stale: str | None = None) -> None:
        """Predict by another profile from now on: the power mode is another one.

        ``stale`` says why the profile is not really that of the device, where it is not. The
        slowdown and what is known of lanes start afresh.
        """
        self._look_up(profile, energy, stale)
        self._believe(Slowdown())
        self.dearness = Slowdown()
        self._take_in(Interference.of(profile.interference, self.lanes))

    def run_beside(self, others: int) -> None:
        """What starts from now on runs while ``others`` lanes are busy."""
        self.busy = others
        self.slowdown_factor = self.interference.at(others)

    def learn(
        self,
        segment: int,
        batch: int,
        measured: float,
        joules: float | None = None,
        spent: Sequence[float] = (1.0,),
    ) -> None:
        """Take in that ``segment`` took ``measured`` seconds on a batch of this size, and so many
        ``joules`` by the account (before its own correction), if that knows. The parts
        ``spent[k]`` of its time, in any unit, passed while k other lanes were busy."""
        tables, total = self._tables, sum(spent)
        cost = tables.cost(segment, batch)
        usual = cost.latency.p50
        if total > spent[0]:
            alone = measured * self.interference.alone(spent) / total
            self._take_in(self.interference.after(spent, alone / (usual * self.slowdown.mean)))
            measured *= self.interference.alone(spent) / total
        self._believe(self.slowdown.after(measured, usual))
        said = None if joules is None else tables.energy.predict(cost)
        if joules is not None and said:
            self.dearness = self.dearness.after(joules, said)

    def relax(self, now: float) -> None:
        """Let what was learnt fade for the time since the last call; ``now`` in seconds."""
        if self._relaxed_at is not None:
            elapsed = max(0.0, now - self._relaxed_at)
            self._believe(self.slowdown.relaxed(elapsed))
            self.dearness = self.dearness.relaxed(elapsed)
            self._take_in(self.interference.relaxed(elapsed))
        self._relaxed_at = now

    def _look_up(self, profile: Profile, energy: EnergyAccount, stale: str | None) -> None:
        served = profile.as_served()
        admit, answer = served.host_costs.request, served.answer.at(self.level)
        self._tables = _Tables(profile, served, energy, stale, admit, answer)
        self.profile = served

    def _believe(self, slowdown: Slowdown) -> None:
        """Keep also what many ask of ``slowdown`` while it is believed: its mean and quantile."""
        self.slowdown = slowdown
        self._belief = slowdown.mean, slowdown.high(self.level)

    def _take_in(self, interference: Interference) -> None:
        if interference is not self.interference:
            self.interference = interference
            self.slowdown_factor = interference.at(self.busy)

    def latency(self, first: int, last: int, batch: int) -> float:
        """Seconds for segments ``first`` to ``last``, both included, at quantile ``level``.

        The larger of two bounds: the profile's own quantiles scaled by the mean slowdown (they
        know these segments), and the medians scaled by the slowdown's quantile (it knows today).
        The quantile of a sum is taken as the sum of quantiles, which is exact when slow moments
        last and errs to the safe side when they do not.
        """
        span = self._tables.spans.get((first, last, batch)) or self._span(first, last, batch)
        mean, highest = self._belief
        by_today, by_profile = span[0] * highest, span[1] * mean
        return self.slowdown_factor * (by_profile if by_profile > by_today else by_today)

    def latency_upper(self, first: int, last: int, batch: int) -> float:
        """As ``latency``, and until the answers are out."""
        tables = self._tables
        span = tables.spans.get((first, last, batch)) or self._span(first, last, batch)
        mean, highest = self._belief
        by_today, by_profile = span[0] * highest, span[1] * mean
        longer = by_profile if by_profile > by_today else by_today
        return self.slowdown_factor * longer + tables.answer

    def usual(self, first: int, last: int, batch: int) -> float:
        """As ``latency``, but without the spread of the slowdown: only its mean."""
        span = self._tables.spans.get((first, last, batch)) or self._span(first, last, batch)
        return span[1] * self._belief[0] * self.slowdown_factor

    def typical(self, first: int, last: int, batch: int) -> float:
        """Seconds for segments ``first`` to ``last`` at the median and the mean slowdown."""
        span = self._tables.spans.get((first, last, batch)) or self._span(first, last, batch)
        return span[0] * self._belief[0] * self.slowdown_factor

    def _span(self, first: int, last: int, batch: int) -> tuple[float, float]:
        tables = self._tables
        sums = tables.sums.get(batch) or self._sum(batch)
        median = sums.median[last + 1] - sums.median[first]
        high = sums.high[last + 1] - sums.high[first]
        span = tables.spans[first, last, batch] = median, high
        return span

    def _sum(self, batch: int) -> _Sums:
        tables = self._tables
        profile = tables.profile

        def sum_at(level: float) -> tuple[float, ...]:
            seconds = (profile.seconds(k, batch, level) for k in range(len(profile.segments)))
            return tuple(accumulate(seconds, initial=0.0))

        sums = tables.sums[batch] = _Sums(sum_at(MEDIAN), sum_at(self.level))
        return sums

    def admitting(self) -> float:
        """Seconds from a request's coming until it waits."""
        return self._tables.admit * self.slowdown.mean

    def answering(self) -> float:
        """Seconds from the last segment's end to the answer, at the quantile plans use."""
        return self._tables.answer

    def undisturbed(self, last: int, batch: int) -> float:
        """Seconds from the coming of requests to their answers from segment ``last``, in a batch of
        this size, as the profile has it, at quantile ``level``."""
        tables = self._tables
        span = tables.spans.get((0, last, batch)) or self._span(0, last, batch)
        return tables.admit + span[1] + tables.answer

    def cost(self, segment: int, batch: int) -> SegmentCost:
        """The profiled cost of ``segment`` at any batch size up to the largest profiled."""
        return self._tables.cost(segment, batch)

    def planned_energy(self, first: int, last: int, batch: int) -> float | None:
        """Joules of one sample of a batch in segments ``first`` to ``last``, as measurements have
        corrected them; None if unknown."""
        tables, key = self._tables, (first, last, batch)
        planned = tables.joules().planned
        try:
            return planned[key]
        except KeyError:
            joules = planned[key] = tables.sum_energy(first, last, batch)
            return joules

    def energy_at_most(self, first: int, last: int, batch: int) -> float | None:
        """Joules of one sample at quantile ``level`` of what batches have taken lately, alone or
        in a batch of this size, whichever is more; None if unknown."""
        most = self.planned_energy(first, last, 1)
        if batch > 1 and most is not None:
            together = self.planned_energy(first, last, batch)
            most = None if together is None else max(most, together)
        return None if most is None else most * self.dearness.high(self.level)

    def energies(self) -> tuple[float | None, ...]:
        """Cumulative joules of one sample alone at each exit."""
        return self._tables.joules().by_exit
