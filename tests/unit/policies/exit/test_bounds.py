from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.plan import GO_ON, ExitView
from policies.exit.bounds import BoundsPolicy, bounds_policy

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
def test_it_never_goes_on_into_a_broken_cap(
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
    if BoundsPolicy().decide(view) == GO_ON:
        assert elapsed + to_next <= latency
        assert at_next is not None
        assert at_next <= energy
        assert threshold is None or confidence < threshold


def test_the_entry_point_makes_it() -> None:
    assert isinstance(bounds_policy(5), BoundsPolicy)
