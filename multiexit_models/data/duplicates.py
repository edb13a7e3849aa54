"""Whether calibration images are near-duplicates of training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from multiexit_models.data.dataset import Dataset
from multiexit_models.progress import Bar

MOST_BITS = 4
"""Two images are near-duplicates whose perceptual hashes differ in at most so many of 64 bits."""
LEAST_SHARE = 0.05
"""Below this share of the calibration images, near-duplicates are not worth a warning."""
COMPARED = 1000
"""So many calibration images are looked up: the share is then known to within 3 points."""
_AT_ONCE = 4096

OnImage = Callable[[int, int], None]


def note_groups(data: Dataset, bar: Bar) -> Dataset:
    """``data`` with what there is to note on its groups, which is said here too.

    Images without groups are searched for near-duplicates, where some of them train.
    """
    if data.input.image is not None and data.training.groups is None and len(data.training):
        bar.stage("looking for near-duplicates")
        share = near_duplicates(data, bar.sample)
        if share >= LEAST_SHARE:
            data = replace(data, notes=(*data.notes, _warning(share)))
    for note in data.notes:
        bar.note(note)
    return data


def near_duplicates(data: Dataset, on_image: OnImage | None = None) -> float:
    """The share of calibration images that have a near-duplicate among the training images.

    By the perceptual hash of Zauner ("Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010) as ImageHash computes it. The data must be of images.
    """
    sought = data.calibration.spread(COMPARED).inputs
    total = len(sought) + len(data.training)

    def signs(images: NDArray[np.uint8], before: int) -> NDArray[np.float32]:
        """The bits of each image's hash, as -1 and 1: ``[n, 64]``."""
        bits = np.empty((len(images), 64), np.float32)
        for row, image in enumerate(images):
            bits[row] = _hash(image)
            if on_image is not None:
                on_image(before + row + 1, total)
        return 2 * bits - 1

    wanted = signs(sought, 0)
    closest = np.full(len(sought), -64.0, np.float32)
    for start in range(0, len(data.training), _AT_ONCE):
        known = signs(data.training.inputs[start : start + _AT_ONCE], len(sought) + start)
        np.maximum(closest, (wanted @ known.T).max(axis=1), out=closest)
    return float(((64 - closest) / 2 <= MOST_BITS).mean())


def _hash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    import imagehash
    from PIL import Image

    bits: NDArray[np.bool_] = imagehash.phash(
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    ).hash
    return bits.reshape(-1)


def _warning(share: float) -> str:
    """What a ``share`` of near-duplicates means, and the way out."""
    return (
        f"{share:.0%} of the calibration images are near-duplicates of training images (perceptual "
        f"hashes that differ in at most {MOST_BITS} of 64 bits): the network has as good as seen "
        "them, and floors promise up to some points too much. Keep pictures of one object, scene "
        "or track in one part: put them into FOLDER/CLASS/GROUP/, or give --group-by REGEX that "
        "finds the same text in their names"
    )
