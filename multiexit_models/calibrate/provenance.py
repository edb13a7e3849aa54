"""What a bundle records of how good it is and of what made it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from delen.bundle.calibration import Groups, group_weights
from multiexit_models.calibrate.criterion import make_calibration
from multiexit_models.calibrate.temperature import (
    Labels,
    Logits,
    calibration_error,
    calibration_error_interval,
)

PACKAGES = (
    "torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The network's ``logits``, float32 ``[exits, n, classes]``, on data with ``labels [n]``, and
    perhaps ``groups [n]``."""

    logits: Logits
    labels: Labels
    groups: Groups | None = None

    def accuracy(self) -> list[float]:
        """Each exit's accuracy; where there are groups, the mean of theirs."""
        weights = None if self.groups is None else group_weights(self.groups)
        right = self.logits.argmax(2) == self.labels
        return [float(accuracy) for accuracy in np.average(right, axis=1, weights=weights)]


def exit_provenance(
    macs: Sequence[int],
    head_macs: Sequence[int],
    calibration: Evaluated,
    test: Evaluated,
    temperatures: Sequence[float],
) -> list[dict[str, Any]]:
    """The figures of each exit, as JSON.

    ``macs`` are those of a run that ends at each exit, ``head_macs`` those of its own head; their
    shares are of all that a full run computes. Calibration errors are of the largest probability,
    whatever the criterion, before and after division by ``temperatures``, with the interval of
    the latter. They are held out: no temperature was fitted to the calibration part.
    """
    logits, labels = calibration.logits, calibration.labels
    uncalibrated = make_calibration(logits, labels, [1.0] * len(temperatures))
    calibrated = make_calibration(logits, labels, temperatures, groups=calibration.groups)
    test_accuracies = test.accuracy()
    figures = []
    for index, temperature in enumerate(temperatures):
        correct = calibrated.correct[:, index]
        before, after = uncalibrated.confidence[:, index], calibrated.confidence[:, index]
        figures.append(
            {
                "macs": macs[index],
                "macs_share": round(macs[index] / macs[-1], 4),
                "head_macs_share": round(head_macs[index] / macs[-1], 4),
                "calibration_accuracy": calibrated.accuracy(index),
                "test_accuracy": test_accuracies[index],
                "temperature": temperature,
                "calibration_error_before": round(calibration_error(before, correct), 5),
                "calibration_error_after": round(calibration_error(after, correct), 5),
                "calibration_error_interval": [
                    round(bound, 5)
                    for bound in calibration_error_interval(
                        after, correct, groups=calibration.groups
                    )
                ],
            }
        )
    return figures


def software() -> dict[str, str]:
    """Versions of Python and of the packages imported by now."""
    taking_part = {name: version(name) for name in PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **taking_part}
