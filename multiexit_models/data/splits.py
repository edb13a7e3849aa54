"""Which samples are for training, validation, calibration and test, decided by a seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from delen.errors import InvalidInput

Indices = NDArray[np.int64]

TRAINING = "training"
SHARES: Mapping[str, float] = {"validation": 0.1, "calibration": 0.15, "test": 0.15}
"""The share of the training samples that a part gets which the data do not have."""
PARTS = (TRAINING, *SHARES)
PART_NAMES: Mapping[str, str] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "cal": "calibration",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}
"""The parts by the names that people give them, in small letters."""


def complete(
    given: Mapping[str, Indices],
    labels: Indices,
    classes: Sequence[str],
    seed: int,
    groups: Sequence[str] | None = None,
) -> dict[str, Indices]:
    """All four parts, as ascending indices into ``labels``, int64 ``[n]``.

    The ``given`` ones, ``training`` among them, are kept; each one missing gets its share of
    ``SHARES`` from the given training, classes in proportion. Samples of one of the ``groups`` (one
    name a sample: a speaker, a track) stay together. Raises InvalidInput where a group is in two
    given parts, a part would be empty, or a class would have nothing to train on.
    """
    missing = {part: share for part, share in SHARES.items() if part not in given}
    parts = {part: np.sort(indices) for part, indices in given.items()}
    if groups is not None:
        _check_groups(parts, groups)
    if missing:
        available = parts[TRAINING]
        if groups is None:
            taken = split_stratified(labels[available], missing, seed)
        else:
            names = [groups[index] for index in available]
            taken = split_groups(names, missing, seed)
        parts.update({part: available[positions] for part, positions in taken.items()})
    for part in PARTS:
        if not len(parts[part]):
            raise InvalidInput(f"no samples are left for {part}: there are too few", "data")
    check_classes(labels[parts[TRAINING]], classes)
    return {part: parts[part] for part in PARTS}


def split_stratified(
    labels: Indices, held_out: Mapping[str, float], seed: int
) -> dict[str, Indices]:
    """Positions in ``labels`` for training and for each part ``held_out`` with its share.

    At random within each class; each part has each class in proportion, to within a sample or
    two, and the first sample of each class trains. Raises InvalidInput where a part would be
    empty.
    """
    generator = np.random.default_rng(seed)
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # The samples of a class are spread evenly over [0, 1), but the first comes before all.
        spread = (np.arange(len(members)) - 1 + generator.random()) / max(len(members) - 1, 1)
        spread[0] = -1
        places[members] = spread
    order = np.lexsort((generator.random(len(labels)), places))
    sizes = {part: round(share * len(labels)) for part, share in held_out.items()}
    training = len(labels) - sum(sizes.values())
    for part, size in {TRAINING: training, **sizes}.items():
        if size < 1:
            raise InvalidInput(f"{len(labels)} samples are too few: {part} would get none", "data")
    borders = np.cumsum([training, *sizes.values()])[:-1]
    pieces = np.split(order.astype(np.int64), borders)
    return {
        part: np.sort(piece)
        for part, piece in zip((TRAINING, *held_out), pieces, strict=True)
    }  # fmt: skip


def split_groups(
    groups: Sequence[str], held_out: Mapping[str, float], seed: int
) -> dict[str, Indices]:
    """Positions in ``groups`` for training and for each part ``held_out``; no group is in two.

    Parts come as close to their shares as whole groups, the largest first, allow. Raises
    InvalidInput where there are fewer groups than parts.
    """
    names, members, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    shares = {TRAINING: 1 - sum(held_out.values()), **held_out}
    if len(names) < len(shares):
        raise InvalidInput(
            f"{len(names)} groups are too few for {', '.join(shares)}: each part needs a group "
            "of its own",
            "group_by",
        )
    shuffled = np.random.default_rng(seed).permutation(len(names))
    lacking = {part: share * len(groups) for part, share in shares.items()}
    chosen: dict[str, list[int]] = {part: [] for part in shares}
    by_size = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    for place, group in enumerate(by_size):
        empty = [part for part in shares if not chosen[part]]
        candidates = empty if len(names) - place <= len(empty) else list(shares)
        part = max(candidates, key=lacking.__getitem__)
        chosen[part].append(int(group))
        lacking[part] -= float(sizes[group])
    return {
        part: np.flatnonzero(np.isin(members.reshape(-1), picked)).astype(np.int64)
        for part, picked in chosen.items()
    }


def groups_of(names: Sequence[str], group_by: str) -> list[str]:
    """What ``group_by``, a regular expression, finds in each name: its first group, or all.

    Raises InvalidInput for an invalid expression, and for a name in which it finds nothing.
    """
    try:
        expression = re.compile(group_by)
    except re.error as error:
        raise InvalidInput(
            f"group_by {group_by!r} is not a regular expression: {error}", "group_by"
        ) from None
    groups = []
    for name in names:
        found = expression.search(name)
        if found is None:
            raise InvalidInput(f"group_by {group_by!r} finds nothing in {name}", "group_by")
        groups.append((found[1] if expression.groups else found[0]) or "")
    return groups


def check_classes(labels: Indices, classes: Sequence[str]) -> None:
    """InvalidInput for fewer than two classes, or one that has none of the ``labels``."""
    if len(classes) < 2:
        raise InvalidInput(f"there must be two classes or more, not {list(classes)}", "data")
    counts = np.bincount(labels, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts, strict=False) if not count]:
        raise InvalidInput(f"the class {empty[0]!r} has no samples for training", "data")


def _check_groups(parts: Mapping[str, Indices], groups: Sequence[str]) -> None:
    owner: dict[str, str] = {}
    for part, indices in parts.items():
        for index in indices:
            if (other := owner.setdefault(groups[index], part)) != part:
                raise InvalidInput(
                    f"the group {groups[index]!r} is in both {other} and {part}; where it is "
                    "another one there, --group-by REGEX that finds more of its name says so",
                    "group_by",
                )
