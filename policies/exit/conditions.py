"""Dělen's exit conditions (Liang et al., IoTDI 2023), read from its own condition files.

A file is a list with one condition an exit: ``{"metric", "op", "threshold"}``, or a compound
``{"op": "and" | "or", "conditions": [...]}``. A job stops at an exit whose condition is true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from delen.core.plan import Decision, ExitView
from delen.core.strict_reader import Fields
from delen.errors import InvalidInput
from policies.exit.bounds import BY_POLICY, stop_at_end_or_cap

_GIGA = 1e9

METRICS: dict[str, Callable[[ExitView], float | None]] = {
    "response_time": lambda view: view.elapsed,
    "confidence": lambda view: view.confidence,
    "accuracy": lambda view: view.accuracy,
    "energy": lambda view: None if view.energy is None else 1e3 * view.energy,
    "computation": lambda view: view.macs / _GIGA,
    "exit": lambda view: view.exit,
}
"""In the units of Dělen's files: seconds, fractions, millijoules, giga multiply-adds."""

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "less": operator.lt,
    "less_eq": operator.le,
    "equal": operator.eq,
    "greater": operator.gt,
    "greater_eq": operator.ge,
    "null": lambda value, threshold: False,
}

CONNECTIVES: dict[str, Callable[[list[bool]], bool]] = {"and": all, "or": any}


class Condition(Protocol):
    def holds(self, view: ExitView) -> bool: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric against a threshold; false if the metric is unknown here (energy)."""

    metric: str
    op: str
    threshold: float

    def holds(self, view: ExitView) -> bool:
        value = METRICS[self.metric](view)
        return value is not None and COMPARISONS[self.op](value, self.threshold)


@dataclass(frozen=True, slots=True)
class Compound:
    """Several conditions joined by ``and`` or ``or``."""

    op: str
    conditions: tuple[Condition, ...]

    def holds(self, view: ExitView) -> bool:
        return CONNECTIVES[self.op]([condition.holds(view) for condition in self.conditions])


def parse_conditions(document: object, exits: int) -> tuple[Condition, ...]:
    """Conditions for a network of ``exits`` exits; InvalidInput names the one that is wrong.

    The last exit always ends a job, so its condition may be left out.
    """
    if not isinstance(document, list):
        raise InvalidInput("a condition file must be a list with one condition an exit")
    if len(document) not in (exits - 1, exits):
        raise InvalidInput(
            f"{len(document)} conditions do not fit a network of {exits} exits: give one an exit "
            "(the last may be left out)"
        )
    return tuple(
        _parse_condition(Fields(item, f"condition {index}", InvalidInput))
        for index, item in enumerate(document)
    )


def _parse_condition(fields: Fields) -> Condition:
    op = fields.text("op")
    if op in CONNECTIVES:
        parts = tuple(_parse_condition(part) for part in fields.children("conditions"))
        fields.finish()
        if not parts:
            raise InvalidInput(f"a compound condition {op!r} needs at least one condition")
        return Compound(op, parts)
    if op not in COMPARISONS:
        known = ", ".join([*COMPARISONS, *CONNECTIVES])
        raise InvalidInput(f"condition op {op!r} must be one of {known}")
    metric, threshold = fields.text("metric"), fields.number("threshold")
    fields.finish()
    if metric not in METRICS:
        raise InvalidInput(f"condition metric {metric!r} must be one of {', '.join(METRICS)}")
    return Comparison(metric, op, threshold)


class ConditionsPolicy:
    """Stops where the exit's condition holds, and like the default where the plan or a cap ends it.

    A job for which no condition holds ends with the answer of its last exit.
    """

    by_threshold = False

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = tuple(conditions)

    def decide(self, view: ExitView) -> Decision:
        is_last = view.exit == view.exits - 1
        if not is_last and self._conditions[view.exit].holds(view):
            return BY_POLICY
        return stop_at_end_or_cap(view)


def conditions_policy(exits: int, conditions: object) -> ConditionsPolicy:
    """The entry point ``conditions``: ``conditions`` is the parsed JSON of a condition file."""
    return ConditionsPolicy(parse_conditions(conditions, exits))
