"""A small version of the grouped study, on a population that is made up."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiexit_models.data.dataset import Labelled


@pytest.fixture(scope="module")
def study() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[3])
        return importlib.import_module("benchmarks.group_guarantee")


@pytest.fixture(scope="module")
def made(study: Any) -> list[Any]:
    outcomes: list[Any] = study.run("made up", study.synthetic(1500), (80,), 120, (0.05, 0.2))
    return outcomes


def test_floors_over_groups_hold_and_floors_over_images_do_not(made: list[Any]) -> None:
    assert len(made) == 2 * 3
    for outcome in made:
        if outcome.limit is None:
            assert outcome.violated > outcome.delta + 0.05
        else:
            assert outcome.violated <= outcome.limit


def test_betting_certifies_higher_floors_than_hoeffding_and_bentkus(made: list[Any]) -> None:
    for delta in (0.05, 0.2):
        floors = {outcome.rule: outcome.floor for outcome in made if outcome.delta == delta}
        assert floors["hoeffding-bentkus"] + 0.02 < floors["betting"] < floors["images"]


def test_the_made_up_groups_have_the_effect_that_is_studied(study: Any) -> None:
    assert 4 < study.design_effect(study.synthetic(3000)) < 6


def test_frames_of_a_track_are_alike_and_of_its_class(study: Any) -> None:
    shades = np.linspace(60, 190, 5).astype(np.uint8)[:, None, None, None]
    images = Labelled(np.broadcast_to(shades, (5, 32, 32, 3)), np.arange(5))
    frames = study.tracks(images, 4)
    assert frames.labels.tolist() == np.repeat(np.arange(5), 4).tolist()
    assert frames.group_count == 5
    assert len(np.unique(frames.inputs.reshape(20, -1), axis=0)) == 20
    means = frames.inputs.reshape(5, 4, -1).mean(axis=2)
    assert np.abs(means - shades.reshape(5, 1)).max() < 30


def test_the_table_has_a_line_a_setting(study: Any, made: list[Any]) -> None:
    lines: list[str] = []
    study.print_table(made, lines.append)
    assert len(lines) == 1 + 2
    assert len({len(line) for line in lines}) == 1
    assert len(study.figures(made)) == 2 * len(made)
