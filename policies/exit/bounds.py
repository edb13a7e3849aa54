"""The default exit policy: stop when confident, where planned, or before a cap is exceeded."""

from __future__ import annotations

from typing import Protocol

from delen.core.plan import GO_ON, Decision, ExitView

CONFIDENT = Decision("confident")
PLANNED = Decision("planned_exit")
FINAL = Decision("final")
LATENCY = Decision("latency")
ENERGY = Decision("energy")
BY_POLICY = Decision("policy")


class ExitPolicy(Protocol):
    """Decides at each exit whether a job stops there.

    ``by_threshold`` is true if it stops by the plan's threshold, so that the accuracies and
    guarantees of plans hold. If not, they are unknown and floors are refused.
    """

    by_threshold: bool

    def decide(self, view: ExitView) -> Decision: ...


class BoundsPolicy:
    """The meaning of bounds (docs/bounds.md), decided ahead: a job goes on only if it will reach
    the next useful exit, and be answered from there, within every cap."""

    by_threshold = True

    def decide(self, view: ExitView) -> Decision:
        return decide_by_bounds(view)


def decide_by_bounds(view: ExitView) -> Decision:
    """Stop by the plan's threshold, where the plan ends, or before a cap is exceeded."""
    threshold = view.plan.threshold
    if threshold is not None and view.next_exit is not None and view.confidence >= threshold:
        return CONFIDENT
    return stop_at_end_or_cap(view)


def stop_at_end_or_cap(view: ExitView) -> Decision:
    """Stop where the plan ends, or if going on would exceed a cap of the request."""
    if view.next_exit is None:
        return FINAL if view.exit == view.exits - 1 else PLANNED
    max_latency, max_energy = view.bounds.max_latency, view.bounds.max_energy
    if max_latency is not None and view.elapsed + view.time_to_next > max_latency:
        return LATENCY
    if max_energy is not None and (view.energy_at_next is None or view.energy_at_next > max_energy):
        return ENERGY
    return GO_ON


def bounds_policy(exits: int) -> ExitPolicy:
    """The entry point ``bounds``; it has no options."""
    return BoundsPolicy()
