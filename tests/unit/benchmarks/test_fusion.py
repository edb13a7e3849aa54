"""Streams of moving images, and what the benchmark fuses of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fusion import RULES, fuse
from benchmarks.moving_images import FPS, move
from multiexit_models.data.dataset import Labelled


@pytest.fixture(scope="module")
def images() -> Labelled:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    return Labelled(coarse.repeat(8, axis=1).repeat(8, axis=2), np.arange(6))


def test_streams_move_smoothly_and_differ_by_seed(images: Labelled) -> None:
    stream = move(images, 20.0, seed=1)
    assert stream.frames.shape == (round(20 * FPS), 32, 32, 3)
    changes = np.flatnonzero(np.diff(stream.labels))
    assert 4 <= len(changes) <= 20
    steps = np.abs(np.diff(stream.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert 0 < np.median(steps) < 6
    assert steps.max() < 40
    again, other = move(images, 20.0, seed=1), move(images, 20.0, seed=2)
    assert (again.frames == stream.frames).all()
    assert (other.frames != stream.frames).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_remote_that_is_right_makes_fused_answers_right(rule: str) -> None:
    local = np.tile([0.5, 0.3, 0.2], (40, 1))
    remote = np.tile([0.0, 1.0, 0.0], (40, 1))
    at_once, at_last, share = fuse(local, remote, 3, RULES[rule]())
    assert at_once[:3].argmax(axis=1).tolist() == [0, 0, 0]
    assert at_last[0].argmax() == 1
    assert share == pytest.approx(0.2, abs=0.03)
    if rule == "trust":
        assert (at_once[3:].argmax(axis=1) == 1).all()
        assert (fuse(local, remote, None, RULES[rule]())[0] == local).all()
