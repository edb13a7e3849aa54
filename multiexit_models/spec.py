"""What one ``delen build`` makes, as a value, and what all ways to a bundle have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from delen.bundle.checks import FILE_NAME
from delen.core.variant import Size, format_size
from delen.errors import InvalidInput

QUICK_EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class BundleSpec:
    """A bundle's folder and what it says of itself, however its network comes about.

    Raises InvalidInput, naming the field, for a name that a bundle cannot have.
    """

    output: Path
    name: str | None = None
    model_version: str = "1"
    description: str | None = None
    precision: str = "fp32"
    runtime: str = "onnx"
    max_batch: int = 32
    floor: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not FILE_NAME.fullmatch(self.bundle_name):
            raise InvalidInput(
                f"the name {self.bundle_name!r} must be letters, digits, '.', '_' and '-'; --name "
                "gives another",
                "name",
            )

    @property
    def bundle_name(self) -> str:
        return self.name or self.output.name

    @property
    def checkpoint_file(self) -> Path:
        return self.output.with_name(f"{self.output.name}.checkpoint")


def check_sizes(sizes: Sequence[Size]) -> None:
    """InvalidInput unless these are several sizes that a network can be trained at."""
    if len(sizes) < 2 or any(
        not (small[0] < large[0] and small[1] < large[1])
        for large, small in pairwise(sorted(sizes, reverse=True))
    ):
        raise InvalidInput(
            "--sizes needs several sizes, each smaller than the next in height and width, such as "
            "16,24,32 or 96x128,144x192",
            "sizes",
        )


@dataclass(frozen=True, kw_only=True)
class BuildSpec(BundleSpec):
    """Data, network, training and bundle of one build; ``delen build --help`` explains the fields.

    Where a field is None, the network or the kind of data decides. Raises InvalidInput, naming
    the field, where one option makes another do nothing.
    """

    data: Path
    kind: str | None = None
    size: str | None = None
    sizes: tuple[Size, ...] | None = None
    sample_rate: int | None = None
    text_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_by: str | None = None
    cache: Path | None = None
    max_unreadable: float | None = None

    network: str | None = None
    backbone: str | None = None
    at: tuple[str, ...] | None = None
    exits: int | None = None
    place: str | None = None
    head: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pretrained: bool = False

    epochs: int | None = None
    quick: bool = False
    weights: Path | None = None
    batch_size: int | None = None
    frozen: bool = False
    no_mirror: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint: Path | None = None
    save_weights: Path | None = None
    unseen_calibration: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone is not None:
            self._check_backbone()
        if self.sizes is not None:
            check_sizes(self.sizes)
            if self.size is not None:
                raise InvalidInput(
                    "give --size or --sizes, not both: the largest of --sizes is the size", "sizes"
                )
        if self.place is not None and self.exits is None:
            raise InvalidInput("--place is for --exits N", "place")
        if self.batch_size == 1:
            raise InvalidInput(
                "--batch-size must be 2 or more: batch norms need a spread", "batch_size"
            )
        if self.runtime == "torch" and self.precision != "fp32":
            raise InvalidInput(
                f"--runtime torch needs --precision fp32, not {self.precision}", "precision"
            )
        if self.weights is not None and self.pretrained:
            raise InvalidInput("give --weights or --pretrained, not both", "weights")
        foreign = self.weights or self.backbone or self.pretrained
        if self.unseen_calibration and not foreign:
            raise InvalidInput(
                "--unseen-calibration is for --backbone, --pretrained and --weights; a network "
                "that begins with random weights has seen nothing",
                "unseen_calibration",
            )

    @property
    def largest_size(self) -> str | None:
        """``size``, or the largest of ``sizes``."""
        return format_size(max(self.sizes)) if self.sizes else self.size

    @property
    def smaller_sizes(self) -> tuple[Size, ...]:
        """All of ``sizes`` but the largest, largest first."""
        return tuple(sorted(self.sizes or (), reverse=True)[1:])

    def _check_backbone(self) -> None:
        if not (self.at or self.exits):
            raise InvalidInput("--backbone needs --at LAYERS or --exits N", "backbone")
        if self.largest_size is None:
            raise InvalidInput("--backbone needs --size: the size of your network's input", "size")
        if self.pretrained:
            raise InvalidInput(
                "--pretrained is for --network; --backbone has its own weights", "pretrained"
            )

    @property
    def training_options(self) -> bool:
        """Whether an option is given that does something only in a training."""
        given = (self.epochs, self.batch_size, self.checkpoint)
        return any(given) or self.quick or self.frozen or self.no_mirror

    @property
    def checkpoint_file(self) -> Path:
        return self.checkpoint or super().checkpoint_file


def parse_size(text: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """``HEIGHTxWIDTH`` for images (``x1``: grey), else one number, as an input's shape."""
    parts = text.lower().split("x")
    is_image = len(default) == 3
    wanted = (2, 3) if is_image else (1,)
    if len(parts) not in wanted or not all(
        re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts
    ):
        right = "HEIGHTxWIDTH, such as 64x64" if is_image else "one whole number above 0"
        raise InvalidInput(f"size {text!r} must be {right}", "size")
    return (*map(int, parts), *default[len(parts) :])
