"""Names that look like frames of tracks or recordings of speakers, and those that do not."""

from __future__ import annotations

import pytest

from multiexit_models.data.splits import groups_of
from multiexit_models.data.tracks import find_tracks

SIGNS = [f"{c:05d}/{t:05d}_{f:05d}.png" for c in range(4) for t in range(7) for f in range(30)]
CLIPS = [f"{c}/clip_{t:04d}_frame_{f:06d}.jpg" for c in "ab" for t in range(30) for f in range(9)]
SPEAKERS = [
    f"{word}/{speaker}_{session}_{number:04d}.wav"
    for word in ("yes", "no")
    for speaker in ("ann", "bob", "eve", "joe")
    for session in range(3)
    for number in range(5)
]
COMMANDS = [
    f"{word}/{7919 * speaker:08x}_nohash_{number}.wav"
    for word in ("yes", "no")
    for speaker in range(1, 41)
    for number in range(2)
]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (SIGNS, 28),  # numbered anew in each class
        ([f"train/{name}" for name in SIGNS], 28),
        ([name.replace("_", "-") for name in SIGNS], 28),
        (CLIPS, 30),  # a clip may show both
        (SPEAKERS, 4),  # who says both, in every session
        (COMMANDS, 40),
        ([f"c_{name}" for name in COMMANDS], 40),  # a class with the separator in its name
    ],
)
def test_what_comes_before_a_running_number_is_the_group(names: list[str], groups: int) -> None:
    tracks = find_tracks(names)
    assert tracks is not None
    assert tracks.groups == groups == len(set(groups_of(names, tracks.expression)))
    assert tracks.expression in tracks.warning
    assert "--group-by" in tracks.warning
    assert f"{groups} groups" in tracks.warning


@pytest.mark.parametrize(
    "names",
    [
        [],
        [f"{c}/{n}.png" for c in "abc" for n in range(40)],
        [f"{c}/photo-{n}.png" for c in "abc" for n in range(40)],
        [f"n{c}/n{c}_{n}.JPEG" for c in range(5) for n in range(40)],  # one prefix a class
        [f"{c}/{c}.{n}.jpg" for c in ("cat", "dog") for n in range(40)],
        [f"{c}/{p}_{n}.jpg" for c in "ab" for p in ("IMG", "DSC") for n in range(40)],
        [f"{c}/{n:04d}_{n * n}.jpg" for c in "ab" for n in range(40)],  # nothing is shared
        [f"{c}/{n % 9}_scan.jpg" for c in "ab" for n in range(40)],  # no number at the end
        [f"{c}/___.jpg" for c in "ab"],
    ],
)
def test_other_names_are_no_tracks(names: list[str]) -> None:
    assert find_tracks(names) is None


def test_a_file_of_another_name_is_found_by_the_expression_too() -> None:
    tracks = find_tracks([*SIGNS, "00001/thumbnail.png"])
    assert tracks is not None
    assert tracks.groups == 29
