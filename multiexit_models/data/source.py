"""Which reader reads the data that ``delen build`` gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from delen.errors import InvalidInput
from multiexit_models.data.audio import RECORDINGS, read_audio_folder, read_fsdd
from multiexit_models.data.cifar import read_cifar10
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.images import IMAGES, read_image_folder
from multiexit_models.data.reading import Reading
from multiexit_models.data.text import DELIMITERS, JSON_ENDING, read_texts
from multiexit_models.data.torchvision_sets import read_torchvision

TORCHVISION = "torchvision:"
"""Before the name of a set; all sets are of images."""
INPUT_KINDS: Mapping[str, str] = {
    "cifar10": "image",
    "images": "image",
    "audio": "audio",
    "fsdd": "audio",
    "texts": "text",
}
_READERS: Mapping[str, Callable[[Path, Reading], Dataset]] = {
    "cifar10": lambda path, how: read_cifar10(path, seed=how.seed),
    "images": read_image_folder,
    "audio": read_audio_folder,
    "fsdd": read_fsdd,
    "texts": read_texts,
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "group_by": ("images", "audio"),
    "cache": ("images", "audio", TORCHVISION),
    "max_unreadable": ("images", "audio", "fsdd", TORCHVISION),
    "sample_rate": ("audio", "fsdd"),
    "text_column": ("texts",),
    "label_column": ("texts",),
    "split_column": ("texts",),
    "size": ("images", "audio", "fsdd", "texts", TORCHVISION),
    "sizes": ("images", "cifar10", TORCHVISION),
    "mean": ("images", "cifar10", TORCHVISION),
    "std": ("images", "cifar10", TORCHVISION),
    "no_mirror": ("images", "cifar10", TORCHVISION),
}
"""The kinds of data for which an option does anything."""


def check_options(kind: str, given: Mapping[str, object]) -> None:
    """InvalidInput for an unknown kind, or a ``given`` option that would do nothing for it."""
    family = TORCHVISION if kind.startswith(TORCHVISION) else kind
    if family not in (*INPUT_KINDS, TORCHVISION):
        raise InvalidInput(
            f"the kind must be {', '.join(INPUT_KINDS)} or {TORCHVISION}NAME, not {kind!r}", "kind"
        )
    for option, kinds in _OPTIONS.items():
        if given[option] not in (None, False) and family not in kinds:
            name = option.replace("_", "-")
            raise InvalidInput(f"--{name} does nothing for the kind {kind}", option)


def input_kind(kind: str) -> str:
    """``image``, ``audio`` or ``text``: the kind of networks for data of ``kind``."""
    return "image" if kind.startswith(TORCHVISION) else INPUT_KINDS[kind]


def find_kind(path: Path) -> str:
    """The kind of the data at ``path`` by what lies there; InvalidInput where that is unclear."""
    if not path.exists():
        raise InvalidInput(f"{path} does not exist", "data")
    if path.suffix.lower() in (*DELIMITERS, JSON_ENDING):
        return "texts"
    if path.name == "cifar-10-batches-bin":
        return "cifar10"
    if path.is_dir():
        found = {file.suffix.lower() for file in path.glob("*/**/*") if file.is_file()}
        if found & RECORDINGS.suffixes:
            return "audio"
        if found & IMAGES.suffixes:
            return "images"
        if any(file.suffix.lower() in DELIMITERS for file in path.iterdir()):
            return "texts"
    raise InvalidInput(
        f"the kind of the data at {path} is unclear; give --kind: {', '.join(INPUT_KINDS)} or "
        f"{TORCHVISION}NAME",
        "kind",
    )


def read_data(path: Path, kind: str, how: Reading) -> Dataset:
    """Read the data at ``path``. Raises InvalidInput naming what cannot be read."""
    if kind.startswith(TORCHVISION):
        return read_torchvision(kind.removeprefix(TORCHVISION), path, how)
    return _READERS[kind](path, how)
