"""Labelled texts: CSV files, or one JSON file of pairs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delen.bundle.manifest import InputSpec, TextPreprocessing
from delen.bundle.texts import text_to_bytes
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.folders import shown
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import (
    PART_NAMES,
    TRAINING,
    Indices,
    complete,
)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_ENDING = ".json"
_PART_CHOICE = ", ".join(PART_NAMES)


@dataclass(frozen=True)
class _Item:
    """``part`` is None where the data name none; ``where`` is the file and line, for messages."""

    text: str
    label: str
    part: str | None
    where: str


def read_texts(path: Path, how: Reading) -> Dataset:
    """Labelled texts: a CSV file, a folder of them, or a JSON file, by the ending of ``path``.

    A text is its UTF-8 bytes, cut between characters or padded with zeros: uint8. The parts that
    the data do not have come out of training. The classes are the labels of the training texts.

    A CSV file has a line of column names; one that ends in .tsv has tabs in place of commas. The
    split column has train, val, calibration or test. A folder has train.csv, test.csv and the like.
    A JSON file is an object of parts, each a list of pairs ``[text, label]``, as CLINC150 (Larson
    et al., 2019) is published; keys of other names, as that set's texts out of scope, are left out.

    Raises InvalidInput naming file and line for a missing column, an empty text or label, bytes
    that are not UTF-8, a part of another name, or a label that training lacks.
    """
    items: list[_Item] = []
    if path.suffix == JSON_ENDING:
        items += _read_json(path)
    else:
        for file, part in _csv_files(path):
            items += _read_csv(file, part, how)
    return _dataset(path.resolve().stem, items, how)


def _read_json(path: Path) -> Iterator[_Item]:
    try:
        document = json.loads(_decoded(path))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{shown(path)} cannot be read as JSON: {error}", "data") from error
    if not isinstance(document, Mapping) or not any(key in PART_NAMES for key in document):
        raise InvalidInput(
            f"{shown(path)} must be an object with some of {_PART_CHOICE}, each a list of pairs "
            "[text, label]",
            "data",
        )
    for key, pairs in document.items():
        if key in PART_NAMES:
            yield from _read_pairs(pairs, PART_NAMES[key], f"{shown(path)}: {key}")


def _csv_files(path: Path) -> list[tuple[Path, str | None]]:
    """The files to read, each with its part, None for a file that is the whole set."""
    if not path.is_dir():
        return [(path, None)]
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in DELIMITERS and not file.name.startswith(".")
    )
    parts = [PART_NAMES.get(file.stem.lower()) for file in files]
    if not files or None in parts or len(set(parts)) < len(parts):
        found = ", ".join(shown(Path(file.name)) for file in files) or "none"
        raise InvalidInput(
            f"{shown(path)} must have CSV files named after parts, one a part ({_PART_CHOICE}), "
            f"not {found}",
            "data",
        )
    return list(zip(files, parts, strict=True))


def _decoded(file: Path) -> str:
    try:
        raw = file.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(f"{shown(file)} cannot be read: {reason}", "data") from error
    except UnicodeDecodeError as error:
        # Its positions are those after a byte order mark, where there is one.
        contents: bytes = error.object
        line = contents.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{shown(file)}, line {line}: the byte 0x{contents[error.start]:02x} is not UTF-8; "
            "save the file as UTF-8",
            "data",
        ) from error


def _read_csv(file: Path, part: str | None, how: Reading) -> Iterator[_Item]:
    text, label, split = how.text_column, how.label_column, how.split_column
    delimiter = DELIMITERS.get(file.suffix.lower(), ",")
    reader = csv.reader(io.StringIO(_decoded(file), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{shown(file)}, line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InvalidInput(f"{where}: {error}", "data") from error
        if header is None:
            header = _check_header(row, where, [text, label, *([split] if split else [])])
        elif row:
            if len(row) != len(header):
                raise InvalidInput(
                    f"{where}: {len(row)} fields where the columns are {len(header)}", "data"
                )
            fields = dict(zip(header, row, strict=True))
            own = part if split is None else _part(fields[split], where)
            yield _checked(_Item(fields[text], fields[label], own, where))
    if header is None:
        raise InvalidInput(f"{shown(file)} is empty", "data")


def _check_header(header: list[str], where: str, wanted: list[str]) -> list[str]:
    for column in wanted:
        if header.count(column) != 1:
            found = "two columns" if column in header else "no column"
            raise InvalidInput(
                f"{where}: {found} named {column!r}; the columns are {', '.join(header)}", "column"
            )
    return header


def _part(value: str, where: str) -> str:
    try:
        return PART_NAMES[value.strip().lower()]
    except KeyError:
        raise InvalidInput(
            f"{where}: {value!r} does not name a part; parts are {_PART_CHOICE}", "data"
        ) from None


def _read_pairs(pairs: Any, part: str, where: str) -> Iterator[_Item]:
    if not isinstance(pairs, list):
        raise InvalidInput(f"{where} must be a list of pairs [text, label]", "data")
    for number, pair in enumerate(pairs, 1):
        here = f"{where}, item {number}"
        match pair:
            case [str(text), str(label)]:
                yield _checked(_Item(text, label, part, here))
            case _:
                raise InvalidInput(f"{here} must be a pair [text, label] of strings", "data")


def _checked(item: _Item) -> _Item:
    for name, value in (("text", item.text), ("label", item.label)):
        if not value.strip():
            raise InvalidInput(f"{item.where}: the {name} is empty", "data")
    return item


def _dataset(name: str, items: list[_Item], how: Reading) -> Dataset:
    length = how.shape[0]
    if length < 1:
        raise InvalidInput(f"the length of a text must be above 0 bytes, not {length}", "shape")
    given = _given(items)
    classes = tuple(sorted({items[index].label for index in given[TRAINING]}))
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.empty(len(items), np.int64)
    for index, item in enumerate(items):
        if item.label not in numbers:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise InvalidInput(
                f"{item.where}: the label {item.label!r} is not one of the {len(classes)} classes "
                f"of the training texts: {known}",
                "data",
            )
        labels[index] = numbers[item.label]
    parts = complete(given, labels, classes, how.seed)
    inputs = np.stack([_bytes(item, length) for item in items])
    labelled = {part: Labelled(inputs[indices], labels[indices]) for part, indices in parts.items()}
    return Dataset(
        name,
        InputSpec("uint8", (length,), text=TextPreprocessing("utf-8")),
        classes,
        training=labelled["training"],
        validation=labelled["validation"],
        calibration=labelled["calibration"],
        test=labelled["test"],
        names={part: [items[index].where for index in parts[part]] for part in parts},
        own_calibration="calibration" in given,
    )


def _given(items: list[_Item]) -> dict[str, Indices]:
    """The parts that the data have, training among them. Items without a part are for training."""
    found: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        found.setdefault(item.part or TRAINING, []).append(index)
    if TRAINING not in found:
        raise InvalidInput("there are no texts to train on (train.csv, or the part train)", "data")
    return {part: np.array(indices, np.int64) for part, indices in found.items()}


def _bytes(item: _Item, length: int) -> Any:
    try:
        return text_to_bytes(item.text, length)
    except ValueError as error:
        raise InvalidInput(f"{item.where}: the text is not Unicode: {error}", "data") from error
