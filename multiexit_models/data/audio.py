"""Recordings of spoken words: a folder a class, or the Free Spoken Digit Dataset."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import AudioPreprocessing, InputSpec
from delen.bundle.media import RECORDING_ENDINGS
from delen.bundle.recordings import decode_recording
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.folders import FileKind, read_class_folders, shown
from multiexit_models.data.gather import Source, gather, read_file, stamp
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import Indices, split_stratified

RECORDINGS = FileKind("recordings", RECORDING_ENDINGS)
_FSDD_NAME = re.compile(r"([^_]+)_([^_]+)_\d+\.wav")
_FSDD_LAYOUT = (
    "the Free Spoken Digit Dataset is a folder or zip of recordings named LABEL_SPEAKER_NUMBER.wav"
)
_FSDD_CALIBRATION = 0.8
_Recording = tuple[str, str, Callable[[], bytes]]


def read_audio_folder(path: Path, how: Reading) -> Dataset:
    """Recordings in ``path/CLASS/``, or in ``path/train/CLASS/`` with val, calibration and test.

    WAV, FLAC and Ogg, decoded as the daemon does it (``delen.bundle.recordings``): int16. Raises
    InvalidInput as ``folders.read_class_folders``.
    """
    input, rate = _audio_input(how)

    def load(file: Path) -> NDArray[np.int16]:
        return _load(partial(read_file, file), input.shape[0], rate)

    return read_class_folders(path, RECORDINGS, input, load, how)


def read_fsdd(path: Path, how: Reading) -> Dataset:
    """The Free Spoken Digit Dataset (Jackson et al., 2016), a folder or a zip, speakers held out.

    The last speaker by name is for test. The last but one has a fifth of the recordings for
    validation and the rest for calibration. All others are for training, so that no voice of one
    of the three is in another. Raises InvalidInput for a file name of another form or fewer than
    three speakers; else as ``read_audio_folder``.
    """
    input, rate = _audio_input(how)
    found = _fsdd_files(path)
    matches = [_fsdd_match(name) for name, _, _ in found]
    classes = tuple(sorted({match[1] for match in matches}))
    labels = np.array([classes.index(match[1]) for match in matches], np.int64)
    speakers = np.array([match[2] for match in matches])
    known = sorted(set(speakers.tolist()))
    if len(known) < 3:
        raise InvalidInput(
            f"three speakers or more are needed to hold two out; there are {', '.join(known)}",
            "data",
        )
    validating, testing = known[-2:]
    held_out = np.flatnonzero(speakers == validating)
    pieces = split_stratified(labels[held_out], {"calibration": _FSDD_CALIBRATION}, how.seed)
    given: dict[str, Indices] = {
        "training": np.flatnonzero((speakers != validating) & (speakers != testing)),
        "validation": held_out[pieces["training"]],
        "calibration": held_out[pieces["calibration"]],
        "test": np.flatnonzero(speakers == testing),
    }
    sources = [
        Source(name, mark, int(label), partial(_load, read, input.shape[0], rate))
        for (name, mark, read), label in zip(found, labels, strict=True)
    ]
    data = gather("free-spoken-digits", sources, input, classes, given, None, how)
    return replace(data, own_calibration=False)


def _audio_input(how: Reading) -> tuple[InputSpec, int]:
    """The input, and its sample rate in Hz."""
    if how.sample_rate is None:
        raise InvalidInput("audio needs its sample rate, in Hz", "sample_rate")
    samples, rate = how.shape[0], how.sample_rate
    if samples < 1 or rate < 1:
        raise InvalidInput(
            f"samples and sample_rate must be above 0, not {samples} and {rate}", "shape"
        )
    return InputSpec("int16", (samples,), audio=AudioPreprocessing(rate)), rate


def _fsdd_files(path: Path) -> list[_Recording]:
    """Name, stamp and a way to read each recording, in the order of their names."""
    if path.is_dir():
        found: list[_Recording] = [
            (shown(file.relative_to(path)), stamp(file), partial(read_file, file))
            for file in path.iterdir()
            if file.suffix.lower() == ".wav" and not file.name.startswith(".")
        ]
    else:
        found = _zipped(path)
    if not found:
        raise InvalidInput(f"{shown(path)} has no recordings; {_FSDD_LAYOUT}", "data")
    return sorted(found, key=lambda file: file[0])


def _zipped(path: Path) -> list[_Recording]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                # Read now: the archive is closed before the recordings are decoded.
                (info.filename, f"{info.file_size} {info.CRC}", partial(bytes, archive.read(info)))
                for info in archive.infolist()
                if info.filename.lower().endswith(".wav")
                and not PurePosixPath(info.filename).name.startswith(".")
            ]
    except (OSError, zipfile.BadZipFile, RuntimeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"{shown(path)} cannot be read ({reason}); {_FSDD_LAYOUT}", "data"
        ) from error


def _fsdd_match(name: str) -> re.Match[str]:
    match = _FSDD_NAME.fullmatch(PurePosixPath(name).name)
    if match is None:
        raise InvalidInput(f"{name} has another form of name: {_FSDD_LAYOUT}", "data")
    return match


def _load(read: Callable[[], bytes], samples: int, sample_rate: int) -> NDArray[np.int16]:
    return decode_recording(read(), sample_rate, samples)
