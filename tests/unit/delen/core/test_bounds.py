from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.bounds import Bounds, Options
from delen.errors import InvalidInput

CAPS = ("max_latency", "max_energy")
NAMES = (*CAPS, "min_accuracy")
NO_NUMBERS = (True, False, "0.5", b"1", [0.5], {}, Ellipsis, 1j, np.bool_(True), np.array([0.5]))


def refusal(make: type, **given: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        make(**given)
    (name,) = given
    assert caught.value.field == name
    assert name in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    refusal(Bounds, **{name: value})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400])
def test_what_is_not_finite_is_refused(name: str, value: object) -> None:
    assert "finite" in str(refusal(Bounds, **{name: value}))


@pytest.mark.parametrize("name", CAPS)
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1e-9, -3])
def test_a_cap_is_above_0(name: str, value: float) -> None:
    assert "above 0" in str(refusal(Bounds, **{name: value}))


@pytest.mark.parametrize("value", [-0.1, -1, 100.5, 1000])
def test_a_floor_is_a_fraction(value: float) -> None:
    assert "from 0 to 1" in str(refusal(Bounds, min_accuracy=value))


def test_a_percentage_is_answered_with_the_fraction() -> None:
    assert "write 0.9 for 90 %" in str(refusal(Bounds, min_accuracy=90))
    assert "write 0.875 for 87.5 %" in str(refusal(Bounds, min_accuracy=87.5))


@pytest.mark.parametrize("value", [1.0000001, 1.05, 1.5])
def test_what_is_hardly_above_1_is_taken_for_no_percentage(value: float) -> None:
    told = str(refusal(Bounds, min_accuracy=value))
    assert repr(value) in told and "from 0 to 1" in told and "%" not in told


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.float64(0.5), np.float16(0.5), Fraction(1, 2)]
)
def test_any_real_number_is_taken_and_kept_as_a_float(value: Any) -> None:
    bounds = Bounds(max_latency=value, min_accuracy=value, max_energy=value)
    assert bounds == Bounds(max_latency=0.5, min_accuracy=0.5, max_energy=0.5)
    assert all(type(getattr(bounds, name)) is float for name in NAMES)


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1)])
def test_whole_numbers_are_taken(value: Any) -> None:
    assert Bounds(max_latency=value, min_accuracy=value, max_energy=value) == Bounds(
        max_latency=1.0, min_accuracy=1.0, max_energy=1.0
    )


@given(
    st.one_of(st.none(), st.floats(1e-9, 1e9)),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(1e-9, 1e9)),
)
def test_good_bounds_are_kept_as_they_are(
    latency: float | None, floor: float | None, energy: float | None
) -> None:
    bounds = Bounds(max_latency=latency, min_accuracy=floor, max_energy=energy)
    assert (bounds.max_latency, bounds.min_accuracy, bounds.max_energy) == (latency, floor, energy)


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none(), st.binary()))
def test_a_bound_is_finite_and_in_its_range_or_refused(value: object) -> None:
    try:
        bounds = Bounds(max_latency=value, max_energy=value)  # type: ignore[arg-type]
    except InvalidInput as error:
        assert error.field == "max_latency"
    else:
        assert bounds.max_latency is None or 0 < bounds.max_latency < math.inf


def test_bounds_and_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bounds().max_latency = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().priority = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "given",
    [
        *(
            {name: value}
            for name in ("tenant", "stream")
            for value in ("", "a b", "ä", "x" * 65, 3)
        ),
        {"tenant": None},
        {"tenant": "-starts-with-a-dash"},
        {"tenant": "line\n"},
        *({"priority": value} for value in (0, 10, 5.0, "5", True)),
        *({"top_k": value} for value in (0, -1, 1.5, True, None)),
        *({"on_infeasible": value} for value in ("retry", None, [], 1)),
        *({"probabilities": value} for value in ("true", 1, None)),
    ],
    ids=str,
)
def test_wrong_options_are_refused_by_name(given: dict[str, Any]) -> None:
    refusal(Options, **given)


def test_good_options_are_taken() -> None:
    options = Options(
        tenant="camera/front", stream="s-1", priority=np.int64(9), top_k=5, probabilities=True
    )
    assert (options.priority, options.on_infeasible) == (9, "reject")
    assert Options(on_infeasible="best_effort", priority=1).stream is None
