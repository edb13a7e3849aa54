"""What a replay sends: random inputs, or inputs from files, with labels if there are any."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from delen.errors import InvalidInput
from delen.replay.served import Served
from delen.sdk.inputs import EncodedInput, encode
from delen.simulate.trace import Trace

UNKNOWN = -1
"""The label of an input that has none."""

LABELS_FILE = "labels.csv"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".npy", ".wav", ".txt")
_RANDOM = 64
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Inputs of one model, encoded as they are sent, and the right class of each, or UNKNOWN."""

    kind: Literal["random", "files"]
    bodies: tuple[EncodedInput, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bodies)


def random_inputs(model: Served, seed: int) -> Inputs:
    """Random inputs without labels: bytes over all their range, other whole numbers from 0 to 127,
    which most vocabularies have, and normal floats."""
    rng, dtype = np.random.default_rng(seed), np.dtype(model.dtype)
    shape = (_RANDOM, *model.shape)
    if dtype.kind == "f":
        samples: NDArray[Any] = rng.normal(size=shape).astype(dtype)
    else:
        samples = rng.integers(256 if dtype == np.uint8 else 128, size=shape).astype(dtype)
    return Inputs("random", tuple(map(encode, samples)), np.full(_RANDOM, UNKNOWN, np.int64))


def read_inputs(path: Path, model: Served) -> Inputs:
    """The inputs in ``path``, which may be

    - an .npy array of one sample or of many;
    - an .npz file with the array ``inputs`` and, for labels, ``labels``;
    - a CSV file with the columns ``file``, relative to it, and ``label``, which may be empty;
    - a folder with such a file named labels.csv; or with a folder of files for each class; or of
      files without labels.

    A label is a class's name or its index. InvalidInput names the file that is wrong.
    """
    try:
        bodies, labels = _read(path, model)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", "inputs") from error
    if not bodies:
        raise InvalidInput(
            f"{path} holds no inputs; it may be a folder of {', '.join(_SUFFIXES)} files, such a "
            "file, an .npz file or a CSV file",
            "inputs",
        )
    return Inputs("files", tuple(bodies), np.array(labels, np.int64))


def _read(path: Path, model: Served) -> tuple[list[EncodedInput], list[int]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "inputs" not in arrays:
                raise InvalidInput(f"{path} has no array named inputs", "inputs")
            inputs = arrays["inputs"]
            given = arrays.get("labels")
        samples = _samples(inputs, model, path)
        if given is not None and given.shape != (len(samples),):
            raise InvalidInput(
                f"{path}: labels has shape {list(given.shape)}; there are {len(samples)} inputs",
                "inputs",
            )
        labels = [UNKNOWN] * len(samples) if given is None else given.tolist()
        return list(map(encode, samples)), [_label(label, model, path) for label in labels]
    if path.suffix == ".npy":
        samples = _samples(np.load(path, allow_pickle=False), model, path)
        return list(map(encode, samples)), [UNKNOWN] * len(samples)
    files = list(_listed(path, model))
    return _bodies((file for file, _ in files), model, path), [label for _, label in files]


def _listed(path: Path, model: Served) -> Iterator[tuple[Path, int]]:
    """Files and their labels."""
    if path.is_dir() and (path / LABELS_FILE).is_file():
        path = path / LABELS_FILE
    if path.suffix == ".csv":
        yield from _in_csv(path, model)
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_dir():
                label = _label(entry.name, model, entry)
                yield from ((file, label) for file in sorted(entry.iterdir()) if _is_input(file))
            elif _is_input(entry):
                yield entry, UNKNOWN
    else:
        yield path, UNKNOWN


def _in_csv(path: Path, model: Served) -> Iterator[tuple[Path, int]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        if "file" not in (rows.fieldnames or ()):
            raise InvalidInput(f"{path} has no column named file", "inputs")
        for row in rows:
            label = row.get("label") or UNKNOWN
            yield path.parent / row["file"], _label(label, model, path)


def _is_input(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in _SUFFIXES


def _bodies(files: Iterable[Path], model: Served, path: Path) -> list[EncodedInput]:
    bodies, size = [], 0
    for file in files:
        if file.suffix == ".npy" and len(_samples(np.load(file), model, file)) != 1:
            raise InvalidInput(f"{file} holds a batch; in a folder each holds one input", "inputs")
        body = encode(file)
        size += sum(map(len, body.pieces))
        if size > _MOST_BYTES:
            raise InvalidInput(f"{path} holds more than 1 GiB of inputs; give fewer", "inputs")
        bodies.append(body)
    return bodies


def _samples(array: NDArray[Any], model: Served, path: Path) -> NDArray[Any]:
    """``array`` as samples ``[n, ...]``; InvalidInput unless dtype and shape are the model's."""
    if array.dtype == np.dtype(model.dtype):
        if array.shape == model.shape:
            return array[None]
        if array.shape[1:] == model.shape and len(array):
            return array
    raise InvalidInput(
        f"{path} holds {array.dtype} {list(array.shape)}; {model.name} accepts {model.dtype} "
        f"{list(model.shape)}, or [n, ...] for many",
        "inputs",
    )


def _label(label: int | str, model: Served, path: Path) -> int:
    """The index of the class that ``label`` names."""
    if label == UNKNOWN:
        return UNKNOWN
    if isinstance(label, str) and model.labels is not None and label in model.labels:
        return model.labels.index(label)
    try:
        index = int(label)
    except ValueError:
        index = UNKNOWN
    if not 0 <= index < model.classes or index != float(label):
        names = "" if model.labels is None else f", or {', '.join(model.labels[:20])}"
        raise InvalidInput(
            f"{path}: {label!r} is not a class of {model.name}; they are 0 to {model.classes - 1}"
            f"{names}",
            "inputs",
        )
    return index


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The input of each request of a trace, by its index among its model's, and its label."""

    index: NDArray[np.int64]
    label: NDArray[np.int64]


def draw(trace: Trace, inputs: Mapping[str, Inputs], default: str, seed: int) -> Drawn:
    """Inputs in random order; none is sent again before all were."""
    index, label = np.zeros(len(trace), np.int64), np.full(len(trace), UNKNOWN, np.int64)
    names = np.array([arrival.model or default for arrival in trace])
    rng = np.random.default_rng(seed)
    for name, of_model in inputs.items():
        rows = np.flatnonzero(names == name)
        rounds = -(-len(rows) // len(of_model))
        order = np.concatenate([rng.permutation(len(of_model)) for _ in range(rounds)] or [rows])
        index[rows] = order[: len(rows)]
        label[rows] = of_model.labels[index[rows]]
    return Drawn(index, label)
