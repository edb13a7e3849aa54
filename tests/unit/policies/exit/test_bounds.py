from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.plan import GO_ON, Decision, ExitView
from policies.exit.bounds import BoundsPolicy

MakeView = Callable[..., ExitView]
END = {"next_exit": None, "time_to_next": 0.0}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({}, None),
        ({"threshold": 0.6}, None),
        ({"threshold": 0.5}, "confident"),
        ({"threshold": 0.4}, "confident"),
        ({"threshold": 0.4, "max_latency": 0.001}, "confident"),
        ({**END, "last": 1}, "planned_exit"),
        ({**END, "last": 1, "threshold": 0.4}, "planned_exit"),
        ({**END, "exit": 3}, "final"),
        ({**END, "exit": 3, "threshold": 0.4}, "final"),
        ({**END, "exit": 3, "max_latency": 0.001}, "final"),
        ({"max_latency": 0.019}, "latency"),
        ({"max_latency": 0.001}, "latency"),
        ({"max_latency": 0.030}, None),
        ({"max_energy": 0.149}, "energy"),
        ({"max_energy": 0.15}, None),
        ({"max_energy": 1.0, "energy_at_next": None}, "energy"),
        ({"energy": None, "energy_at_next": None}, None),
        ({"max_latency": 0.019, "max_energy": 0.1}, "latency"),
        ({"min_accuracy": 0.99}, None),
    ],
)
def test_every_reason(make_view: MakeView, seen: dict[str, Any], reason: str | None) -> None:
    decision = BoundsPolicy().decide(make_view(**seen))
    assert decision.reason == reason
    assert decision.stop == (reason is not None)


@given(
    elapsed=st.floats(0, 0.1),
    to_next=st.floats(0, 0.1),
    latency=st.floats(0.001, 0.1),
    energy=st.floats(0.001, 1),
    at_next=st.none() | st.floats(0, 1),
    confidence=st.floats(0, 1),
    threshold=st.none() | st.floats(0, 1),
)
def test_it_goes_on_just_where_no_cap_would_break(
    make_view: MakeView,
    elapsed: float,
    to_next: float,
    latency: float,
    energy: float,
    at_next: float | None,
    confidence: float,
    threshold: float | None,
) -> None:
    view = make_view(
        elapsed=elapsed,
        time_to_next=to_next,
        max_latency=latency,
        max_energy=energy,
        energy_at_next=at_next,
        confidence=confidence,
        threshold=threshold,
    )
    is_sure = threshold is not None and confidence >= threshold
    is_late = elapsed + to_next > latency
    is_dear = at_next is None or at_next > energy
    reason = "confident" if is_sure else "latency" if is_late else "energy" if is_dear else None
    assert BoundsPolicy().decide(view) == (GO_ON if reason is None else Decision(reason))


def test_the_entry_point_makes_what_decides_by_bounds(make_view: MakeView) -> None:
    (found,) = entry_points(group="delen.exit_policies", name="bounds")
    policy = found.load()(5)
    assert policy.by_threshold
    assert policy.decide(make_view()) == GO_ON
    assert policy.decide(make_view(max_latency=0.001)).reason == "latency"
