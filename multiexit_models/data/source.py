"""Which reader reads the data that ``delen build`` is given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from delen.errors import InvalidInput
from multiexit_models.data.audio import read_audio_folder, read_fsdd
from multiexit_models.data.cifar import read_cifar10
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.images import IMAGES, read_image_folder
from multiexit_models.data.text import read_text_csv, read_text_json
from multiexit_models.data.torchvision_sets import read_torchvision

TORCHVISION = "torchvision:"
IMAGE_KINDS = ("cifar10", "images")
"""Kinds of data beside ``torchvision:NAME``, of which all are images."""
AUDIO_KINDS = ("audio", "fsdd")
KINDS = (*IMAGE_KINDS, *AUDIO_KINDS, "texts")
_AUDIO_ENDINGS = (".wav",)
_IMAGE_ENDINGS = IMAGES.suffixes
_TEXT_ENDINGS = (".csv", ".tsv")
_JSON = ".json"


@dataclass(frozen=True)
class Reading:
    """How to read: the input's ``shape`` (``(height, width, channels)``, ``(samples,)`` or
    ``(bytes,)``), ``sample_rate`` in Hz for audio, columns for texts, and how many of the files
    may be unreadable. ``group_by`` is a regular expression: files for which it finds the same text
    stay in one part. ``cache`` is a folder that keeps decoded images."""

    shape: tuple[int, ...]
    seed: int = 0
    sample_rate: int | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    group_by: str | None = None
    unreadable_share: float = 0.01
    cache: Path | None = None


_OPTIONS = {
    "group_by": ("images", "audio"),
    "cache": ("images", "audio", TORCHVISION),
    "max_unreadable": ("images", "audio", "fsdd", TORCHVISION),
    "sample_rate": AUDIO_KINDS,
    "text_column": ("texts",),
    "label_column": ("texts",),
    "split_column": ("texts",),
    "size": ("images", "audio", "fsdd", "texts", TORCHVISION),
    "mean": ("images", "cifar10", TORCHVISION),
    "std": ("images", "cifar10", TORCHVISION),
    "no_mirror": ("images", "cifar10", TORCHVISION),
}
"""For which kinds of data an option does anything."""


def check_options(kind: str, given: argparse.Namespace) -> None:
    """InvalidInput for an unknown kind, or an option that would do nothing for it."""
    family = TORCHVISION if kind.startswith(TORCHVISION) else kind
    if family not in (*KINDS, TORCHVISION):
        raise InvalidInput(
            f"the kind {kind!r} is none of {', '.join(KINDS)} and {TORCHVISION}NAME", "kind"
        )
    for option, kinds in _OPTIONS.items():
        if getattr(given, option) not in (None, False) and family not in kinds:
            name = option.replace("_", "-")
            raise InvalidInput(f"--{name} does nothing for the kind {kind}", option)


def input_kind(kind: str) -> str:
    """``image``, ``audio`` or ``text``: what networks the kind of data ``kind`` is for."""
    if kind in IMAGE_KINDS or kind.startswith(TORCHVISION):
        return "image"
    return "audio" if kind in AUDIO_KINDS else "text"


def find_kind(path: Path) -> str:
    """The kind of the data at ``path`` by what lies there; InvalidInput where that is unclear."""
    if path.suffix.lower() in (*_TEXT_ENDINGS, _JSON):
        return "texts"
    if path.name == "cifar-10-batches-bin":
        return "cifar10"
    if path.is_dir():
        found = {file.suffix.lower() for file in path.glob("*/**/*") if file.is_file()}
        if found.intersection(_AUDIO_ENDINGS):
            return "audio"
        if found.intersection(_IMAGE_ENDINGS):
            return "images"
        if any(file.suffix.lower() in _TEXT_ENDINGS for file in path.iterdir()):
            return "texts"
    raise InvalidInput(
        f"{path} does not say what kind of data it is; --kind does: {', '.join(KINDS)} or "
        f"{TORCHVISION}NAME",
        "kind",
    )


def read_data(path: Path, kind: str, how: Reading, on_file: Callable[[int, int], None]) -> Dataset:
    """Read the data at ``path``. Raises InvalidInput naming what cannot be read."""
    if kind.startswith(TORCHVISION):
        name = kind.removeprefix(TORCHVISION)
        share, cache = how.unreadable_share, how.cache
        return read_torchvision(
            name,
            path,
            how.shape,
            seed=how.seed,
            unreadable_share=share,
            cache=cache,
            on_file=on_file,
        )
    if kind == "cifar10":
        return read_cifar10(path, seed=how.seed)
    if kind == "images":
        return read_image_folder(
            path,
            how.shape,
            seed=how.seed,
            group_by=how.group_by,
            unreadable_share=how.unreadable_share,
            cache=how.cache,
            on_file=on_file,
        )
    if kind in AUDIO_KINDS:
        return _read_audio(path, kind, how, on_file)
    return _read_texts(path, how)


def _read_audio(
    path: Path, kind: str, how: Reading, on_file: Callable[[int, int], None]
) -> Dataset:
    samples, rate = how.shape[0], how.sample_rate
    if rate is None:
        raise InvalidInput("audio needs its sample rate, in Hz", "sample_rate")
    if kind == "fsdd":
        return read_fsdd(
            path,
            samples=samples,
            sample_rate=rate,
            seed=how.seed,
            unreadable_share=how.unreadable_share,
            on_file=on_file,
        )
    return read_audio_folder(
        path,
        samples,
        rate,
        seed=how.seed,
        group_by=how.group_by,
        unreadable_share=how.unreadable_share,
        cache=how.cache,
        on_file=on_file,
    )


def _read_texts(path: Path, how: Reading) -> Dataset:
    if path.suffix == _JSON:
        return read_text_json(path, how.shape[0], seed=how.seed)
    return read_text_csv(
        path,
        how.shape[0],
        text_column=how.text_column,
        label_column=how.label_column,
        split_column=how.split_column,
        seed=how.seed,
    )
