from __future__ import annotations

import numpy as np
import pytest

from policies.learnt import (
    Damaged,
    Learnt,
    Network,
    OutsideTraining,
    learnt_from_arrays,
    learnt_from_text,
    network_shapes,
)

SHAPES = network_shapes(2, 4, 3)
NAMES = ("load", "backlog")


def _learnt() -> Learnt:
    rng = np.random.default_rng(0)
    network = Network([rng.normal(size=shape) for shape in SHAPES], SHAPES)
    return Learnt(network, np.array([0.0, -1.0]), np.array([1.0, 1.0]))


def test_it_is_the_same_from_a_file_and_from_text() -> None:
    learnt, state = _learnt(), np.array([0.5, 0.0])
    for again in (
        learnt_from_arrays(learnt.to_arrays(), SHAPES),
        learnt_from_text(learnt.to_text(), SHAPES),
    ):
        assert again.values(state, NAMES) == pytest.approx(learnt.values(state, NAMES), abs=1e-5)
        assert again.high.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("state", "feature"),
    [((1.5, 0.0), "load"), ((0.5, -1.5), "backlog"), ((0.5, float("nan")), "backlog")],
)
def test_a_state_far_from_the_training_is_named(state: tuple[float, float], feature: str) -> None:
    with pytest.raises(OutsideTraining, match=f"{feature} is .*train-policy"):
        _learnt().values(np.array(state), NAMES)


def test_a_state_a_little_beyond_is_none() -> None:
    assert _learnt().values(np.array([1.05, 1.1]), NAMES).shape == (3,)


def test_what_is_no_network_is_said() -> None:
    arrays = _learnt().to_arrays()
    for wrong in (
        {},
        {**arrays, "low": arrays["low"][:1]},
        {**arrays, "weights0": arrays["weights1"]},
        {**arrays, "weights1": np.full(4, np.nan, "f4")},
        {**arrays, "high": np.array("none")},
    ):
        with pytest.raises(Damaged):
            learnt_from_arrays(wrong, SHAPES)
