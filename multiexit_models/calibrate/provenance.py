"""What a bundle records of how good it is and of what made it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray

from multiexit_models.calibrate.calibrate import Labels, Logits, calibration_error, make_calibration
from multiexit_models.network import MultiExitNetwork, cumulative_macs, macs_per_stage


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The network's ``logits``, float32 ``[exits, n, classes]``, on data with ``labels [n]``."""

    logits: Logits
    labels: Labels

    def accuracy(self) -> list[float]:
        return [float(right) for right in (self.logits.argmax(2) == self.labels).mean(axis=1)]


def exit_provenance(
    network: MultiExitNetwork,
    sample: NDArray[Any],
    calibration: Evaluated,
    test: Evaluated | None,
    temperatures: Sequence[float],
) -> list[dict[str, Any]]:
    """Per exit the figures behind it, as JSON.

    ``macs_share`` and ``head_macs_share`` (of this exit's own head) are of all that a full run
    computes. Calibration errors are of the largest probability, which is what a probability
    should be right about whatever the criterion, before and after division by
    ``temperatures``. ``sample`` is one input, ``[1, ...]``.
    """
    logits, labels = calibration.logits, calibration.labels
    uncalibrated = make_calibration(logits, labels, [1.0] * len(temperatures))
    calibrated = make_calibration(logits, labels, temperatures)
    tensor = torch.from_numpy(sample)
    macs = cumulative_macs(network, tensor)
    _, head_macs = macs_per_stage(network, tensor)
    test_accuracies = None if test is None else test.accuracy()
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
                "test_accuracy": None if test_accuracies is None else test_accuracies[index],
                "temperature": temperature,
                "calibration_error_before": round(calibration_error(before, correct), 5),
                "calibration_error_after": round(calibration_error(after, correct), 5),
            }
        )
    return figures


PACKAGES = (
    "torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy",
)  # fmt: skip


def software() -> dict[str, str]:
    """Versions of all that took part: of the packages imported by now."""
    taking_part = {name: version(name) for name in PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **taking_part}
