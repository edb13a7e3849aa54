"""What is known of weights: whether they saw the data that a bundle is calibrated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="weights need torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.data.dataset import Dataset, Labelled  # noqa: E402
from multiexit_models.data.trained_on import TrainedOn  # noqa: E402
from multiexit_models.spec import BuildSpec  # noqa: E402
from multiexit_models.train.held_out import held_out, refuse_overlap  # noqa: E402
from multiexit_models.train.weights import (  # noqa: E402
    StoredWeights,
    WeightsOrigin,
    digest,
    load_weights,
    read_weights,
    save_weights,
)
from tests.multiexit_models.tiny import INPUT, two_exits  # noqa: E402

OWN = {"backbone": "net.py:make", "exits": 2, "size": "8x8"}


def dataset(order: int = 0, own_calibration: bool = False) -> Dataset:
    """40 images of two classes, 10 a part."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    chosen = np.random.default_rng(order).permutation(40).reshape(4, 10)
    training, validation, calibration, test = (
        Labelled(inputs[rows], np.arange(10) % 2) for rows in chosen
    )
    return Dataset(
        "noise",
        INPUT,
        ("a", "b"),
        training,
        validation,
        calibration,
        test,
        own_calibration=own_calibration,
    )


def spec(**options: Any) -> BuildSpec:
    return BuildSpec(data=Path("photos"), output=Path("bundle"), **options)


def stored(file: Path, is_all: bool = True, group_by: str | None = None) -> StoredWeights:
    """Weights that were trained on ``dataset()``, from their file."""
    network = two_exits()
    trained_on = TrainedOn.training_part(dataset(), 3, group_by, is_all)
    save_weights(network, WeightsOrigin({}, "2.9", digest(network), trained_on), file)
    return read_weights(file)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "known"),
        ({"network": "resnet18", "pretrained": True}, "unknown"),
        ({"network": "resnet18", "pretrained": True, "unseen_calibration": True}, "declared"),
        (OWN, "unknown"),
        ({**OWN, "unseen_calibration": True}, "declared"),
    ],
)
def test_only_what_begins_as_random_weights_is_known(
    options: dict[str, Any], expected: str
) -> None:
    assert held_out(spec(**options), dataset(), None) == expected
    with_calibration = dataset(own_calibration=True)
    is_known = expected == "known"
    assert held_out(spec(**options), with_calibration, None) == (
        "known" if is_known else "declared"
    )


def test_weights_say_what_they_were_trained_on(tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.pt", group_by="track")
    seen = weights.trained_on
    assert seen is not None
    assert (seen.seed, seen.group_by, seen.is_all) == (3, "track", True)
    assert seen.samples.tolist() == sorted(dataset().training.hashes.tolist())
    assert held_out(spec(weights=weights.file), dataset(), weights) == "known"
    origin = load_weights(two_exits(), weights)
    assert origin.trained_on is seen


def test_weights_that_began_as_others_stay_unknown(tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.pt", is_all=False)
    given = spec(weights=weights.file)
    assert held_out(given, dataset(), weights) == "unknown"
    assert held_out(replace(given, unseen_calibration=True), dataset(), weights) == "declared"
    assert held_out(given, dataset(own_calibration=True), weights) == "declared"


def test_weights_without_a_digest_are_unknown(tmp_path: Path) -> None:
    torch.save({"weights": two_exits().state_dict(), "recipe": {"seed": 0}}, tmp_path / "old.pt")
    torch.save(two_exits().state_dict(), tmp_path / "plain.pt")
    for name in ("old.pt", "plain.pt"):
        weights = read_weights(tmp_path / name)
        assert weights.has_exits
        assert held_out(spec(weights=weights.file), dataset(), weights) == "unknown"


@pytest.mark.parametrize("options", [{}, {"unseen_calibration": True}])
def test_an_overlap_is_refused_whatever_is_declared(tmp_path: Path, options: Any) -> None:
    weights = stored(tmp_path / "w.pt", group_by=r"track\d")
    other = dataset(order=1, own_calibration=True)
    trained = set(dataset().training.hashes.tolist())
    count = len(trained & {*other.calibration.hashes.tolist(), *other.test.hashes.tolist()})
    with pytest.raises(InvalidInput) as refused:
        held_out(spec(weights=weights.file, **options), other, weights)
    assert refused.value.field == "weights"
    assert f"on {count} of the 20 samples for calibration and test" in str(refused.value)
    assert "--seed 3 --group-by" in str(refused.value)
    with pytest.raises(InvalidInput, match="remove it") as refused:
        refuse_overlap(weights, other, is_checkpoint=True)
    assert refused.value.field == "checkpoint"
