"""Labelled files as people keep them: a folder a class, perhaps below train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.gather import Source, gather, stamp
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PART_NAMES, TRAINING, Indices, groups_of
from multiexit_models.data.tracks import find_tracks

OWN_GROUPS = "([^/]+/[^/]+)/[^/]+$"
"""For --group-by: the folder of a file, and the class in which it lies."""


@dataclass(frozen=True)
class FileKind:
    """The files that are read: their plural, for messages, and endings, in small letters."""

    plural: str
    suffixes: frozenset[str]

    @property
    def layout(self) -> str:
        return (
            f"{self.plural} belong in one folder a class, FOLDER/CLASS/FILE, those of one track or "
            "speaker in FOLDER/CLASS/GROUP/FILE, or, where they are split already, in "
            "FOLDER/train/CLASS/FILE with val, calibration and test beside train"
        )


def shown(path: Path) -> str:
    """``path`` for messages, whatever bytes are in it."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def read_class_folders(
    folder: Path,
    kind: FileKind,
    input: InputSpec,
    load: Callable[[Path], NDArray[Any]],
    how: Reading,
) -> Dataset:
    """The files of each class, in the order of their names, each as ``load`` decodes it.

    Files of one group stay in one part. Their groups are what ``how.group_by`` finds in their
    names, or the folders that classes have in them: one of the same name in two classes is one
    group, as a speaker who says both words. Without groups, a note says so where names look like
    tracks. Parts that ``folder`` does not have come out of its training part. Hidden files are
    left alone. Files that do not decode, and files of other kinds, are named in ``skipped``.
    Raises InvalidInput for another layout, an empty class folder, a class that training lacks, or
    too many files that do not decode.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{shown(folder)} is not a folder; {kind.layout}", "data")
    parts = _part_folders(folder, kind) or {TRAINING: folder}
    classes = tuple(entry.name for entry in _class_folders(parts[TRAINING], kind))
    if len(classes) < 2:
        raise InvalidInput(
            f"{shown(parts[TRAINING])} has {'only one class' if classes else 'no classes'}; "
            f"{kind.layout}",
            "data",
        )
    sources: list[Source] = []
    left_out: list[str] = []
    given: dict[str, Indices] = {}
    nested: list[str | None] = []
    for part, part_folder in parts.items():
        start = len(sources)
        for class_folder in _class_folders(part_folder, kind):
            if class_folder.name not in classes:
                raise InvalidInput(
                    f"{shown(class_folder)} is not a class of {shown(parts[TRAINING])}, which has "
                    f"{', '.join(classes)}",
                    "data",
                )
            label = classes.index(class_folder.name)
            found, foreign = _class_files(class_folder, kind)
            for file in found:
                name = shown(file.relative_to(folder))
                sources.append(Source(name, stamp(file), label, partial(load, file)))
                nested.append(None if file.parent == class_folder else file.parent.name)
            if foreign:
                endings = ", ".join(sorted({file.suffix or "no ending" for file in foreign}))
                left_out.append(
                    f"{shown(class_folder.relative_to(folder))}: {len(foreign)} files that are not "
                    f"{kind.plural} ({endings})"
                )
        given[part] = np.arange(start, len(sources), dtype=np.int64)
    names = [source.name for source in sources]
    groups, notes = _groups(names, nested, how.group_by)
    name = folder.resolve().name
    return gather(name, sources, input, classes, given, groups, how, tuple(left_out), notes)


def _groups(
    names: Sequence[str], nested: Sequence[str | None], group_by: str | None
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The group of each file, by ``group_by`` or the folder that it is ``nested`` in, and what
    there is to note about groups."""
    if group_by is not None:
        return groups_of(names, group_by), ()
    groups = [group for group in nested if group is not None]
    if not groups:
        tracks = find_tracks(names)
        return None, () if tracks is None else (tracks.warning,)
    if len(groups) < len(names):
        flat = next(name for name, group in zip(names, nested, strict=True) if group is None)
        raise InvalidInput(
            f"some classes have folders of groups in them, but {flat} lies in none; move it into "
            "one, or give --group-by REGEX",
            "data",
        )
    places = {tuple(name.split("/")[-3:-1]) for name in names}
    count = len(set(groups))
    note = f"the folders in the classes are taken as groups: {count} groups"
    if count < len(places):
        note += (
            ", since a name in several classes is one group there (a speaker, a patient). Where it "
            f"is another track in each class, --group-by {quote(OWN_GROUPS)} gives {len(places)}"
        )
    return groups, (note,)


