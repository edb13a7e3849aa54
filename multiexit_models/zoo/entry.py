"""What the zoo knows of one network: how to make it, and the recipe that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe

Kind: TypeAlias = Literal["image", "audio", "text"]
Make: TypeAlias = Callable[[int, tuple[int, ...], str | None], MultiExitNetwork]


@dataclass(frozen=True)
class ZooEntry:
    """One network of the zoo.

    ``shape`` is the default shape of one input, without the batch: ``(height, width, 3)`` of
    uint8 for an image, ``(samples,)`` of int16 for audio, ``(bytes,)`` of uint8 for text.
    ``make(classes, shape, weights)`` builds the network for inputs of ``shape``; ``weights``
    names trained weights of a maintained library, None means random ones. It raises InvalidInput
    for a shape or weights that the network cannot take. ``sample_rate`` (Hz) is that of audio.
    """

    name: str
    kind: Kind
    description: str
    shape: tuple[int, ...]
    exits: int
    make: Make
    recipe: Recipe
    sample_rate: int | None = None
