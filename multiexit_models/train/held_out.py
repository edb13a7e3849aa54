"""Whether the weights of a build never saw the data that it is calibrated on."""

from __future__ import annotations

from delen.core.guarantee import HeldOut
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.trained_on import MEASURED
from multiexit_models.spec import BuildSpec
from multiexit_models.train.weights import StoredWeights

NOT_KNOWN = (
    "it is not known whether these weights were trained on the calibration data, so the bundle "
    "guarantees no floor. Give calibration data of their own (a folder calibration/), or declare "
    "with --unseen-calibration that the weights never saw these"
)


def refuse_overlap(stored: StoredWeights, data: Dataset, is_checkpoint: bool = False) -> None:
    """InvalidInput where ``stored`` weights, perhaps of a checkpoint, were trained on samples that
    ``data`` have for calibration or test."""
    trained_on = stored.trained_on
    if trained_on is None or not (seen := trained_on.overlap(data)):
        return
    group_by = "" if trained_on.group_by is None else f" --group-by {trained_on.group_by!r}"
    total = sum(len(getattr(data, part)) for part in MEASURED)
    raise InvalidInput(
        f"the weights in {stored.file} were trained on {len(seen)} of the {total} samples for "
        f"{' and '.join(MEASURED)}, such as {seen[0]}: nothing measured on those holds. Split the "
        f"data as that training did, by --seed {trained_on.seed}{group_by}, or give other data in "
        f"folders calibration/ and test/{', or remove it to start again' * is_checkpoint}",
        "checkpoint" if is_checkpoint else "weights",
    )


def held_out(spec: BuildSpec, data: Dataset, stored: StoredWeights | None) -> HeldOut:
    """Whether the weights that the build of ``spec`` starts with, ``stored`` ones or others, never
    saw the calibration part of ``data``. Refuses an overlap as ``refuse_overlap``.

    Known are weights that begin as random ones here, and those of which it is stored. A calibration
    part that the data came with is a declaration, as --unseen-calibration is.
    """
    if stored is None:
        is_known = spec.backbone is None and not spec.pretrained
    else:
        refuse_overlap(stored, data)
        seen = stored.trained_on
        is_known = seen is not None and seen.is_all and seen.is_comparable(data)
    if is_known:
        return "known"
    return "declared" if spec.unseen_calibration or data.own_calibration else "unknown"
