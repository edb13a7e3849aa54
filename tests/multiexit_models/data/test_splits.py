from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.errors import InvalidInput
from multiexit_models.data.splits import (
    PARTS,
    complete,
    groups_of,
    split_groups,
    split_stratified,
)

HELD_OUT = {"validation": 0.1, "calibration": 0.2, "test": 0.2}


def all_training(count: int) -> dict[str, np.ndarray]:
    return {"training": np.arange(count)}


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8).filter(lambda c: sum(c) >= 20),
    seed=st.integers(0, 2**32),
)
def test_a_stratified_split_is_whole_disjoint_and_in_proportion(
    counts: list[int], seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = split_stratified(labels, HELD_OUT, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
    for part, share in HELD_OUT.items():
        assert len(parts[part]) == round(share * len(labels))
        assert (np.diff(parts[part]) > 0).all()
    assert set(labels[parts["training"]]) == set(range(len(counts)))
    for label, count in enumerate(counts):
        for part, share in HELD_OUT.items():
            # Each class's first sample trains, which moves the borders by up to a sample a class.
            here = (labels[parts[part]] == label).sum()
            assert abs(here - share * count) <= 2 + len(counts) * count / len(labels)


def test_the_seed_alone_decides() -> None:
    labels = np.arange(100) % 4
    first, again = (split_stratified(labels, HELD_OUT, 5) for _ in range(2))
    other = split_stratified(labels, HELD_OUT, 6)
    assert all((first[part] == again[part]).all() for part in PARTS)
    assert (first["test"] != other["test"]).any()


def test_every_sample_is_as_likely_to_be_held_out() -> None:
    labels = np.repeat([0, 1], [40, 60])
    tested = np.zeros(100)
    for seed in range(400):
        tested[split_stratified(labels, HELD_OUT, seed)["test"]] += 1
    assert abs(tested / 400 - 0.2).max() < 0.09  # 4.5 standard errors


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InvalidInput, match="4 samples are too few: validation"):
        split_stratified(np.array([0, 0, 1, 1]), HELD_OUT, 0)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=4, max_size=12),
    seed=st.integers(0, 2**32),
)
def test_no_group_is_in_two_parts(sizes: list[int], seed: int) -> None:
    groups = np.repeat([f"speaker{number}" for number in range(len(sizes))], sizes).tolist()
    parts = split_groups(groups, HELD_OUT, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(groups)))
    owners = [{groups[index] for index in parts[part]} for part in PARTS]
    assert all(owners)
    assert sum(map(len, owners)) == len(sizes)


def test_groups_come_near_to_the_shares() -> None:
    groups = [f"track{number // 10}" for number in range(1000)]
    parts = split_groups(groups, HELD_OUT, 3)
    assert [len(parts[part]) for part in PARTS] == [500, 100, 200, 200]


def test_fewer_groups_than_parts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="3 groups are too few"):
        split_groups(["a", "b", "c", "c"], HELD_OUT, 0)


def test_given_parts_are_kept_and_only_the_missing_come_out_of_training() -> None:
    labels = np.arange(100) % 2
    given_parts = {"training": np.arange(60), "test": np.arange(60, 100)}
    parts = complete(given_parts, labels, ("a", "b"), 0)
    assert parts["test"].tolist() == list(range(60, 100))
    assert (len(parts["validation"]), len(parts["calibration"])) == (6, 9)
    together = np.concatenate([parts[part] for part in PARTS[:3]])
    assert sorted(together) == list(range(60))


def test_a_group_in_two_given_parts_is_refused() -> None:
    parts = {"training": np.arange(8), "test": np.arange(8, 10)}
    groups = ["anna", *"bcdefgh", "i", "anna"]
    with pytest.raises(InvalidInput, match="'anna' is in both training and test"):
        complete(parts, np.arange(10) % 2, ("a", "b"), 0, groups)


@pytest.mark.parametrize(
    ("classes", "match"),
    [(("a", "b", "c"), "class 'c' has no samples"), (("a",), "two classes or more")],
)
def test_a_class_without_training_samples_is_refused(classes: tuple[str, ...], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        complete(all_training(100), np.arange(100) % len(classes[:2]), classes, 0)


def test_an_empty_given_part_is_refused() -> None:
    parts = {**all_training(100), "test": np.arange(0)}
    with pytest.raises(InvalidInput, match="no samples are left for test"):
        complete(parts, np.arange(100) % 2, ("a", "b"), 0)


def test_groups_are_found_in_names() -> None:
    names = ["yes/0a7c_nohash_0.wav", "no/0a7c_nohash_1.wav", "no/ffd2_nohash_0.wav"]
    assert groups_of(names, r"([^/_]+)_nohash") == ["0a7c", "0a7c", "ffd2"]
    assert groups_of(names, r"^\w+") == ["yes", "no", "no"]
    with pytest.raises(InvalidInput, match="finds nothing in yes/0a7c"):
        groups_of(names, "speaker")
    with pytest.raises(InvalidInput, match="not a regular expression"):
        groups_of(names, "(")
