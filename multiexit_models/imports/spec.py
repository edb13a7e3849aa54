"""What one ``delen import`` makes, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from delen.errors import InvalidInput
from multiexit_models.spec import BundleSpec

LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True, kw_only=True)
class ImportSpec(BundleSpec):
    """File, images, exits and bundle of one import; ``delen import --help`` explains the fields.

    Raises InvalidInput, naming the field, where one option makes another do nothing.
    """

    model: Path
    labels: Path
    calibration: Path
    size: str | None = None
    layout: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    group_by: str | None = None
    max_unreadable: float | None = None

    exits: int = 1
    head: str | None = None
    epochs: int | None = None
    no_mirror: bool = False
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exits == 1 and (self.head or self.epochs or self.no_mirror):
            raise InvalidInput(
                "--head, --epochs and --no-mirror are for the early exits of --exits N", "exits"
            )
