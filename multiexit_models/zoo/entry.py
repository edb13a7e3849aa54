"""What the zoo knows of one network: how to make it, and the recipe that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from delen.errors import InvalidInput
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe

Kind: TypeAlias = Literal["image", "audio", "text"]
Create: TypeAlias = Callable[[int, tuple[int, ...], str | None], MultiExitNetwork]

SMALLEST_SIDE = 32
"""Pixels of an image's side: five halvings leave one."""
_SHAPES: dict[Kind, tuple[str, str]] = {
    "image": ("[height, width, 3]", "pixels on each side"),
    "audio": ("[samples]", "samples"),
    "text": ("[bytes]", "bytes"),
}


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One network of the zoo.

    ``shape`` is the default shape of one input, without the batch: ``(height, width, 3)`` of
    uint8 for an image, ``(samples,)`` of int16 for audio, ``(bytes,)`` of uint8 for text.
    ``smallest`` is the least height, width, samples or bytes. ``create(classes, shape, weights)``
    builds the network; only where ``has_weights`` can ``weights`` name trained weights of a
    maintained library. ``sample_rate`` (Hz) is that of audio. ``library_name`` is the name by which
    ``zoo.library`` finds the classifier that the exits are put on, None for other networks; ``at``
    names the places of all exits but the last, None where they are spread by cost.
    """

    name: str
    kind: Kind
    description: str
    shape: tuple[int, ...]
    smallest: int
    exits: int
    create: Create
    recipe: Recipe
    has_weights: bool = False
    sample_rate: int | None = None
    library_name: str | None = None
    at: tuple[str, ...] | None = None

    def make(
        self, classes: int, shape: tuple[int, ...], weights: str | None = None
    ) -> MultiExitNetwork:
        """The network for ``classes`` and inputs of ``shape``, with random weights for None.

        Raises InvalidInput for fewer than two classes, and for a shape or weights that the network
        cannot have.
        """
        if weights is not None and not self.has_weights:
            raise InvalidInput(
                f"no maintained library has trained weights for {self.name}, so {weights!r} cannot "
                "be loaded; leave the weights out and train it",
                "weights",
            )
        if classes < 2:
            raise InvalidInput(f"{self.name} needs at least 2 classes, not {classes}", "classes")
        sizes = shape[:2] if self.kind == "image" else shape
        is_right = len(shape) == len(self.shape) and min(sizes) >= self.smallest
        if not is_right or (self.kind == "image" and shape[2] != 3):
            form, unit = _SHAPES[self.kind]
            at = f" at {self.sample_rate} Hz" if self.sample_rate else ""
            raise InvalidInput(
                f"{self.name} needs inputs of shape {form}{at} with at least {self.smallest} "
                f"{unit}, not {list(shape)}",
                "shape",
            )
        return self.create(classes, shape, weights)
