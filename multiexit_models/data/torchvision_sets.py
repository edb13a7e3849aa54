"""The labelled image sets that torchvision reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import fit_image, plain_errors
from delen.bundle.manifest import ImagePreprocessing
from delen.errors import InvalidInput, MissingExtra
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.gather import Source, gather
from multiexit_models.data.images import image_input
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import Indices

_Parts = Mapping[str, Mapping[str, object]]
_BY_FLAG: _Parts = {"training": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: _Parts = {"training": {"split": "train"}, "test": {"split": "test"}}
_TRAIN_VAL_TEST: _Parts = {**_TRAIN_TEST, "validation": {"split": "val"}}
_WHOLE: _Parts = {"training": {}}


def _named_classes(dataset: Any) -> tuple[str, ...]:
    """The set's own class names; the first where a class has several."""
    names = getattr(dataset, "classes", None)
    if names is None:
        names = sorted(dataset.class_to_idx, key=dataset.class_to_idx.__getitem__)
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)


def _numbered(count: int) -> Callable[[Any], tuple[str, ...]]:
    return lambda dataset: tuple(map(str, range(count)))


def _traffic_tracks(dataset: Any) -> list[str]:
    """The track of each image: the 30 images of one sign are named CLASS/TRACK_FRAME.ppm."""
    paths = [Path(path) for path, _ in dataset._samples]
    return [f"{path.parent.name}/{path.name.split('_')[0]}" for path in paths]


@dataclass(frozen=True)
class _Set:
    """The arguments of the set's class for each part, and how its classes are found.

    ``groups`` names the group of each training image; a group stays in one part.
    """

    parts: _Parts
    classes: Callable[[Any], tuple[str, ...]] = _named_classes
    groups: Callable[[Any], list[str]] | None = None


SETS: Mapping[str, _Set] = {
    "CIFAR10": _Set(_BY_FLAG),
    "CIFAR100": _Set(_BY_FLAG),
    "Caltech101": _Set(_WHOLE, lambda dataset: tuple(dataset.categories)),
    "Country211": _Set({**_TRAIN_TEST, "validation": {"split": "valid"}}),
    "DTD": _Set(_TRAIN_VAL_TEST),
    "EuroSAT": _Set(_WHOLE),
    "FGVCAircraft": _Set(_TRAIN_VAL_TEST),
    "FashionMNIST": _Set(_BY_FLAG),
    "Flowers102": _Set(_TRAIN_VAL_TEST),
    "Food101": _Set(_TRAIN_TEST),
    "GTSRB": _Set(_TRAIN_TEST, _numbered(43), _traffic_tracks),
    "Imagenette": _Set({"training": {"split": "train"}, "test": {"split": "val"}}),
    "KMNIST": _Set(_BY_FLAG),
    "MNIST": _Set(_BY_FLAG),
    "OxfordIIITPet": _Set({"training": {"split": "trainval"}, "test": {"split": "test"}}),
    "RenderedSST2": _Set(_TRAIN_VAL_TEST),
    "STL10": _Set(_TRAIN_TEST),
    "SUN397": _Set(_WHOLE),
    "SVHN": _Set(_TRAIN_TEST, _numbered(10)),
    "StanfordCars": _Set(_TRAIN_TEST),
    "USPS": _Set(_BY_FLAG, _numbered(10)),
}


def read_torchvision(name: str, root: Path, how: Reading) -> Dataset:
    """The set ``name`` of torchvision.datasets (one of ``SETS``) below ``root``.

    The parts it is published in are kept and the others come out of its training images; the
    frames of one sign of GTSRB stay together. Images are fitted to the shape as the daemon does it.

    Raises InvalidInput for an unknown name or data that are not there; MissingExtra without
    torchvision, or scipy where the set needs it.
    """
    if name not in SETS:
        raise InvalidInput(f"no set {name!r}; known: {', '.join(SETS)}", "data")
    input, way = image_input(how.shape)
    form = SETS[name]
    datasets = {part: _open(name, root, arguments) for part, arguments in form.parts.items()}
    given: dict[str, Indices] = {}
    sources: list[Source] = []
    for part, dataset in datasets.items():
        given[part] = np.arange(len(sources), len(sources) + len(dataset), dtype=np.int64)
        for index, label in enumerate(_labels(dataset).tolist()):
            load = partial(_load, dataset, index, label, way, input.shape)
            sources.append(Source(f"{name} {part} {index}", "", label, load))
    groups = None
    if form.groups is not None:
        groups = [source.name for source in sources]  # images of other parts: a group each
        for index, group in zip(given["training"], form.groups(datasets["training"]), strict=True):
            groups[index] = group
    classes = form.classes(datasets["training"])
    return gather(name.lower(), sources, input, classes, given, groups, how)


def _open(name: str, root: Path, arguments: Mapping[str, object]) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtra("torchvision", "train") from error
    try:
        return getattr(datasets, name)(root, download=False, **arguments)
    except ImportError as error:
        raise MissingExtra(f"{error.name or error} (to read {name})", "train") from error
    except (OSError, RuntimeError, ValueError, LookupError, EOFError) as error:
        raise InvalidInput(
            f"{name} is not complete below {root} ({error}); put its files there, as "
            f"torchvision.datasets.{name}(root, download=True) does",
            "data",
        ) from error


def _labels(dataset: Any) -> Indices:
    """The label of each image, from a list that the set keeps, else by reading each image."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if (kept := getattr(dataset, attribute, None)) is not None and len(kept) == len(dataset):
            return np.asarray(kept).astype(np.int64)
    for attribute in ("_samples", "samples"):
        if (kept := getattr(dataset, attribute, None)) is not None and len(kept) == len(dataset):
            return np.array([label for _, label in kept], np.int64)
    return np.array([dataset[index][1] for index in range(len(dataset))], np.int64)


def _load(
    dataset: Any, index: int, label: int, way: ImagePreprocessing, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    with plain_errors():
        image, found = dataset[index]
        if int(found) != label:
            raise InvalidInput(f"image {index} has the label {found} but is listed as {label}")
        return fit_image(image, way, shape)
