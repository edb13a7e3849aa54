"""Publishes what has become of the power source, the power mode and the limits on energy."""

from __future__ import annotations

from collections.abc import Collection

from delen.core.energy_status import ConstraintStatus, ModeStatus
from delen.core.events import EventBus, EventName
from power.sources.sampler import SourceState


class EnergyChanges:
    """Compares each look with the one before, and publishes ``events``. What comes and goes between
    two looks is not reported."""

    def __init__(self, events: EventBus, source: str | None) -> None:
        self._events = events
        self._source = source or "none"
        self._last: dict[str, object] = {}
        self._bound: set[str] = set()

    def look(
        self,
        state: SourceState | None,
        mode: ModeStatus,
        constraints: Collection[ConstraintStatus],
    ) -> None:
        if state is not None and self._is_new("source", state.status, state.status):
            if state.status == "degraded":
                problem = state.problem or "there is no good reading"
                self._events.publish("source_degraded", source=self._source, problem=problem)
            else:
                self._events.publish("source_recovered", source=self._source)
        in_force = mode.name, mode.clocks, mode.jetson_clocks
        if self._is_new("mode", in_force, in_force):
            self._events.publish("mode_changed", mode=mode.name)
        if self._is_new("throttling", mode.throttling, ()):
            throttled = "; ".join(mode.throttling) or "nothing throttles the device any more"
            self._events.publish("throttling_changed", problem=throttled)
        bound = self._bound
        self._bound = {each.name for each in constraints if each.binding}
        for each in constraints:
            if (each.name in bound) != each.binding:
                name: EventName = "constraint_binds" if each.binding else "constraint_relaxed"
                self._events.publish(name, constraint=each.name, problem=each.explanation)
        for gone in sorted(bound - {each.name for each in constraints}):
            self._events.publish("constraint_relaxed", constraint=gone, problem="it was taken away")

    def _is_new(self, what: str, value: object, at_first: object) -> bool:
        """Whether ``what`` had another value at the last look, or ``at_first`` before any."""
        was = self._last.get(what, at_first)
        self._last[what] = value
        return was != value
