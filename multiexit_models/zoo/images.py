"""What the zoo's image networks share: the normalisation of ImageNet and the check of a shape."""

from __future__ import annotations

from delen.errors import InvalidInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST_SIDE = 32


def image_size(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of ``shape``. Raises InvalidInput unless it is (height, width, 3) of at
    least 32 x 32 pixels, the least that five halvings leave anything of."""
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < SMALLEST_SIDE:
        raise InvalidInput(
            f"{name} takes images of shape [height, width, 3] with at least {SMALLEST_SIDE} x "
            f"{SMALLEST_SIDE} pixels, not {list(shape)}",
            "shape",
        )
    return shape[0], shape[1]


def refuse_weights(name: str, weights: str | None) -> None:
    """Raises InvalidInput where trained weights are asked of a network that has none."""
    if weights is not None:
        raise InvalidInput(
            f"no maintained library has trained weights for {name}, so {weights!r} cannot be "
            "loaded; leave the weights out and train it",
            "weights",
        )


def check_classes(name: str, classes: int) -> None:
    """Raises InvalidInput for fewer than two classes."""
    if classes < 2:
        raise InvalidInput(f"{name} needs at least 2 classes, not {classes}", "classes")
