"""Many files decoded into one array, part by part, on disk where memory is too small."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.core.atomic_file import atomic_file, write_atomically
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.reading import OnFile, Reading
from multiexit_models.data.splits import PARTS, TRAINING, Indices, check_classes, complete

ARRAY = "samples.npy"
INDEX = "samples.json"
_AT_ONCE = 128
_NAMED = 5


@dataclass(frozen=True)
class Source:
    """One sample that is still to be decoded.

    ``stamp`` changes when the file does. ``load`` returns the sample in the dtype and shape of the
    input and may run in any thread; it raises InvalidInput, ValueError or OSError with the reason
    where the file cannot be read.
    """

    name: str
    stamp: str
    label: int
    load: Callable[[], NDArray[Any]]


def stamp(file: Path) -> str:
    """Size and time of change of ``file``; ``absent`` where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def read_file(file: Path) -> bytes:
    """The contents of a plain file. Raises OSError or ValueError; a pipe would never end."""
    if file.exists() and not file.is_file():
        raise ValueError("it is not a plain file")
    return file.read_bytes()


def gather(
    name: str,
    sources: Sequence[Source],
    input: InputSpec,
    classes: tuple[str, ...],
    given: Mapping[str, Indices],
    groups: Sequence[str] | None,
    how: Reading,
    left_out: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set ``name`` of ``sources``, decoded; files that cannot be read are skipped.

    ``given`` are the parts that the data have, as indices into ``sources``, and ``groups`` the
    group of each source, which its sample keeps as a number: see ``splits.complete``. With a cache
    the array lies there and is mapped into memory; it is made again only when the files, their
    order or the input change. Raises InvalidInput where too many files cannot be read, naming the
    first, or where a class has none left to train on.
    """
    all_labels = np.array([source.label for source in sources], np.int64)
    parts = complete(given, all_labels, classes, how.seed, groups)
    order = np.concatenate([parts[part] for part in PARTS])
    ordered = [sources[index] for index in order]
    numbers = None if groups is None else _numbered(groups)[order]
    array, unreadable = (
        _gather_in_memory(ordered, input, how.on_file)
        if how.cache is None
        else _gather_on_disk(ordered, input, how.on_file, how.cache)
    )
    skipped = tuple(f"{ordered[index].name}: {reason}" for index, reason in unreadable.items())
    _check_share(skipped, len(ordered), how.max_unreadable)
    labelled, names = {}, {}
    place = row = 0
    for part in PARTS:
        places = range(place, place + len(parts[part]))
        read = np.array([index for index in places if index not in unreadable], np.int64)
        labelled[part] = Labelled(
            array[row : row + len(read)],
            all_labels[order[read]],
            None if numbers is None else numbers[read],
        )
        names[part] = [ordered[index].name for index in read]
        place, row = places.stop, row + len(read)
    check_classes(labelled[TRAINING].labels, classes)
    return Dataset(
        name,
        input,
        classes,
        training=labelled["training"],
        validation=labelled["validation"],
        calibration=labelled["calibration"],
        test=labelled["test"],
        skipped=skipped + left_out,
        notes=notes,
        names=names,
        own_calibration="calibration" in given,
    )


def _numbered(groups: Sequence[str]) -> NDArray[np.int32]:
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return numbers.reshape(-1).astype(np.int32)


def _check_share(skipped: tuple[str, ...], total: int, allowed: float) -> None:
    if len(skipped) <= allowed * total:
        return
    named = "; ".join(skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    raise InvalidInput(
        f"{len(skipped)} of {total} files ({len(skipped) / total:.2%}) cannot be read; at most "
        f"{allowed:.2%} may be skipped: {named}{more}",
        "data",
    )


def _decode(
    sources: Sequence[Source], on_file: OnFile | None
) -> Iterator[tuple[int, NDArray[Any] | str]]:
    """Each source's index with its sample, or with the reason why it cannot be read."""

    def load(source: Source) -> NDArray[Any] | str:
        try:
            return source.load()
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except (InvalidInput, ValueError) as error:
            return str(error) or type(error).__name__

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(sources), _AT_ONCE):
            loaded = pool.map(load, sources[start : start + _AT_ONCE])
            for index, sample in enumerate(loaded, start):
                yield index, sample
                if on_file is not None:
                    on_file(index + 1, len(sources))


def _gather_in_memory(
    sources: Sequence[Source], input: InputSpec, on_file: OnFile | None
) -> tuple[NDArray[Any], dict[int, str]]:
    array = np.empty((len(sources), *input.shape), input.dtype)
    unreadable: dict[int, str] = {}
    for index, sample in _decode(sources, on_file):
        if isinstance(sample, str):
            unreadable[index] = sample
        else:
            array[index - len(unreadable)] = sample
    return array, unreadable


def _gather_on_disk(
    sources: Sequence[Source], input: InputSpec, on_file: OnFile | None, cache: Path
) -> tuple[NDArray[Any], dict[int, str]]:
    wanted = _fingerprint(sources, input)
    try:
        if (unreadable := _cached(cache, wanted)) is None:
            unreadable = _write(sources, input, on_file, cache, wanted)
        array: NDArray[Any] = np.load(cache / ARRAY, mmap_mode="r")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInput(f"the cache {cache} cannot be used: {reason}", "cache") from error
    return array, unreadable


def _fingerprint(sources: Sequence[Source], input: InputSpec) -> str:
    digest = hashlib.sha256(json.dumps(input.to_json()).encode())
    for source in sources:
        digest.update(json.dumps([source.name, source.stamp, source.label]).encode())
    return digest.hexdigest()


def _cached(cache: Path, wanted: str) -> dict[int, str] | None:
    """The files that were unreadable when the ``wanted`` array was made; None if it was not."""
    try:
        document = json.loads((cache / INDEX).read_text(encoding="utf-8"))
        if document["fingerprint"] != wanted or not (cache / ARRAY).is_file():
            return None
        return {int(index): str(reason) for index, reason in document["unreadable"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(
    sources: Sequence[Source],
    input: InputSpec,
    on_file: OnFile | None,
    cache: Path,
    fingerprint: str,
) -> dict[int, str]:
    """Make the array and then its index, which shows that the array is complete."""
    cache.mkdir(parents=True, exist_ok=True)
    for leftover in cache.glob(".*.unfinished-*"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    with atomic_file(cache / ARRAY) as unfinished:
        with unfinished.open("wb") as file:
            unreadable = _write_array(sources, input, on_file, file)
        (cache / INDEX).unlink(missing_ok=True)
    document = {"fingerprint": fingerprint, "unreadable": unreadable}
    write_atomically(cache / INDEX, json.dumps(document))
    return unreadable


def _write_array(
    sources: Sequence[Source], input: InputSpec, on_file: OnFile | None, file: BinaryIO
) -> dict[int, str]:
    # Plain writes instead of mapping: a full disk is then an error, not a killed process.
    dtype = np.dtype(input.dtype)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (len(sources), *input.shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    unreadable: dict[int, str] = {}
    for index, sample in _decode(sources, on_file):
        if isinstance(sample, str):
            unreadable[index] = sample
        else:
            file.write(np.ascontiguousarray(sample, dtype).tobytes())
    file.truncate(start + len(sources) * dtype.itemsize * prod(input.shape))
    return unreadable
