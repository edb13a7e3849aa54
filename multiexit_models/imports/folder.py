"""Labels and images for an imported classifier, which was trained on other images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.folders import shown
from multiexit_models.data.images import read_image_folder
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PART_NAMES, PARTS
from multiexit_models.report import LEVEL
from policies.plan.thresholds import units_needed

LEAST_FLOOR = 0.5
"""A calibration part that cannot promise even this, without an error in it, says nothing."""
_USES = {
    "training": "train the early heads",
    "validation": "choose temperatures and criterion",
    "calibration": "make the calibration table",
    "test": "test",
}


def read_labels(file: Path) -> tuple[str, ...]:
    """The labels in ``file``, one a line, in the order of the classifier's outputs.

    Raises InvalidInput for a file that cannot be read or has no, empty or repeated labels.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}", "labels") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{file} is not UTF-8 text; save it with that encoding, one label a line", "labels"
        ) from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not lines:
        raise InvalidInput(f"{file} is empty; write one label a line", "labels")
    first: dict[str, int] = {}
    for number, label in enumerate(lines, 1):
        if not label:
            raise InvalidInput(f"{file} has no label in line {number}", "labels")
        if label in first:
            raise InvalidInput(
                f"{file} has {label!r} in lines {first[label]} and {number}; labels must differ",
                "labels",
            )
        first[label] = number
    return tuple(lines)


def check_classes(folder: Path, labels: tuple[str, ...]) -> None:
    """InvalidInput, before any image is read, where ``folder`` has classes that are not labels."""
    if not folder.is_dir():
        raise InvalidInput(
            f"{shown(folder)} is not a folder; give one with a folder of images a label",
            "calibration",
        )
    parts = _parts(folder, labels) or [folder]
    found = {entry.name for part in parts for entry in part.iterdir() if _is_shown_folder(entry)}
    if foreign := sorted(found - set(labels)):
        named = ", ".join(shown(Path(name)) for name in foreign[:5])
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise InvalidInput(
            f"{shown(folder)} has folders that are not labels: {named}{more}; the labels are "
            f"{', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}",
            "calibration",
        )


def _parts(folder: Path, labels: tuple[str, ...]) -> list[Path]:
    """The folders train, val, calibration and test, where ``folder`` is divided in them."""
    return [
        entry
        for entry in folder.iterdir()
        if _is_shown_folder(entry) and entry.name.lower() in PART_NAMES and entry.name not in labels
    ]


def _is_shown_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def read_images(folder: Path, labels: tuple[str, ...], how: Reading, has_heads: bool) -> Dataset:
    """The images of ``folder``, a folder a label, in four parts.

    Where no head is trained, and the folder is not divided already, its training part calibrates
    as well. That the classifier never saw these images is declared by giving them. Raises
    InvalidInput as ``read_image_folder``, or for too few images.
    """
    try:
        data = read_image_folder(folder, how)
    except InvalidInput as error:
        if error.field == "data":
            raise InvalidInput(str(error), "calibration") from error
        raise
    places = np.array([labels.index(name) for name in data.classes], np.int64)
    parts = {
        part: Labelled(values.inputs, places[values.labels], values.groups)
        for part in PARTS
        for values in [getattr(data, part)]
    }
    if not has_heads and not _parts(folder, labels):
        parts["calibration"] = _together(parts["training"], parts["calibration"])
        parts["training"] = parts["training"].take(np.arange(0))
    groups = parts["calibration"].group_count
    needed = units_needed(groups is not None, LEAST_FLOOR, LEVEL)
    count = len(parts["calibration"]) if groups is None else groups
    if count < needed:
        what = "images" if groups is None else "groups of images"
        raise InvalidInput(
            f"{shown(folder)} leaves {count} {what} for the calibration table: with fewer than "
            f"{needed} no accuracy can be promised; add images",
            "calibration",
        )
    training, validation, calibration, test = (parts[part] for part in PARTS)
    return replace(
        data,
        classes=labels,
        training=training,
        validation=validation,
        calibration=calibration,
        test=test,
        names={},
        held_out="declared",
    )


def _together(one: Labelled, other: Labelled) -> Labelled:
    groups = None
    if one.groups is not None and other.groups is not None:
        groups = np.concatenate([one.groups, other.groups])
    return Labelled(
        np.concatenate([one.inputs, other.inputs]),
        np.concatenate([one.labels, other.labels]),
        groups,
    )


def describe(data: Dataset) -> str:
    """How many images each part has, and how many labels have none."""
    said = ", ".join(
        f"{len(getattr(data, part))} {use}"
        for part, use in _USES.items()
        if len(getattr(data, part))
    )
    shown = np.concatenate([getattr(data, part).labels for part in PARTS])
    missing = len(data.classes) - len(np.unique(shown))
    absent = f"; {missing} of {len(data.classes)} labels have no images" if missing else ""
    return f"{len(shown)} images: {said}{absent}"
