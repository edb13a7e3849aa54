"""The power of the moment, as the energy controller sees it."""

from __future__ import annotations

from delen.core.energy_status import SourceHealth
from policies.energy.constraint import PowerView
from power.attribution.attribution import Attributor
from power.sources.sampler import Sampler, SourceState


class PowerViewBuilder:
    """Reads a sampler (None: there is no source) each time from where it stopped the last time."""

    def __init__(self, sampler: Sampler | None, now: float) -> None:
        self._sampler = sampler
        self._seen = now
        self._joules = 0.0

    @property
    def is_measured(self) -> bool:
        return self._sampler is not None and self._sampler.source.kind == "measured"

    def state(self) -> SourceState | None:
        return None if self._sampler is None else self._sampler.state()

    def check(self) -> SourceHealth:
        """How the source is doing; a reading that is overdue is counted and logged."""
        return "none" if self._sampler is None else self._sampler.check().status

    def view(self, now: float, attributor: Attributor, headroom: float | None) -> PowerView:
        """Unknown while there are no good readings."""
        state = self.state()
        if self._sampler is None or state is None or state.status == "degraded":
            return PowerView(now, headroom=headroom)
        watts = None if state.reading is None else state.reading.total
        watts = self._mean(self._sampler, watts)
        static, lag = attributor.static_watts, attributor.time_constant
        beside, other = attributor.beside_watts, None
        if static is not None and beside is not None:
            other = beside - static
        if not self.is_measured:
            return PowerView(now, watts, None, None, self._joules, headroom, estimated=True)
        return PowerView(now, watts, static, other, self._joules, headroom, lag)

    def _mean(self, sampler: Sampler, latest: float | None) -> float | None:
        """Watts since the last call, which are added to the joules. Over a gap, and where there is
        nothing new, they are the ``latest`` reading."""
        began, ended = self._seen, sampler.covered()
        if ended is None or ended <= began:
            return latest
        self._seen = ended
        samples = sampler.window(began, ended)
        if samples is None:
            self._joules += (latest or 0.0) * (ended - began)
            return latest
        joules = samples.energy(began, ended)
        self._joules += joules
        return joules / (ended - began)
