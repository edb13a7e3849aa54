from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("imagehash", reason="near-duplicates need ImageHash: delen[train]")

from delen.bundle.manifest import ImagePreprocessing, InputSpec
from multiexit_models.data import duplicates
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.duplicates import near_duplicates


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random pictures, uint8 [count, 32, 32, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3)).astype(np.float64)
    ramp = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    for axis in (1, 2):
        ramp = (ramp + np.roll(ramp, 1, axis) + np.roll(ramp, 2, axis)) / 3
    return ramp.astype(np.uint8)


def dataset(training: NDArray[np.uint8], calibration: NDArray[np.uint8]) -> Dataset:
    def part(images: NDArray[np.uint8]) -> Labelled:
        return Labelled(images, np.arange(len(images)) % 2)

    mode = "L" if training.shape[3] == 1 else "RGB"
    way = ImagePreprocessing(mode, "bilinear")
    spec = InputSpec("uint8", training.shape[1:], image=way)
    other = part(training[:2])
    return Dataset("d", spec, ("a", "b"), part(training), other, part(calibration), other)


def frames(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same pictures a little brighter and noisier, as the next frame has them."""
    noise = np.random.default_rng(9).normal(6, 3, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_share_of_calibration_images_that_training_nearly_has(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_AT_ONCE", 64)
    training, unseen = pictures(200, 0)[..., :channels], pictures(30, 1)[..., :channels]
    assert near_duplicates(dataset(training, unseen)) == 0
    mixed = np.concatenate([unseen, frames(training[50:60])])
    assert near_duplicates(dataset(training, mixed)) == pytest.approx(0.25, abs=0.03)
    assert near_duplicates(dataset(training, training[:7])) == 1


def test_progress_is_of_all_images_that_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "COMPARED", 10)
    seen: list[tuple[int, int]] = []
    near_duplicates(dataset(pictures(20, 0), pictures(30, 1)), lambda *done: seen.append(done))
    assert seen == [(number, 30) for number in range(1, 31)]
