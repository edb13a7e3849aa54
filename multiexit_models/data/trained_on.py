"""Which samples weights were trained on, so that nothing is measured on them.

A sample is known by a 64-bit hash of its decoded input. So a file is recognised under another name,
in another folder or lossless format, and data that are not files (a CSV, CIFAR-10) are covered too,
for one pass over data that a training reads in every epoch and eight bytes a sample. An input of
another size or sample rate has another hash: its form is kept beside the hashes, and inputs of
different forms are not compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.splits import PARTS

MEASURED = ("calibration", "test")
"""The parts on which no weights may have been trained."""


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """What weights were trained on.

    ``samples`` are the ascending hashes of the training part, uint64 ``[n]``, of inputs of the form
    ``input``; ``split`` is the SHA-256 of the hashes of all parts, which ``seed`` and ``group_by``
    chose. ``is_all`` is false where the weights began as others, whose data are not known.
    """

    samples: NDArray[np.uint64]
    input: str
    split: str
    seed: int
    group_by: str | None
    is_all: bool

    @classmethod
    def training_part(
        cls, data: Dataset, seed: int, group_by: str | None, is_all: bool
    ) -> TrainedOn:
        """Of weights that are trained on the training part of ``data``."""
        return cls(
            np.unique(data.training.hashes), _form(data.input), _split(data), seed, group_by, is_all
        )

    def is_comparable(self, data: Dataset) -> bool:
        """Whether the samples of ``data`` would be recognised."""
        return self.input == _form(data.input)

    def overlap(self, data: Dataset) -> list[str]:
        """The samples of the measured parts of ``data`` that were trained on, by their names.

        None of the same data in the same split: what is twice in the data themselves was so when
        the weights were trained, too.
        """
        if not self.is_comparable(data) or self.split == _split(data):
            return []
        found = []
        for part in MEASURED:
            seen = np.flatnonzero(np.isin(getattr(data, part).hashes, self.samples))
            found += [data.sample_name(part, int(index)) for index in seen]
        return found


def _form(input: InputSpec) -> str:
    return json.dumps(input.to_json(), sort_keys=True)


def _split(data: Dataset) -> str:
    total = hashlib.sha256()
    for part in PARTS:
        hashes = np.sort(getattr(data, part).hashes)
        total.update(f"{part} {len(hashes)}".encode())
        total.update(hashes.tobytes())
    return total.hexdigest()
