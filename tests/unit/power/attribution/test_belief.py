from __future__ import annotations

from copy import deepcopy
from math import inf

import numpy as np
import pytest

from power.attribution.belief import Belief, Segment

A, B, C = Segment("m", 0), Segment("m", 1), Segment("m", 2)
TRUE = {A: 1.4, B: 0.7}


def taught(
    belief: Belief,
    readings: int,
    mix: tuple[float, float] | None = None,
    extra: float = 0.0,
    seed: int = 0,
) -> Belief:
    """``belief`` after readings of 3 W, what A and B take, and ``extra`` W more; A and B show
    2 W on average each, or always ``mix``."""
    rng = np.random.default_rng(seed)
    for segment in TRUE:
        belief.meet(segment, 1.0)
    shown = rng.uniform(0, 4, (readings, 2)) if mix is None else np.tile(mix, (readings, 1))
    watts = 3 + extra + shown @ list(TRUE.values()) + rng.normal(0, 0.05, readings)
    belief.elapse(readings / 20, (A, B))
    belief.learn((A, B), watts, shown, np.zeros(readings))
    return belief


def test_at_first_predictions_are_believed() -> None:
    assert Belief().factor(A) == 1
    assert Belief(4.0).static[0] == 4


def test_a_mix_that_varies_tells_segments_apart() -> None:
    belief = taught(Belief(), 200)
    assert belief.factor(A) == pytest.approx(1.4, rel=0.03)
    assert belief.factor(B) == pytest.approx(0.7, rel=0.03)
    assert belief.static[0] == pytest.approx(3, abs=0.1)
    assert belief.relative_sd({A: 1.0, B: 1.0}) < 0.03


def test_a_mix_that_stays_moves_the_common_factor() -> None:
    belief = taught(Belief(3.0), 400, mix=(3.0, 1.0))
    total = 3 * belief.factor(A) + belief.factor(B)
    assert total == pytest.approx(3 * 1.4 + 0.7, rel=0.1)
    assert belief.factor(A) > 1
    assert belief.factor(B) > 0.9


def test_a_segment_never_seen_has_its_models_common_factor() -> None:
    belief = taught(Belief(), 200)
    assert belief.factor(C) == pytest.approx((1.4 + 0.7) / 2, rel=0.25)
    assert belief.factor(Segment("other", 0)) == 1
    assert belief.relative_sd({C: 1.0}) == inf


def test_what_one_segment_taught_is_expected_of_the_next() -> None:
    belief = taught(Belief(), 200)
    common = belief.factor(C)
    belief.meet(C, 1.0)
    assert belief.factor(C) == common


def test_a_burst_of_another_program_moves_the_static_power_and_no_factor() -> None:
    belief = taught(Belief(), 300)
    before = {segment: belief.factor(segment) for segment in TRUE}
    taught(belief, 100, extra=5.0, seed=1)
    assert belief.static[0] == pytest.approx(8, abs=0.3)
    for segment, factor in before.items():
        assert belief.factor(segment) == pytest.approx(factor, rel=0.03)
    taught(belief, 100, seed=2)
    assert belief.static[0] == pytest.approx(3, abs=0.3)


def test_one_implausible_reading_is_left_out() -> None:
    belief = taught(Belief(), 300)
    static = belief.static
    belief.learn((A, B), np.array([80.0]), np.array([[1.0, 1.0]]), np.zeros(1))
    assert belief.static == static


def test_readings_in_doubt_weigh_less() -> None:
    sure, unsure = taught(Belief(), 100), taught(Belief(), 100)
    for belief, doubt in ((sure, 0.0), (unsure, 5.0)):
        belief.elapse(1.0, (A, B))
        belief.learn((A, B), np.array([5.25]), np.array([[1.0, 1.0]]), np.array([doubt]))
    assert abs(sure.static[0] - 3) > abs(unsure.static[0] - 3)


def test_doubting_again_keeps_what_is_believed_and_lets_it_change_soon() -> None:
    belief = taught(Belief(), 300)
    kept = belief.factor(A)
    belief.widen()
    assert belief.factor(A) == kept
    assert belief.relative_sd({A: 1.0}) > 0.5


def test_a_model_that_is_forgotten_starts_afresh_and_others_stay() -> None:
    belief, other = taught(Belief(), 200), Segment("n", 0)
    belief.meet(other, 1.0)
    belief.learn((other,), np.array([9.0] * 20), np.full((20, 1), 3.0), np.zeros(20))
    kept = belief.factor(other)
    belief.forget("m")
    assert belief.factor(A) == 1
    assert belief.factor(other) == kept != 1
    assert belief.segments == (other,)


def test_a_copy_learns_on_its_own() -> None:
    belief = taught(Belief(), 50)
    static = belief.static
    taught(deepcopy(belief), 50, extra=1.0, seed=3)
    assert belief.static == static


def test_drift_never_makes_a_factor_less_known_than_at_first() -> None:
    belief = taught(Belief(), 200)
    for _ in range(50):
        belief.elapse(1e6, (A, B))
    assert belief.relative_sd({A: 1.0, B: 1.0}) < 1.5
