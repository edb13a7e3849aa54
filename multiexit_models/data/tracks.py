"""Whether the names of files look like frames of tracks or recordings of speakers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from multiexit_models.data.splits import groups_of

SEPARATORS = "_. -"
LEAST_TRACKS = 3
"""A class must have so many prefixes on average; one a class says only what the class is."""
ENOUGH_GROUPS = 20
"""Of several ways to group, the coarsest with so many groups is suggested, else the coarsest."""
_NUMBERED = 0.95
_SHARED = 0.5


@dataclass(frozen=True, slots=True)
class Tracks:
    """Files that share a prefix before a running number: ``expression`` for --group-by finds the
    prefix, in ``groups`` different forms; ``shared`` of ``files`` have it in common with others,
    as ``example`` has."""

    expression: str
    groups: int
    shared: int
    files: int
    example: str

    @property
    def warning(self) -> str:
        return (
            f"the names look like tracks: {self.shared} of {self.files} files, such as "
            f"{self.example}, share what is before their running number with others. Frames of "
            "one track, or recordings of one speaker, are not independent: the default split puts "
            "them into several parts, and floors then promise up to some points too much. If they "
            f"are tracks, the right command has --group-by {quote(self.expression)}, which gives "
            f"{self.groups} groups"
        )


def find_tracks(names: Sequence[str]) -> Tracks | None:
    """The tracks that ``names`` (``CLASS/FILE``, perhaps below a part) look like; None if none."""
    words = [_words(name) for name in names]
    numbered = [len(parts) > 1 and parts[-1][-1:].isdigit() for parts in words]
    if not names or sum(numbered) < _NUMBERED * len(names):
        return None
    depth = min(len(parts) for parts, known in zip(words, numbered, strict=True) if known)
    found = [tracks for length in range(1, depth) if (tracks := _grouped(names, words, length))]
    enough = [tracks for tracks in found if tracks.groups >= ENOUGH_GROUPS]
    return next(iter(enough + found), None)


def _words(name: str) -> list[str]:
    return [word for word in re.split(f"[{SEPARATORS}]+", _stem(name)) if word]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _grouped(names: Sequence[str], words: Sequence[list[str]], length: int) -> Tracks | None:
    """The tracks where the first ``length`` words of a file's name are its prefix."""
    places = [
        (str(PurePosixPath(name).parent), " ".join(parts[:length]))
        for name, parts in zip(names, words, strict=True)
    ]
    counts = Counter(places)
    shared = [name for name, place in zip(names, places, strict=True) if counts[place] > 1]
    folders: dict[str, set[str]] = defaultdict(set)
    for folder, prefix in counts:
        folders[prefix].add(folder)
    classes = len({folder for folder, _ in counts})
    if len(counts) < LEAST_TRACKS * classes or len(shared) < _SHARED * len(names):
        return None
    # Numbers start anew in each class; a speaker's name is the same in all.
    plain = sum(not any(letter.isalpha() for letter in prefix) for prefix in folders)
    is_counter = plain > len(folders) / 2
    in_several = any(len(found) > 1 for found in folders.values())
    used = "".join(mark for mark in SEPARATORS if any(mark in _stem(name) for name in names))
    expression = _expression(used, length, with_class=is_counter and in_several)
    groups = len(set(groups_of(names, expression)))
    return Tracks(expression, groups, len(shared), len(names), shared[0])


def _expression(used: str, length: int, with_class: bool) -> str:
    word = f"[^/{used}]+"
    between = used if len(used) == 1 and used != "." else f"[{used}]+"
    prefix = between.join([word] * length)
    return f"({'[^/]+/' if with_class else ''}{prefix})[^/]*$"
