"""Which windows are sent to a remote network, and what its answers do to history."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.client.fusion import Fusion, SendFilter, cosine, is_distribution
from policies.client.fusion_rules import Clownfish, FusionRule, Trust

Row = NDArray[np.float64]
CAT = np.array([0.7, 0.2, 0.1])
DOG = np.array([0.1, 0.8, 0.1])
SURE_DOG = np.array([0.0, 1.0, 0.0])


def sent(similarities: list[float], period: int = 4, threshold: float = 0.5) -> list[int]:
    """The windows that are sent of these similarities."""
    send = SendFilter(period, threshold)
    found = []
    for window, similarity in enumerate(similarities):
        is_due = send.due()
        if send.settled(similarity) or is_due:
            found.append(window)
    return found


def test_the_first_window_and_every_period_are_sent() -> None:
    assert sent([0.0] + [0.9] * 9) == [0, 4, 8]
    assert sent([0.0] * 10, period=3) == [0, 3, 6, 9]


def test_a_scene_that_settles_is_sent_and_begins_the_period_anew() -> None:
    assert sent([0.9, 0.9, 0.1, 0.8, 0.9, 0.9, 0.9, 0.9]) == [0, 3, 7]
    assert sent([0.9, 0.9, 0.4, 0.8, 0.9]) == [0, 4]


def fusion_of(rule: FusionRule, windows: list[Row], keep: int = 300) -> Fusion:
    fusion = Fusion(rule, keep)
    for window in windows:
        fusion.local(window, window)
    return fusion


@pytest.mark.parametrize("rule", [Clownfish(), Clownfish(0.5), Trust()])
def test_a_remote_answer_counts_and_a_late_one_rewrites_history(rule: FusionRule) -> None:
    fusion = fusion_of(rule, [CAT, CAT, CAT, CAT])
    assert [fusion.window(window).probabilities.argmax() for window in range(4)] == [0] * 4
    assert fusion.remote(1, SURE_DOG)
    believed = [fusion.window(window) for window in range(4)]
    assert [each.probabilities.argmax() for each in believed][:2] == [0, 1]
    assert [each.remote for each in believed] == [None, 1, 1, 1]
    trusts = [each.trust for each in believed]
    assert trusts[0] == 0
    assert trusts[1] >= trusts[2] >= trusts[3]
    assert all(each.probabilities.sum() == pytest.approx(1) for each in believed)


def test_the_published_rule_is_as_published() -> None:
    fusion = fusion_of(Clownfish(), [CAT, DOG])
    similarity = cosine(CAT, DOG)
    assert fusion.window(1).similarity == pytest.approx(similarity)
    assert fusion.window(1).probabilities == pytest.approx((CAT + DOG) / 2)
    fusion.remote(0, SURE_DOG)
    both = 0.33 * CAT + 0.67 * SURE_DOG
    assert fusion.window(0).probabilities == pytest.approx(both)
    assert fusion.window(0).trust == pytest.approx(both.max())
    smoothed = similarity * both + (1 - similarity) * DOG
    assert fusion.window(1).probabilities == pytest.approx(smoothed)
    assert fusion.window(1).trust == pytest.approx(both.max() * similarity)
    following = fusion.local(CAT, CAT)
    assert following.probabilities == pytest.approx((smoothed + CAT) / 2)


def test_a_fixed_weight_is_the_papers_baseline() -> None:
    fusion = fusion_of(Clownfish(0.25), [CAT, DOG])
    fusion.remote(0, SURE_DOG)
    before = fusion.window(0).probabilities
    assert fusion.window(1).probabilities == pytest.approx(0.25 * before + 0.75 * DOG)


def test_without_remote_answers_our_rule_is_the_local_network() -> None:
    fusion = fusion_of(Trust(), [CAT, DOG, CAT])
    for window, local in enumerate((CAT, DOG, CAT)):
        assert fusion.window(window).probabilities == pytest.approx(local)
        assert fusion.window(window).trust == 0


def test_our_rule_trusts_a_scene_that_stays_and_forgets_one_that_ends() -> None:
    fusion = fusion_of(Trust(), [CAT])
    fusion.remote(0, SURE_DOG)
    assert fusion.window(0).trust == 1
    stays = fusion.local(CAT, CAT)
    assert (stays.trust, stays.probabilities.argmax()) == (pytest.approx(1), 1)
    other = np.array([0.0, 0.1, 0.9])
    ends = fusion.local(other, other)
    assert ends.trust == 0
    assert ends.probabilities == pytest.approx(other)


def test_our_rule_learns_whom_to_believe() -> None:
    unsure = np.array([0.36, 0.34, 0.3])
    sure = np.array([0.02, 0.96, 0.02])
    weak, strong = Trust(), Trust()
    for _ in range(30):
        weak.learn(sure, unsure)
        strong.learn(unsure, sure)
    believed = strong.fuse(None, unsure, 0.0, sure).probabilities
    assert believed.argmax() == 1
    assert weak.fuse(None, sure, 0.0, unsure).probabilities == pytest.approx(sure, abs=0.01)


def test_a_window_that_is_forgotten_takes_no_answer() -> None:
    fusion = fusion_of(Trust(), [CAT, CAT, CAT], keep=2)
    assert not fusion.remote(0, SURE_DOG)
    assert not fusion.remote(3, SURE_DOG)
    assert fusion.remote(1, SURE_DOG)
    assert fusion.window(2).remote == 1
    with pytest.raises(IndexError, match="window 0"):
        fusion.window(0)


def test_answers_in_any_order_come_to_the_same() -> None:
    one, other = (fusion_of(Clownfish(), [CAT, DOG, CAT, DOG]) for _ in range(2))
    one.remote(1, SURE_DOG)
    one.remote(2, CAT)
    other.remote(2, CAT)
    other.remote(1, SURE_DOG)
    for window in range(4):
        assert one.window(window).probabilities == pytest.approx(other.window(window).probabilities)


def test_vectors_of_nothing_are_unlike_everything() -> None:
    assert cosine(np.zeros(3), CAT) == 0.0


@pytest.mark.parametrize(
    "values", [[0.5, 0.5], [0.5, 0.6, 0.1], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5], 1.0]
)
def test_what_is_no_distribution_is_noticed(values: list[float] | float) -> None:
    assert is_distribution(CAT, 3)
    assert not is_distribution(np.asarray(values, np.float64), 3)
