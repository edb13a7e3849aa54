"""Labelled files as people keep them: a folder a class, perhaps under train, val and test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delen.errors import InvalidInput
from multiexit_models.data.splits import PART_NAMES, TRAINING, Indices


@dataclass(frozen=True)
class Kind:
    """What is looked for: its plural, for messages, and the file endings, in small letters."""

    plural: str
    suffixes: frozenset[str]

    @property
    def layout(self) -> str:
        return (
            f"{self.plural} belong in one folder a class, FOLDER/CLASS/FILE, or in "
            "FOLDER/train/CLASS/FILE with val, calibration and test beside train where they are "
            "split already"
        )


@dataclass(frozen=True, eq=False)
class Listing:
    """``files`` below ``folder`` in order, their ``labels`` (int64) as indices into ``classes``,
    and which indices of ``files`` belong to which part; all to training where the folder does not
    say. ``left_out`` says what else lay in the class folders."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Indices
    given: dict[str, Indices]
    left_out: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [shown(file.relative_to(self.folder)) for file in self.files]


def shown(path: Path) -> str:
    """``path`` for messages, whatever bytes are in it."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def list_class_folders(folder: Path, kind: Kind) -> Listing:
    """The files of each class, in the order of their names; hidden files are left alone.

    Raises InvalidInput that says what the right layout is where ``folder`` has another one,
    and that names an empty class folder, or a class that training has not.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{shown(folder)} is no folder; {kind.layout}", "data")
    parts = _part_folders(folder, kind) or {TRAINING: folder}
    classes = tuple(entry.name for entry in _class_folders(parts[TRAINING], kind))
    if len(classes) < 2:
        raise InvalidInput(
            f"{shown(parts[TRAINING])} has {'only one class' if classes else 'no classes'}; "
            f"{kind.layout}",
            "data",
        )
    files: list[Path] = []
    labels: list[int] = []
    left_out: list[str] = []
    given: dict[str, Indices] = {}
    for part, part_folder in parts.items():
        start = len(files)
        for class_folder in _class_folders(part_folder, kind):
            if class_folder.name not in classes:
                raise InvalidInput(
                    f"{shown(class_folder)} is no class of {shown(parts[TRAINING])}, which has "
                    f"{', '.join(classes)}",
                    "data",
                )
            found, foreign = _class_files(class_folder, kind)
            files += found
            labels += [classes.index(class_folder.name)] * len(found)
            if foreign:
                endings = ", ".join(sorted({file.suffix or "no ending" for file in foreign}))
                left_out.append(
                    f"{shown(class_folder.relative_to(folder))}: {len(foreign)} files that are no "
                    f"{kind.plural} ({endings})"
                )
        given[part] = np.arange(start, len(files), dtype=np.int64)
    return Listing(
        folder, classes, tuple(files), np.array(labels, np.int64), given, tuple(left_out)
    )


def _part_folders(folder: Path, kind: Kind) -> dict[str, Path]:
    """The folders of parts that ``folder`` is divided into; none where it is not."""
    inside = [entry for entry in _entries(folder) if entry.is_dir()]
    parts = {entry: PART_NAMES[entry.name.lower()] for entry in inside if _is_part(entry)}
    if TRAINING not in parts.values():
        if parts and len(parts) == len(inside):
            names = ", ".join(entry.name for entry in inside)
            raise InvalidInput(f"{shown(folder)} has {names} but no train; {kind.layout}", "data")
        return {}  # a class may be called test
    if others := [entry.name for entry in inside if not _is_part(entry)]:
        raise InvalidInput(
            f"{shown(folder)} has {others[0]!r} beside a folder for training; {kind.layout}", "data"
        )
    part, count = Counter(parts.values()).most_common(1)[0]
    if count > 1:
        raise InvalidInput(f"{shown(folder)} has {count} folders for {part}; give one", "data")
    return {part: entry for entry, part in parts.items()}


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in PART_NAMES


def _class_folders(folder: Path, kind: Kind) -> list[Path]:
    entries = _entries(folder)
    if loose := [entry for entry in entries if entry.suffix.lower() in kind.suffixes]:
        files = [entry for entry in loose if not entry.is_dir()]
        if files:
            raise InvalidInput(
                f"{shown(files[0])} lies directly in {shown(folder)} and so has no class; "
                f"{kind.layout}",
                "data",
            )
    folders = [entry for entry in entries if entry.is_dir()]
    for entry in folders:
        if shown(entry) != str(entry):
            raise InvalidInput(f"the class {shown(entry)} is not named in UTF-8", "data")
    return folders


def _class_files(folder: Path, kind: Kind) -> tuple[list[Path], list[Path]]:
    """The files of a class and the others. InvalidInput where there are none, or folders."""
    entries = _entries(folder)
    if nested := [entry for entry in entries if entry.is_dir()]:
        raise InvalidInput(
            f"the class folder {shown(folder)} has a folder in it, {shown(nested[0])}; "
            f"{kind.layout}",
            "data",
        )
    found = [entry for entry in entries if entry.suffix.lower() in kind.suffixes]
    foreign = [entry for entry in entries if entry.suffix.lower() not in kind.suffixes]
    if not found:
        others = f", only {len(foreign)} files of other endings" if foreign else ""
        raise InvalidInput(
            f"the class folder {shown(folder)} has no {kind.plural} "
            f"({', '.join(sorted(kind.suffixes))}){others}; fill it or take it away",
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