def _part_folders(folder: Path, kind: FileKind) -> dict[str, Path]:
    """The folders of the parts in ``folder``; none where it has no parts."""
    inside = [entry for entry in _entries(folder) if entry.is_dir()]
    parts = {entry: PART_NAMES[entry.name.lower()] for entry in inside if _is_part(entry)}
    others = [entry.name for entry in inside if entry not in parts]
    if others and all(_has_files_alone(entry, kind) for entry in parts):
        return {}  # a class may be called train, val or test
    if TRAINING not in parts.values():
        if parts and len(parts) == len(inside):
            names = ", ".join(entry.name for entry in inside)
            raise InvalidInput(f"{shown(folder)} has {names} but no train; {kind.layout}", "data")
        return {}
    if others:
        training = next(entry.name for entry, part in parts.items() if part == TRAINING)
        raise InvalidInput(
            f"{shown(folder)} has {others[0]!r} beside a folder for training, {training!r}; move "
            f"{others[0]!r} into it or, where {training!r} is a class, rename it; {kind.layout}",
            "data",
        )
    part, count = Counter(parts.values()).most_common(1)[0]
    if count > 1:
        raise InvalidInput(f"{shown(folder)} has {count} folders for {part}; give one", "data")
    return {part: entry for entry, part in parts.items()}


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in PART_NAMES


def _has_files_alone(folder: Path, kind: FileKind) -> bool:
    """Whether ``folder`` is laid out as a class: files to read, and no folders."""
    entries = _entries(folder)
    return any(entry.suffix.lower() in kind.suffixes for entry in entries) and not any(
        entry.is_dir() for entry in entries
    )


def _class_folders(folder: Path, kind: FileKind) -> list[Path]:
    entries = _entries(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    for entry in entries:
        if entry.suffix.lower() in kind.suffixes and not entry.is_dir():
            raise InvalidInput(
                f"{shown(entry)} lies directly in {shown(folder)} and so has no class; "
                f"{kind.layout}",
                "data",
            )
    for entry in folders:
        if shown(entry) != str(entry):
            raise InvalidInput(f"the class {shown(entry)} is not named in UTF-8", "data")
    return folders


def _class_files(folder: Path, kind: FileKind) -> tuple[list[Path], list[Path]]:
    """The files of a class or of its groups, and files of other kinds."""
    groups = [entry for entry in _entries(folder) if entry.is_dir()]
    if not groups:
        return _files(folder, kind)
    found, foreign = [], []
    for entry in _entries(folder):
        if entry not in groups:
            if entry.suffix.lower() in kind.suffixes:
                raise InvalidInput(
                    f"the class folder {shown(folder)} has {shown(groups[0])} beside files; "
                    f"{kind.layout}",
                    "data",
                )
            foreign.append(entry)
            continue
        of_group = _files(entry, kind)
        found += of_group[0]
        foreign += of_group[1]
    return found, foreign


def _files(folder: Path, kind: FileKind) -> tuple[list[Path], list[Path]]:
    entries = _entries(folder)
    if deeper := [entry for entry in entries if entry.is_dir()]:
        raise InvalidInput(
            f"{shown(deeper[0])} lies too deep; {kind.layout}",
            "data",
        )
    found = [entry for entry in entries if entry.suffix.lower() in kind.suffixes]
    foreign = [entry for entry in entries if entry.suffix.lower() not in kind.suffixes]
    if not found:
        others = f", only {len(foreign)} files with other endings" if foreign else ""
        raise InvalidInput(
            f"the folder {shown(folder)} has no {kind.plural} "
            f"({', '.join(sorted(kind.suffixes))}){others}; fill it or remove it",
            "data",
        )
    return found, foreign


def _entries(folder: Path) -> list[Path]:
    try:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InvalidInput(
            f"{shown(folder)} cannot be read: {error.strerror or error}", "data"
        ) from error
    return sorted(inside, key=lambda entry: entry.name)
