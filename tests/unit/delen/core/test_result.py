from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit.delen.answers import answer


def test_answers_can_be_compared_and_gathered_whatever_their_probabilities() -> None:
    first = replace(answer("a"), probabilities=np.array([0.75, 0.25], np.float32))
    same = replace(first, probabilities=np.array([0.75, 0.25], np.float32))
    assert first == same
    assert len({first, same, answer("b")}) == 2
