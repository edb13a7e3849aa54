"""Streams made from labelled still images: a camera pans over one, zooms, the light changes, and
the picture goes over into the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiexit_models.data.dataset import Labelled

FPS = 30.0

_SHOWN = (1.0, 4.0)
"""Seconds for which an image is shown, drawn uniformly."""
_CROSSING = 0.25
"""Seconds of the way from one image to the next."""
_SHIFT = 3.0
_ZOOM = (1.0, 1.25)
_LIGHT = 0.2
_COURSE = 1.0
"""Seconds over which pan, zoom and light are correlated."""


@dataclass(frozen=True, slots=True)
class MovingImages:
    """``frames`` uint8 [n, 32, 32, 3] at ``FPS``, and the class that is to be seen in each."""

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]


def move(images: Labelled, seconds: float, seed: int) -> MovingImages:
    """A stream of ``seconds`` over ``images``, in an order drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    count = round(seconds * FPS)
    order, ends, shown = [], [], 0.0
    while shown < count:
        order.append(int(rng.integers(len(images))))
        shown += FPS * rng.uniform(*_SHOWN)
        ends.append(shown)
    courses = {which: _courses(rng, count) for which in range(len(order))}
    half = _CROSSING * FPS / 2
    frames = np.empty((count, *images.inputs.shape[1:]), np.uint8)
    labels = np.empty(count, np.int64)
    which = 0
    for frame in range(count):
        if frame >= ends[which]:
            which += 1
        labels[frame] = images.labels[order[which]]
        here = _view(images.inputs[order[which]], courses[which], frame)
        since = frame - (ends[which - 1] if which else -np.inf)
        until = ends[which] - frame
        other = which - 1 if since < until else which + 1
        share = 0.5 - min(since, until) / (2 * half)
        if share > 0 and 0 <= other < len(order):
            there = _view(images.inputs[order[other]], courses[other], frame)
            here = (1 - share) * here + share * there
        frames[frame] = np.clip(np.rint(here), 0, 255)
    return MovingImages(frames, labels)


def _courses(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Pan right and down, zoom and light over time: smooth, from -1 to 1."""
    knots = round(count / FPS / _COURSE) + 4
    drawn = rng.uniform(-1, 1, (4, knots))
    at = np.arange(count) / FPS / _COURSE
    low = at.astype(int)
    share = (1 - np.cos(np.pi * (at - low))) / 2
    return drawn[:, low] * (1 - share) + drawn[:, low + 1] * share


def _view(image: NDArray[np.uint8], course: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
    """What the camera sees of ``image`` then."""
    right, down, zoom, light = course[:, frame]
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    side = image.shape[0]
    shown = side / (_ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * (zoom + 1) / 2)
    left = 8 + side / 2 + _SHIFT * right - shown / 2
    top = 8 + side / 2 + _SHIFT * down - shown / 2
    seen = Image.fromarray(padded).resize(
        (side, side), Image.Resampling.BILINEAR, (left, top, left + shown, top + shown)
    )
    return np.asarray(seen, np.float64) * (1 + _LIGHT * light)
