"""Recordings of spoken words: a folder a class, or the Free Spoken Digit Dataset."""

from __future__ import annotations

import importlib
import re
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from math import gcd
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import AudioPreprocessing, InputSpec
from delen.bundle.samples import pcm_to_samples, read_wav
from delen.errors import InvalidInput, MissingExtra
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.folders import Kind, list_class_folders, shown
from multiexit_models.data.gather import (
    UNREADABLE_SHARE,
    Gathering,
    OnFile,
    Source,
    gather,
    read_file,
    stamp,
)
from multiexit_models.data.splits import Indices, Shares, complete, groups_of, split_stratified

RECORDINGS = Kind("recordings", frozenset((".wav",)))
_FSDD_NAME = re.compile(r"([^_]+)_([^_]+)_\d+\.wav")
_FSDD_LAYOUT = (
    "the Free Spoken Digit Dataset is a folder or zip of recordings named LABEL_SPEAKER_NUMBER.wav"
)
_FSDD_CALIBRATION = 0.8
_Recording = tuple[str, str, Callable[[], bytes]]


def audio_input(samples: int, sample_rate: int) -> InputSpec:
    """The input of a network over ``samples`` at ``sample_rate`` Hz. InvalidInput below 1."""
    if samples < 1 or sample_rate < 1:
        raise InvalidInput(
            f"samples and sample_rate must be above 0, not {samples} and {sample_rate}", "shape"
        )
    return InputSpec("int16", (samples,), audio=AudioPreprocessing(sample_rate))


def read_audio_folder(
    path: Path,
    samples: int,
    sample_rate: int,
    *,
    seed: int,
    shares: Shares | None = None,
    group_by: str | None = None,
    unreadable_share: float = UNREADABLE_SHARE,
    cache: Path | None = None,
    on_file: OnFile | None = None,
) -> Dataset:
    """WAV files in ``path/CLASS/``, or in ``path/train/CLASS/`` with val, calibration and test.

    Mono or stereo (averaged) PCM of 8 or 16 bits, resampled to ``sample_rate`` Hz where it has
    another one, cut or padded with silence at the end to ``samples``: int16. ``group_by`` is a
    regular expression that finds the speaker in a file's name (``([^/_]+)_nohash`` for Speech
    Commands), so that no speaker is in two parts. All else is as in
    ``images.read_image_folder``; MissingExtra where resampling needs scipy and it is absent.
    """
    input = audio_input(samples, sample_rate)
    listing = list_class_folders(path, RECORDINGS)
    names = listing.names
    groups = None if group_by is None else groups_of(names, group_by)
    parts = complete(
        listing.given, listing.labels, listing.classes, shares or Shares(), seed, groups
    )
    sources = [
        Source(
            name,
            stamp(file),
            int(label),
            partial(_load, partial(read_file, file), samples, sample_rate),
        )
        for name, file, label in zip(names, listing.files, listing.labels, strict=True)
    ]
    way = Gathering(unreadable_share, cache, on_file)
    labelled, skipped = gather(sources, parts, input, listing.classes, way)
    name = path.resolve().name
    return Dataset(name, input, listing.classes, **labelled, skipped=skipped + listing.left_out)


def read_fsdd(
    path: Path,
    *,
    samples: int = 8000,
    sample_rate: int = 8000,
    held_out: str | None = None,
    test: str | None = None,
    seed: int = 0,
    unreadable_share: float = UNREADABLE_SHARE,
    on_file: OnFile | None = None,
) -> Dataset:
    """The Free Spoken Digit Dataset (Jackson et al., 2016), a folder or a zip, speakers held out.

    The recordings of the speaker ``test`` (the last by name) are for test, those of ``held_out``
    (the last but one) a fifth for validation and the rest for calibration, and those of all
    others, four, for training. So no voice in one of the three was heard in another. Raises
    InvalidInput for a name that is not of the set, a speaker who is not in it, or too few
    speakers; else as ``read_audio_folder``.
    """
    input = audio_input(samples, sample_rate)
    found = _fsdd_files(path)
    matches = [_fsdd_match(name) for name, _, _ in found]
    classes = tuple(sorted({match[1] for match in matches}))
    speakers = np.array([match[2] for match in matches])
    labels = np.array([classes.index(match[1]) for match in matches], np.int64)
    validating, testing = _fsdd_speakers(sorted(set(speakers.tolist())), held_out, test)
    set_aside = np.flatnonzero(speakers == validating)
    halves = split_stratified(labels[set_aside], {"calibration": _FSDD_CALIBRATION}, seed)
    given: dict[str, Indices] = {
        "training": np.flatnonzero((speakers != validating) & (speakers != testing)),
        "validation": set_aside[halves["training"]],
        "calibration": set_aside[halves["calibration"]],
        "test": np.flatnonzero(speakers == testing),
    }
    parts = complete(given, labels, classes, Shares(), seed)
    sources = [
        Source(name, mark, int(label), partial(_load, read, samples, sample_rate))
        for (name, mark, read), label in zip(found, labels, strict=True)
    ]
    way = Gathering(unreadable_share, on_file=on_file)
    labelled, skipped = gather(sources, parts, input, classes, way)
    return Dataset("free-spoken-digits", input, classes, **labelled, skipped=skipped)


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
        raise InvalidInput(f"{name} is not named so: {_FSDD_LAYOUT}", "data")
    return match


def _fsdd_speakers(known: list[str], held_out: str | None, test: str | None) -> tuple[str, str]:
    """Who validates and calibrates, and who tests."""
    if len(known) < 3:
        raise InvalidInput(
            f"three speakers or more are needed to hold two out; there are {', '.join(known)}",
            "data",
        )
    for field, speaker in (("held_out", held_out), ("test", test)):
        if speaker is not None and speaker not in known:
            raise InvalidInput(f"{field}: no speaker {speaker!r}; known: {', '.join(known)}", field)
    testing = test or next(name for name in reversed(known) if name != held_out)
    validating = held_out or next(name for name in reversed(known) if name != testing)
    if validating == testing:
        raise InvalidInput(f"{testing!r} cannot be held out for both parts", "test")
    return validating, testing


def _load(read: Callable[[], bytes], samples: int, sample_rate: int) -> NDArray[np.int16]:
    frames, rate = read_wav(read())
    return pcm_to_samples(resample(frames, rate, sample_rate), samples)


def resample(frames: NDArray[np.int16], rate: int, wanted: int) -> NDArray[np.int16]:
    """``frames``, int16 ``[n]`` at ``rate`` Hz, at the ``wanted`` rate, through a filter that
    keeps what it cannot hold from folding back. MissingExtra without scipy."""
    if rate == wanted:
        return frames
    try:
        signal = importlib.import_module("scipy.signal")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"scipy (to bring {rate} Hz to {wanted} Hz)", "train") from error
    shared = gcd(rate, wanted)
    floats = signal.resample_poly(frames.astype(np.float64), wanted // shared, rate // shared)
    whole: NDArray[np.int16] = np.clip(np.rint(floats), -(2**15), 2**15 - 1).astype(np.int16)
    return whole
